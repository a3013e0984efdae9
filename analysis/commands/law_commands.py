"""`python -m analysis fit` and `… isoflop`: scaling laws from a shell. `__main__` adds them to its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .printing import DropOutliers, Json, Latex, Markdown, Plugins, Source, examples, show, with_or_without
from .selecting import DropMissing, Map, Selecting, Units, Where, selection

if TYPE_CHECKING:
    import pandas as pd

    from ..scaling.isoflop_valleys import IsoFlopFit
    from ..scaling.parametric_law import ScalingFit

app = typer.Typer(rich_markup_mode=None)


TokensFrom = Annotated[str | None, typer.Option(help="6N: tokens = flops / (6 params), where there are none.")]
DropHighest = Annotated[int, typer.Option(help="Leave out this many runs: those of the highest loss.")]
Bootstrap = Annotated[int, typer.Option(help="Draws behind the intervals; 0: none.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Figure = Annotated[Path | None, typer.Option(help="Write a figure to this PNG.")]

_FIT_HELP = """Fit a scaling law to runs and print it with its certificate.

SOURCE is a table, an experiment of a tracker, or a folder of another program (docs/sources.md) with one run per row:
loss, and what the law depends on (chinchilla: params and tokens; data_constrained: unique_tokens too; the others:
flops, or what --variable says).
"""
_ISOFLOP_HELP = """The optimal model size of each budget, and how it grows with the budget.

SOURCE is as for `fit`, with params, flops and loss (and tokens, for their growth). Runs whose flops lie within 2 % form
a budget, unless --budgets names a column. A budget whose lowest loss is at an end of its sizes is refused by name.
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
    ),
)
def fit(
    source: Source,
    law: Annotated[str, typer.Option(help="power, power_offset, chinchilla, bnsl or data_constrained.")] = "chinchilla",
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
    allocate: Annotated[float | None, typer.Option(help="FLOPs to split into params and tokens.")] = None,
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
    allocate: Annotated[float | None, typer.Option(help="FLOPs to split into params and tokens.")] = None,
    figure: Figure = None,
    drop_outliers: DropOutliers = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from ..scaling.isoflop_valleys import fit_isoflop
    from ..scaling.law_table import derive_tokens, run_names

    asked = selection(columns, units, where, drop_missing)
    table = _without_highest(asked.measured(asked.table(source), "loss", "params", "flops"), drop_highest)
    if tokens_from is not None:
        table = derive_tokens(table, tokens_from)
    fitted = partial(fit_isoflop, budgets=budgets, bootstrap=bootstrap, seed=seed)
    result, _ = with_or_without(fitted, table, run_names, drop_outliers)
    _show(result, allocate, figure, as_json=as_json, markdown=markdown, latex=latex)


def _law_columns(law: str, variable: str | None, tokens_from: str | None) -> tuple[str, ...]:
    """What a law depends on, and what its tokens are derived from; a law that is not known is refused later."""
    from ..scaling.laws import LAWS

    known = LAWS.get(law)
    needed = known.columns if known is not None and known.columns else (variable or "flops",)
    return needed if tokens_from is None else (*needed, "flops")


def _without_highest(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The table without as many runs of the highest loss."""
    from ..scaling.law_table import drop_highest

    return drop_highest(table, count) if count else table


def _show(result: ScalingFit | IsoFlopFit, flops: float | None, figure: Path | None, **form: bool) -> None:
    """A fit, with the allocation of a budget of `flops` and its figure where they were asked for."""
    facts, lines = result.to_dict(), []
    if flops is not None:
        from ..scaling.allocation import optimal_allocation

        found = optimal_allocation(result, flops)
        lines.append(found.sentence)
        facts["allocation"] = {"params": found.params, "tokens": found.tokens, **vars(found)}
    if figure is not None:
        from ..plots.law_figures import isoflop_figure, law_figure
        from ..scaling.isoflop_valleys import IsoFlopFit

        drawn = isoflop_figure(figure, result) if isinstance(result, IsoFlopFit) else law_figure(figure, result)
        lines.append(f"figure: {drawn}")
    show(result.grid, facts, result.sentence, *lines, **form)
