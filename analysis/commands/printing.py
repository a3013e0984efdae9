"""What the commands of `python -m analysis` share: what is asked, options of the output, how a result is printed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer
import typer.core

from stackwise_ray.core.errors import AnalysisError, first_few
from stackwise_ray.core.invocation import ANALYSIS, as_started
from stackwise_ray.core.plugins import load_plugin

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_ray.core.comparison_records import ResolvedComparison

    from ..render import Grid
    from ..table.outliers import Outlier
    from ..table.sweep_directory import Sweep

Source = Annotated[str, typer.Argument(help="Where the runs are: a file, a folder or URI#NAME.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print a LaTeX table (booktabs).")]


def _load(names: list[str] | None) -> list[str] | None:
    """Load what `--plugin` names before the command begins."""
    for name in names or ():
        load_plugin(name)
    return names


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="NAME|FILE.py",
        callback=_load,
        help="Load a plugin that brings an analysis or a metric: a Python file, an installed entry point or a module.",
    ),
]
DropOutliers = Annotated[
    bool, typer.Option("--drop-outliers", help="Leave out the runs that are listed above the result as far off.")
]
Target = Annotated[
    float | None,
    typer.Option(help="Value to compare the mean of every arm with (one-sample tests), in place of a baseline."),
]
Question = Annotated[
    str | None,
    typer.Option(
        "--hypothesis", help="different, or non_inferior: not worse by --margin or more (one-sided). [different]"
    ),
]
OneSide = Annotated[
    str | None,
    typer.Option("--side", help="both; better or worse: one-sided, only such differences are looked for. [both]"),
]
Compared = Annotated[str | None, typer.Option(help="Column to compare. [loss]")]
Blocks = Annotated[list[str] | None, typer.Option(help="Column that pairs runs; may be repeated. [seed]")]
Margin = Annotated[float | None, typer.Option(help="Largest difference that does not matter.")]
Direction = Annotated[str | None, typer.Option(help="minimize or maximize. [as is known of the metric]")]
Equal = Annotated[str | None, typer.Option(help="flops, tokens, wall_seconds, steps, peak_bytes or none. [flops]")]
Tolerance = Annotated[float | None, typer.Option(help="Largest relative difference of budgets. [0.01]")]
AlphaOrDeclared = Annotated[float | None, typer.Option(help="Level of the test. [0.05]")]
Alpha = Annotated[float, typer.Option(help="Level of the test.")]


def examples(command: str, *lines: str) -> str:
    """The end of a command's help, in the form in which the program was started."""
    return "\n".join(["\b", "Examples:", *(f"  {as_started(ANALYSIS)} {command} {line}" for line in lines)])


GUESS = "guess"
"""The command that a source without a command stands for."""


