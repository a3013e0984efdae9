"""`stackwise new`: four questions, then a search-space file whose plan fits the time that there is.

What is asked at a terminal can be given as options. What the answers become is in `drafting`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.invocation import as_started
from stackwise_ray.core.quantities import format_seconds
from stackwise_ray.drafting.interview import Interview
from stackwise_ray.terminal import PluginOption, Waiting, examples, exit_codes, load_plugins, make_console, say

if TYPE_CHECKING:
    from stackwise_ray.drafting.writing import SearchSpaceDraft
    from stackwise_ray.planning.sweep_plan import SweepPlan

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

MODEL, DATA, TIME = "decoder/gpt2_family/tiny", "python_stdlib", "10min"
"""The answers that Enter gives."""
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@app.command(
    epilog=examples(
        "new",
        "   # asks",
        "--yes   # asks nothing: the defaults",
        "--model decoder/bk_family/tiny --against deeper",
        "--against training.lr=1e-3,1e-2 --time 30min",
        "--data my.txt --hours 2 --output mine.yaml",
    )
)
def main(
    claim: Annotated[str | None, typer.Option(help="What is claimed, in your words: the question of the file.")] = None,
    model: Annotated[str | None, typer.Option(help="The model preset to start from.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="What it is compared with: a model or training preset, a flag, deeper, wider, lr, or path=value,value."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="On which data: a preset, or a file or folder of your text.")] = None,
    time: Annotated[str | None, typer.Option(help="How long the sweep may take in all: 90s, 10min, 2h.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.001, help="The same in hours.")] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write; default: the arms' names, .yaml.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; use the default for each missing option.")] = False,
    busy: Annotated[
        bool, typer.Option("--even-if-busy", help="Measure the speed although other processes are running.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write a search-space file for a claim: four questions, and a plan that fits the time on this machine.

    Exit codes: 0 the file is written; 1 the disk is full; 2 a mistake in what was asked; 130 interrupted.
    """
    console = make_console()
    with exit_codes(resumable=False):
        if time is not None and hours is not None:
            raise ConfigError(f"= {time}: --hours = {hours:g} says how long it may take, too; give one", path="--time")
        if output is not None:
            _refuse_existing(output, force)
        load_plugins(plugin)
        ask = Interview(console, asks=not yes)
        draft = _drafted(ask, claim, model, against, data, time if hours is None else f"{hours:f}h")
        file = output or Path(f"{draft.contest.name}.yaml")
        _refuse_existing(file, force)
        draft, plan = _fitted(draft, ask, console, even_if_busy=busy)
        from stackwise_ray.core.atomic import atomic_write_text

        atomic_write_text(file, draft.text())
        _answer(file, draft, plan, console)


def _drafted(
    ask: Interview, claim: str | None, model: str | None, against: str | None, data: str | None, time: str | None
) -> SearchSpaceDraft:
    """The draft that the answers make, without a budget that fits."""
    from stackwise_ray.config.loading import load_trial
    from stackwise_ray.config.reading.presets import list_presets
    from stackwise_ray.drafting.contests import choices, contest
    from stackwise_ray.drafting.writing import SearchSpaceDraft

    claimed = ask.answer(
        "1/4  What do you claim?", "--claim", claim, _claim, default="", hint="a question about what is compared"
    )
    start = ask.answer(
        "2/4  Which model do you start from?",
        "--model",
        model,
        _model,
        default=MODEL,
        choices=dict.fromkeys(list_presets("model"), ""),
    )
    others = choices(start)
    found = ask.answer(
        "     With what is it compared? (a word of the list, or path=value,value)",
        "--against",
        against,
        lambda word: contest(start, word),
        default=next(iter(others)),
        choices=others,
    )
    preset, path = ask.answer(
        "3/4  On which data? (or a file or folder of your own text)",
        "--data",
        data,
        _data,
        default=DATA,
        choices={name: "" for name in list_presets("data") if name != "text_files"},
    )
    seconds = ask.answer("4/4  How long may it take, in all?", "--time", time, seconds_of, default=TIME)
    return SearchSpaceDraft(
        contest=found,
        claim=claimed or found.claim,
        model=start,
        data=preset,
        path=path,
        lr=load_trial([f"model={start}"]).training.lr,
        seconds=seconds,
        budget={"steps": 100},
    )


def _claim(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("is no UTF-8 text; write it in UTF-8", path="--claim") from None
    return text


def _model(word: str) -> str:
    from stackwise_ray.config.loading import load_trial

    load_trial([f"model={word}"])
    return word


def _data(word: str) -> tuple[str, str | None]:
    """A preset, and the path of the user's own text where it is that."""
    from stackwise_ray.config.reading.presets import list_presets

    presets = [name for name in list_presets("data") if name != "text_files"]
    if word in presets:
        return word, None
    if Path(word).expanduser().exists():
        return "text_files", word
    if word == "text_files":
        raise ConfigError("= text_files needs a text; name its file or folder instead", path="--data")
    problem = f"= {word} is not the name of a preset, and there is no such file or folder"
    raise ConfigError(f"{problem}; {did_you_mean(word, presets)}", path="--data")


def seconds_of(text: str) -> float:
    """Seconds of a time that is written with its unit.

    >>> seconds_of("90s"), seconds_of("1.5h"), seconds_of("10 min")
    (90.0, 5400.0, 600.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"= {text} is no time; write a number and its unit: 90s, 10min or 2h", path="--time")
    return float(match[1]) * _UNITS[match[2]]


def _refuse_existing(file: Path, force: bool) -> None:
    if file.is_dir():
        raise ConfigError(f"= {file} is a folder; name a file", path="--output")
    if file.exists() and not force:
        raise ConfigError(f"= {file} exists; give --force to write over it, or another name", path="--output")


def _fitted(
    draft: SearchSpaceDraft, ask: Interview, console: Console, *, even_if_busy: bool
) -> tuple[SearchSpaceDraft, SweepPlan]:
    """The draft with its budget; what was not measured is measured, where a person agrees.

    Raises:
        ConfigError: There is no plan that fits, or no measurement to plan with.
    """
    from stackwise_ray.drafting.sizing import NotMeasuredError, fitted, measure

    say(console, "planning …")
    try:
        return fitted(draft)
    except NotMeasuredError as error:
        lacking = error.arms
    say(console, f"This machine has not been measured on: {', '.join(lacking)}. Without that there is no time to plan.")
    if not ask.agrees("Measure it now, with a few seconds of training per arm?", "--yes"):
        raise ConfigError(f"there is no plan without a measurement; {as_started('doctor')} measures all tiny models")
    with Waiting(console) as waiting:
        measure(draft, lacking, waiting, even_if_busy=even_if_busy)
    say(console, "planning …")
    try:
        return fitted(draft)
    except NotMeasuredError as error:
        raise ConfigError(f"{', '.join(error.arms)}: no time could be measured") from None


def _answer(file: Path, draft: SearchSpaceDraft, plan: SweepPlan, console: Console) -> None:
    assert draft.planned_seconds is not None  # it is fitted
    arms = ", ".join(draft.contest.arms)
    say(console, f"{file}: {arms}; {plan.trials} trials in about {format_seconds(draft.planned_seconds)}", style="bold")
    say(console, "next:")
    sweep = f"{as_started('sweep')} {shlex.quote(str(file))}"
    say(console, f"  {sweep} --plan   # what would run, at what cost")
    say(console, f"  {sweep}          # run it: the answer, and a report")


if __name__ == "__main__":
    app()
