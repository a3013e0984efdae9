"""`python -m stackwise_ray.evaluate`: score a trained model.

The command: arguments, messages, exit codes. What it does stands in `training.scoring`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from stackwise_ray.core.errors import ConfigError, TrialError, did_you_mean
from stackwise_ray.terminal import EXIT_FAILED, PluginOption, exit_codes, load_plugins, make_console, plugins_of_before

if TYPE_CHECKING:
    from stackwise_ray.training.scoring import Scores

PERPLEXITY = "perplexity"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/bold]

python -m stackwise_ray.evaluate --run runs/bk   [dim]# on the run's own data[/dim]

python -m stackwise_ray.evaluate --model runs/bk/model data=text_files data.path=notes.txt

python -m stackwise_ray.evaluate --run runs/bk --output scores

python -m stackwise_ray.evaluate --run runs/mine --plugin my_corpus.py   [dim]# a run with a plugin[/dim]
"""
)
def main(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[data=choice | data.path=value ...]", help="Data for --model.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A finished trial's folder.")] = None,
    model: Annotated[str | None, typer.Option(help="A transformers model: a path or a hub name.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated tasks; default: perplexity.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json; default: the run's outputs/, or none for --model.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Score a trained model: loss on the fixed validation windows, and perplexity over the whole splits.

    Exit codes: 0 done; 1 failed, or the disk is full; 2 a mistake in what was asked; 130 interrupted.
    """
    console = make_console()
    with exit_codes(resumable=False):
        if (run is None) == (model is None):
            raise ConfigError("give either --run DIR or --model PATH_OR_NAME; --help shows examples")
        load_plugins(plugin)
        _check_tasks(tasks)
        try:
            scores = _score(run, model, words or [])
        except TrialError as error:
            Console(stderr=True, soft_wrap=True).print(f"failed: {error}", markup=False, highlight=False)
            raise typer.Exit(EXIT_FAILED) from None
        _answer(scores, output or (run / "outputs" if run is not None else None), console)


def _check_tasks(tasks: str | None) -> None:
    known = [PERPLEXITY]
    for name in [] if tasks is None else [task.strip() for task in tasks.split(",")]:
        if name not in known:
            raise ConfigError(f"= {name} is no task of this version; {did_you_mean(name, known)}", path="--tasks")


def _score(run: Path | None, model: str | None, words: list[str]) -> Scores:
    from stackwise_ray.training.scoring import score_model, score_run

    if run is not None:
        if words:
            raise ConfigError(f"'{words[0]}': a run is scored on its own data; use --model for other data")
        with plugins_of_before(run):
            return score_run(run)
    assert model is not None  # exactly one of the two is given
    return score_model(model, words)


def _answer(scores: Scores, folder: Path | None, console: Console) -> None:
    from stackwise_ray.core.atomic import atomic_write_json
    from stackwise_ray.training.trial_folder import unwritable_is_named

    for name, value in sorted(scores.metrics.items()):
        console.print(f"{name}  {value:.6g}", highlight=False, soft_wrap=True, markup=False)
    if folder is not None:
        path = folder / "evaluation.json"
        with unwritable_is_named(folder):
            atomic_write_json(path, scores.to_dict())
        console.print(f"results: {path}", highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    app()