class WholeHelp(typer.core.TyperGroup):
    """A list of commands in which no sentence is cut, however long it is; a source alone is a command too."""

    def resolve_command(self, context: Any, args: list[str]) -> Any:
        """The command that the first word names, or the guess where that word is a source."""
        return super().resolve_command(context, [GUESS, *args] if self._begins_with_source(args) else args)

    def _begins_with_source(self, args: list[str]) -> bool:
        word = args[0]
        if word in self.commands or word.startswith("-"):
            return False
        return Path(word).exists() or "#" in word or "://" in word or Path(word).suffix != ""

    def format_commands(self, context: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Each command with the first paragraph of its help."""
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        texts = {name: inspect.cleandoc(command.help or "") for name, command in shown.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(text.split("\n\n")[0].split())) for name, text in texts.items()])


def declared_arguments(
    sweep: Sweep | None, metric: str | None, arguments: Callable[[ResolvedComparison], dict[str, Any]]
) -> dict[str, Any]:
    """The arguments of a comparison on `metric` (None: of the sweep's first comparison) that the sweep declares.

    For a metric that it does not compare, a sweep still gives its arms, which way is better and what must be equal. A
    source that is no sweep gives nothing.
    """
    if sweep is None:
        return {}
    from ..table.columns import metric_path

    asked, path = sweep.questions, None if metric is None else metric_path(metric)
    declared = next((item for item in asked.comparisons if path is None or path == metric_path(item.metric)), None)
    if declared is not None:
        return arguments(declared)
    if path is None:
        return {}
    goal = asked.goal_on(path)
    family = len(sweep.arms) - 1
    found = {"baseline": sweep.baseline, "family": family, "direction": goal.direction, "assumed": goal.assumed}
    if asked.comparisons:
        found["equal"] = asked.comparisons[0].equal
    elif sweep.budget_kind is not None:
        found["equal"] = sweep.budget_kind
    return found


def completed(
    given: Mapping[str, Any], declared: Mapping[str, Any], source: str, table: pd.DataFrame, arm: str
) -> dict[str, Any]:
    """Arguments of a comparison: what was given on the command line, over what is declared.

    Raises:
        AnalysisError: Neither names a baseline or a target; the message lists the arms.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if "direction" in asked:
        asked["assumed"] = False
    declared = dict(declared)
    if "target" in asked:  # every arm is compared, and none is the baseline
        declared |= {"baseline": None, "family": None}
    elif "baseline" in asked and declared.get("target") is not None:
        declared |= {"target": None, "family": None}
    asked = {"metric": "loss", **declared, **asked}
    if arm != "arm":  # what was declared is about the sweep's own arms
        asked.pop("family", None)
    if asked.get("baseline") is None and asked.get("target") is None:
        from ..table.exclusions import refuse_without_runs
        from ..table.typed_columns import names_of

        refuse_without_runs(table)
        found = f"no column '{arm}'"
        if arm in table.columns:
            names = list(dict.fromkeys(names_of(table, arm)))
            found = first_few(names, 12)
        what = "say which arm is the baseline (--baseline), or which value to compare with (--target)"
        raise AnalysisError(f"{what}; {source} has: {found}")
    return asked


class _HasOutliers(Protocol):
    @property
    def outliers(self) -> tuple[Outlier, ...]: ...


Result = TypeVar("Result", bound=_HasOutliers)


def with_or_without(
    answer: Callable[[pd.DataFrame], Result],
    table: pd.DataFrame,
    names: Callable[[pd.DataFrame], Sequence[str]],
    drop: bool,
) -> tuple[Result, pd.DataFrame]:
    """An answer from a table, and the table; asked again without the runs that are far off where `drop` says so.

    Args:
        names: The names of the rows of the table, as outliers have them.
    """
    result = answer(table)
    if not (drop and result.outliers):
        return result, table
    from ..table.outliers import leave_out

    kept = leave_out(table, names(table), result.outliers)
    return answer(kept), kept


def show(grid: Grid, facts: Any, *lines: str, as_json: bool, markdown: bool, latex: bool, shown: Any = None) -> None:
    """One result in the form that was asked for.

    Args:
        grid: The table.
        facts: The content of the JSON.
        lines: Lines below the table in a terminal.
        shown: What a terminal shows instead of the plain table.
    """
    if as_json:
        from ..plain_json import dump_json

        print(dump_json(facts))
    elif markdown or latex:
        print(grid.to_markdown() if markdown else grid.to_latex(), end="")
    else:
        to_terminal(grid if shown is None else shown, *lines)


def excluded(table: pd.DataFrame) -> list[str]:
    """One line per reason for what was left out before the question."""
    from ..table.exclusions import exclusion_counts

    return [f"left out: {line}" for line in exclusion_counts(table.attrs.get("exclusions", ()))]


def to_terminal(*things: Any) -> None:
    """To a terminal with rich; elsewhere wide and without ANSI."""
    from rich.console import Console

    seen = sys.stdout.isatty()
    console = Console(highlight=False, emoji=False, width=None if seen else 200, no_color=None if seen else True)
    for thing in things:
        console.print(thing, markup=False) if isinstance(thing, str) else console.print(thing)
