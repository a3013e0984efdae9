"""`python -m stackwise_ray.evaluate`: score a trained model, on its own data or on tasks.

The command: arguments, messages, exit codes. What it does is in `training.scoring` and `tasks.evaluating`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stackwise_ray.core.errors import ConfigError, PluginError, TrialError, did_you_mean
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.plugins import at_fault
from stackwise_ray.core.registries import TASKS
from stackwise_ray.terminal import (
    EXIT_FAILED,
    PluginOption,
    Waiting,
    complain,
    examples,
    exit_codes,
    load_plugins,
    make_console,
    plugins_of_before,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackwise_ray.tasks.evaluating import TaskResult
    from stackwise_ray.tasks.task import Reference, Task
    from stackwise_ray.training.scoring import TrainedModel

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    epilog=examples(
        "evaluate",
        "--run runs/bk   # on its own data",
        "--run runs/bk --tasks wikitext2,ptb",
        "--list   # the tasks, and their data",
        "--model gpt2 --tasks wikitext2",
        "--model gpt2 data=text_files data.path=my.txt",
        "--run runs/mine --plugin my_corpus.py",
    )
)
def main(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[data=choice | data.path=value ...]",
            help="Data for --model; with --tasks: data.path of one task, and data.seq_len for --model.",
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A finished trial's folder.")] = None,
    model: Annotated[str | None, typer.Option(help="A transformers model: a path or a hub name.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated tasks; default: the run's own data, or those named.")
    ] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="List the tasks and where their data are.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Score the first so many items of each task alone.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json; default: the run's outputs/, or none for --model.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Score a trained model on its own data, or on tasks.

    Its own data give the loss on the fixed validation windows and the perplexity over the whole splits.

    Exit codes: 0 done; 1 failed, or the disk is full; 2 a mistake in what was asked; 130 interrupted.
    """
    console = make_console()
    with exit_codes(resumable=False):
        load_plugins(plugin)
        if list_tasks:
            _list(console)
            return
        if (run is None) == (model is None):
            raise ConfigError("give either --run DIR or --model PATH_OR_NAME; --help shows examples")
        names = _named(tasks)
        if limit is not None and not names:
            raise ConfigError(f"= {limit} is of a task's items; add --tasks", path="--limit")
        folder = output or (run / "outputs" if run is not None else None)
        try:
            with Waiting() as waiting, plugins_of_before(run):
                if names:
                    _score_tasks(names, run, model, words or [], limit, folder, console, waiting)
                else:
                    _score_own(run, model, words or [], folder, console, waiting)
        except TrialError as error:
            complain(f"failed: {error}")
            raise typer.Exit(EXIT_FAILED) from None
        if folder is not None:
            say(console, f"results: {folder / 'evaluation.json'}")


def _named(tasks: str | None) -> tuple[str, ...]:
    """The tasks asked for, each once."""
    if tasks is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"= '{tasks}' names no task; --list shows them", path="--tasks")
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"= {name} is no task; {did_you_mean(name, TASKS.names())}", path="--tasks")
    return names


def _list(console: Console) -> None:
    for name, task in TASKS.items():
        try:
            with at_fault(TASKS, name, "what it states of itself"):
                lines = _described(name, task)
        except PluginError as error:  # the others are listed all the same
            lines = [f"{name}  cannot be listed: {error}"]
        for line in lines:
            say(console, line)


def _described(name: str, task: type[Task]) -> list[str]:
    facts, where = task.facts, task().where(None)
    count = "" if facts.n_items is None else f" of {facts.n_items:,} {facts.item}"
    return [
        f"{name}  {facts.kind}  {facts.title}, {facts.split} split{count}",
        f"  metrics: {', '.join(metric.path for metric in facts.metrics)}",
        f"  source: {facts.source.paper}; licence: {facts.source.licence}",
        f"  data: {where.place if where.place is not None else where.missing}",
    ]


def _score_own(
    run: Path | None, model: str | None, words: list[str], folder: Path | None, console: Console, waiting: Waiting
) -> None:
    if run is not None and words:
        raise ConfigError(f"'{words[0]}': a run is scored on its own data; use --model for other data")
    waiting("loading torch")
    from stackwise_ray.tasks.evaluating import keep_own
    from stackwise_ray.training.scoring import score_model, score_run

    if run is not None:
        scores = score_run(run, progress=waiting)
    else:
        assert model is not None  # exactly one of the two is given
        scores = score_model(model, words, progress=waiting)
    waiting.clear()
    for name, value in sorted(scores.metrics.items()):
        say(console, f"{name}  {format_metric(name, value)}")
    if folder is not None:
        keep_own(folder, scores.to_dict())


def _score_tasks(
    names: tuple[str, ...],
    run: Path | None,
    model: str | None,
    words: list[str],
    limit: int | None,
    folder: Path | None,
    console: Console,
    waiting: Waiting,
) -> None:
    path, others = _data_path(words, names)
    if run is not None and others:
        raise ConfigError(f"'{others[0]}': a run is scored with its own context and tokenizer; leave it out")
    wrong = [word for word in others if not word.startswith(("data.seq_len=", "data.tokenizer="))]
    if wrong:
        raise ConfigError(f"'{wrong[0]}': a task brings its own data; beside data.path, data.seq_len can be given")
    waiting("loading torch")
    from stackwise_ray.tasks.evaluating import evaluate_tasks

    trained = _open(run, model, others)
    results = evaluate_tasks(trained, names, path=path, limit=limit, folder=folder, progress=waiting)
    for result in results:
        waiting.clear()
        _answer(result, console)


def _open(run: Path | None, model: str | None, words: list[str]) -> TrainedModel:
    from stackwise_ray.training.scoring import open_model, open_run

    if run is not None:
        return open_run(run)
    assert model is not None  # exactly one of the two is given
    return open_model(model, words)


def _data_path(words: list[str], names: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """`data.path` and the other words."""
    paths = [word for word in words if word.startswith("data.path=")]
    if paths and (len(names) > 1 or len(paths) > 1):
        raise ConfigError(
            f"'{paths[-1]}': data.path is of one task, and {len(names)} are asked for ({', '.join(names)}); ask for "
            "one at a time, or put the data under $STACKWISE_DATA"
        )
    path = paths[0].partition("=")[2] if paths else None
    return path, [word for word in words if word not in paths]


def _answer(result: TaskResult, console: Console) -> None:
    """One line per metric: path, value, and what it is compared with."""
    content, facts = result.content, result.facts
    for path, found in content["metrics"].items():
        parts = [f"{path}  {format_metric(path, found['value'])}"]
        if "standard_error" in found:
            parts.append(f"± {found['standard_error']:.2g} (standard error)")
        if path in content["floor"]:
            parts.append(f"floor {format_metric(path, content['floor'][path])}")
        parts += [_reference(reference) for reference in facts.references if reference.metric == path]
        say(console, "  ".join(parts))
    say(console, f"{facts.name}: {_scored(content)}" + ("; computed before" if result.kept else ""))


def _reference(reference: Reference) -> str:
    return f"published {reference.value:g} ({reference.model}; {reference.source})"


def _scored(content: Mapping[str, Any]) -> str:
    part = "" if content["limit"] is None else f", the first {content['limit']} alone"
    cut = f", {content['n_cut']:,} cut by the context" if content["n_cut"] else ""
    return (
        f"{content['split']} split, {content['n_items']:,} {content['item']}{part}{cut}, context of "
        f"{content['seq_len']} tokens, data {content['data_fingerprint'][:12]}"
    )


if __name__ == "__main__":
    app()
