"""`python -m analysis fit`, `… isoflop`, `… frontier` and `… accuracy`. `__main__` adds them to its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackwise_ray.core.errors import AnalysisError

from .printing import DropOutliers, Json, Latex, Markdown, Plugins, Source, examples, show, with_or_without
from .selecting import DropMissing, Map, Selecting, Units, Where, selection

if TYPE_CHECKING:
    import pandas as pd

    from ..scaling.frontier import FrontierFit
    from ..scaling.isoflop_valleys import IsoFlopFit
    from ..scaling.scaling_fit import ScalingFit

app = typer.Typer(rich_markup_mode=None)


TokensFrom = Annotated[str | None, typer.Option(help="6N: tokens = flops / (6 params), where there are none.")]
DropHighest = Annotated[int, typer.Option(help="Leave out this many runs: those of the highest loss.")]
Bootstrap = Annotated[int, typer.Option(help="Draws behind the intervals, at least 100; 0: no intervals.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Level = Annotated[float, typer.Option(help="Of all intervals, 0.5 to 0.99.")]
Allocate = Annotated[float | None, typer.Option(help="FLOPs to split into params and tokens.")]
Figure = Annotated[Path | None, typer.Option(help="Write a figure to this PNG.")]

_FIT_HELP = """Fit a scaling law to runs and print it with its certificate.

SOURCE is a table, an experiment of a tracker, or a folder of another program (docs/sources.md) with one run per row:
loss, and what the law depends on (chinchilla: params and tokens; data_constrained: unique_tokens too; power,
power_offset and bnsl: flops, or what --variable says). two_power is for another value than the loss: --law two_power
--map loss=COLUMN.
"""
_ISOFLOP_HELP = """The optimal model size of each budget, and how it grows with the budget.

SOURCE is as for `fit`, with params, flops and loss (and tokens, for their growth). Runs whose flops lie within 2 % form
a budget, unless --budgets names a column. A budget whose lowest loss is at an end of its sizes is refused by name.
"""

_ACCURACY_HELP = """The accuracy on a task as a sigmoid of the loss: the second step after a law of the loss.

SOURCE is as for `fit`, with one run per row: loss and an accuracy between 0 and 1. With --run, a law of the loss is
fitted too, and the interval of the accuracy holds the doubt of both steps.
"""
_FRONTIER_HELP = """Growth of params and tokens along the frontier of loss over FLOPs.

SOURCE is as for `isoflop`, with final losses or with checkpoints of runs. A frontier follows the luckiest runs; `fit`
and `isoflop` use every run.
"""


@app.command(
    cls=Selecting,
    help=_FIT_HELP,
    epilog=examples(
        "fit",
        "runs.csv",
        'runs.csv --map params="Model Size" --map flops="Training FLOP" --tokens-from 6N --drop-highest 5',
        "experiments/scaling_study --law power_offset --variable flops --figure law.png",
        "runs.csv --units params=M tokens=B --allocate 1e21 --json",
        'runs.csv --map loss=val_loss --where "lr == 0.001" --drop-missing',
        "runs.csv --tie alpha=beta --fix E=1.69 --level 0.9",
    ),
)
def fit(
    source: Source,
    law: Annotated[
        str,
        typer.Option(help="power, power_offset, chinchilla, bnsl, data_constrained, two_power, or one of a plugin."),
    ] = "chinchilla",
    loss: Annotated[
        str, typer.Option(help="How misses are counted: huber_log, gaussian_log or student_t_log.")
    ] = "huber_log",
    delta: Annotated[float, typer.Option(help="Where Huber's loss turns linear.")] = 1e-3,
    variable: Annotated[str | None, typer.Option(help="flops, params or tokens, for laws in one. [flops]")] = None,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    tokens_from: TokensFrom = None,
    drop_highest: DropHighest = 0,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    holdout: Annotated[bool, typer.Option(help="Predict the largest budget from the others.")] = True,
    tie: Annotated[
        list[str] | None, typer.Option(help="Parameters that are equal, such as alpha=beta; may be repeated.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(help="A parameter that is known, such as E=1.69; may be repeated.")
    ] = None,
    level: Level = 0.95,
    allocate: Allocate = None,
    figure: Figure = None,
    drop_outliers: DropOutliers = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from ..scaling.law_table import run_names
    from ..scaling.parametric_law import fit_scaling_law

    asked = selection(columns, units, where, drop_missing)
    table = _without_highest(
        asked.measured(asked.table(source), "loss", *_law_columns(law, variable, tokens_from)), drop_highest
    )
    fitted = partial(
        fit_scaling_law,
        law=law,
        loss=loss,
        delta=delta,
        bootstrap=bootstrap,
        seed=seed,
        tokens_from=tokens_from,
        holdout="largest" if holdout else None,
        variable=variable,
        tie=tie or (),
        fix=_values(fix or (), "--fix"),
        level=level,
    )
    result, _ = with_or_without(fitted, table, run_names, drop_outliers)
    _show(result, allocate, figure, as_json=as_json, markdown=markdown, latex=latex)


@app.command(
    cls=Selecting,
    help=_ISOFLOP_HELP,
    epilog=examples(
        "isoflop",
        "experiments/scaling_study --budgets budget",
        "runs.csv --map params=N --map flops=C --tokens-from 6N --latex",
        "runs.csv --figure isoflop.png --allocate 1e21",
    ),
)
def isoflop(
    source: Source,
    budgets: Annotated[str | None, typer.Option(help="Column with the nominal budget. [flops within 2 %]")] = None,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    tokens_from: TokensFrom = None,
    drop_highest: DropHighest = 0,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    allocate: Allocate = None,
    figure: Figure = None,
    drop_outliers: DropOutliers = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from ..scaling.isoflop_valleys import fit_isoflop
    from ..scaling.law_table import run_names

    asked = selection(columns, units, where, drop_missing)
    table = _of_budgets(asked.measured(asked.table(source), "loss", "params", "flops"), tokens_from, drop_highest)
    fitted = partial(fit_isoflop, budgets=budgets, bootstrap=bootstrap, seed=seed)
    result, _ = with_or_without(fitted, table, run_names, drop_outliers)
    _show(result, allocate, figure, as_json=as_json, markdown=markdown, latex=latex)


@app.command(
    cls=Selecting,
    help=_FRONTIER_HELP,
    epilog=examples(
        "frontier",
        "runs.csv",
        "checkpoints.csv --kind hull --group run_name --allocate 1e21",
    ),
)
def frontier(
    source: Source,
    kind: Annotated[str, typer.Option(help="pareto, or hull: the lower convex hull in logarithms.")] = "pareto",
    group: Annotated[
        str | None, typer.Option(help="Column that names the run of each checkpoint; draws are of whole runs.")
    ] = None,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    tokens_from: TokensFrom = None,
    drop_highest: DropHighest = 0,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    allocate: Allocate = None,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from ..scaling.frontier import fit_frontier

    asked = selection(columns, units, where, drop_missing)
    table = _of_budgets(asked.measured(asked.table(source), "loss", "params", "flops"), tokens_from, drop_highest)
    result = fit_frontier(table, kind=kind, group=group, bootstrap=bootstrap, seed=seed)
    _show_allocated(result, allocate, as_json=as_json, markdown=markdown, latex=latex)


@app.command(
    cls=Selecting,
    help=_ACCURACY_HELP,
    epilog=examples(
        "accuracy",
        "runs.csv --accuracy hellaswag --chance 0.25 --at 2.1",
        "runs.csv --map loss=hellaswag_loss --accuracy hellaswag --at 2.1 --at 1.9 --json",
        "runs.csv --accuracy hellaswag --run params=7e9 --run tokens=2e12 --law chinchilla",
    ),
)
def accuracy(
    source: Source,
    column: Annotated[str, typer.Option("--accuracy", help="Column with the accuracy, from 0 to 1.")] = "accuracy",
    chance: Annotated[float | None, typer.Option(help="Accuracy of a guess, where known. [fitted]")] = None,
    at: Annotated[list[float] | None, typer.Option(help="Loss to say the accuracy of; may be repeated.")] = None,
    of_run: Annotated[
        list[str] | None,
        typer.Option("--run", help="A run to say the accuracy of, by a law: params=7e9; once per column of the law."),
    ] = None,
    law: Annotated[str, typer.Option(help="Law of the loss, for --run.")] = "chinchilla",
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    level: Level = 0.95,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from ..scaling.accuracy import fit_accuracy
    from ..scaling.law_text import show_ends, show_value

    asked = selection(columns, units, where, drop_missing)
    table = asked.measured(asked.table(source), "loss", column)
    result = fit_accuracy(table, column, chance=chance, bootstrap=bootstrap, seed=seed, level=level)
    wanted = {f"a loss of {show_value(loss)}": result.predict(loss) for loss in at or ()}
    if of_run:
        from ..scaling.parametric_law import fit_scaling_law

        fitted = fit_scaling_law(table, law, bootstrap=bootstrap, seed=seed, level=level, holdout=None)
        wanted[" ".join(of_run)] = result.of_run(fitted, **_values(of_run, "--run"))
    facts, lines = result.to_dict(), []
    facts["predictions"] = []
    for words, found in wanted.items():
        mean, low, high = found
        ends = f" [{show_ends((low, high))}]" if bootstrap else ""
        lines.append(f"at {words}: {column} {show_value(mean)}{ends} ({found.label})")
        facts["predictions"].append({"at": words, "mean": mean, "low": low, "high": high, **vars(found)})
    show(result.grid, facts, result.sentence, *lines, as_json=as_json, markdown=markdown, latex=latex)


_EXAMPLES = {"--fix": "E=1.69", "--run": "params=7e9"}


def _values(words: Sequence[str], option: str) -> dict[str, float]:
    """Numbers that an option gives by name."""
    from ..table.cell_numbers import numbers

    found: dict[str, float] = {}
    for word in words:
        name, sign, value = word.partition("=")
        (number,) = numbers([value], counts=True)
        if not sign or not value.strip() or number is None:
            raise AnalysisError(f"{option} '{word}': write NAME=NUMBER, for example {_EXAMPLES[option]}")
        if name in found:
            raise AnalysisError(f"{option} gives '{name}' twice: {found[name]:g} and {number:g}")
        found[name] = number
    return found


def _law_columns(law: str, variable: str | None, tokens_from: str | None) -> tuple[str, ...]:
    """What a law depends on, and what its tokens are derived from; a law that is not known is refused later."""
    from stackwise_ray.core.registries import LAWS

    known = LAWS.get(law).columns if law in LAWS else ()
    needed = known or (variable or "flops",)
    return needed if tokens_from is None else (*needed, "flops")


def _of_budgets(table: pd.DataFrame, tokens_from: str | None, drop: int) -> pd.DataFrame:
    """The runs of `isoflop` and `frontier`: without those of the highest loss, with derived tokens where asked for."""
    from ..scaling.law_table import derive_tokens

    kept = _without_highest(table, drop)
    return kept if tokens_from is None else derive_tokens(kept, tokens_from)


def _without_highest(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The table without as many runs of the highest loss."""
    from ..scaling.law_table import drop_highest

    return drop_highest(table, count) if count else table


def _show(result: ScalingFit | IsoFlopFit, flops: float | None, figure: Path | None, **form: bool) -> None:
    """A fit, with the allocation of a budget of `flops` and its figure where they were asked for."""
    lines = []
    if figure is not None:
        from ..plots.law_figures import isoflop_figure, law_figure
        from ..scaling.isoflop_valleys import IsoFlopFit

        drawn = isoflop_figure(figure, result) if isinstance(result, IsoFlopFit) else law_figure(figure, result)
        lines.append(f"figure: {drawn}")
    _show_allocated(result, flops, *lines, **form)


def _show_allocated(
    result: ScalingFit | IsoFlopFit | FrontierFit, flops: float | None, *lines: str, **form: bool
) -> None:
    """A fit, with the allocation of a budget of `flops` where it was asked for."""
    facts, said = result.to_dict(), []
    if flops is not None:
        from ..scaling.allocation import optimal_allocation

        found = optimal_allocation(result, flops)
        said.append(found.sentence)
        facts["allocation"] = {"params": found.params, "tokens": found.tokens, **vars(found)}
    show(result.grid, facts, result.sentence, *said, *lines, **form)
