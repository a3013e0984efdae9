"""`fit_frontier`: params and tokens along the frontier of loss over flops (Chinchilla, approach 1).

The frontier is the runs that no cheaper run beats (pareto), or those of them on the lower convex hull of log-loss over
log-flops (hull), which noise bends less. With checkpoints in place of final losses, draws are of whole runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from ..paired.intervals import check_draws
from ..render import Grid, GridView
from .allocation import AllocationLine, fit_line, slopes
from .law_table import read_law_runs
from .law_text import show_ends, show_value
from .laws import Array

if TYPE_CHECKING:
    import pandas as pd

FEWEST_RUNS = 3
KINDS = ("pareto", "hull")


_MEANING = {
    "pareto": "runs that no run of as few flops beats",
    "hull": "runs on the lower convex hull of log-loss over log-flops",
}


@dataclass(frozen=True, kw_only=True, repr=False)
class FrontierFit(GridView):
    """The frontier of loss over flops, and how params and tokens grow along it.

    Attributes:
        kind: pareto or hull.
        n: Rows in the table, runs or their checkpoints.
        runs: flops, params, tokens (None where not recorded) and loss of each run on the frontier, the cheapest first.
        exponents: {a, b}: params and tokens grow as flops^a and flops^b; no b where tokens are not recorded.
        intervals: 95 % percentile bootstrap over runs, by exponent; None with bootstrap=0 or where too many draws have
            a frontier of fewer than 3 runs.
    """

    kind: str
    n: int
    runs: tuple[Mapping[str, float | None], ...]
    exponents: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] | None
    bootstrap: int
    seed: int
    notes: tuple[str, ...]
    exclusions: tuple[Mapping[str, Any], ...] = field(repr=False)
    line: AllocationLine = field(repr=False, compare=False)

    @property
    def sentence(self) -> str:
        """The growth along the frontier in words."""
        parts = []
        for key, name in (("a", "params"), ("b", "tokens")):
            if key in self.exponents:
                ends = f" [{show_ends(self.intervals[key])}]" if self.intervals else " [no interval]"
                parts.append(f"{name} ∝ flops^{show_value(self.exponents[key])}{ends}")
        return f"On the frontier ({len(self.runs)} of {self.n} runs) {' and '.join(parts)}."

    @property
    def grid(self) -> Grid:
        """One row per run on the frontier."""
        names = ("flops", "params", "tokens", "loss")
        rows = tuple(tuple(show_value(run[name]) for name in names) for run in self.runs)
        return Grid(names, rows, f"Frontier: {_MEANING[self.kind]}", self.notes, (0, 1, 2, 3))

    @property
    def short_grid(self) -> Grid:
        """What a terminal shows."""
        return self.grid

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        return {"sentence": self.sentence, **{name: value for name, value in vars(self).items() if name != "line"}}


def fit_frontier(
    table: pd.DataFrame,
    *,
    kind: str = "pareto",
    group: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> FrontierFit:
    """Growth of params and tokens along the frontier of loss over flops.

    A frontier follows the luckiest runs, so noise bends it, and a bootstrap of it is rough; `fit_isoflop` and
    `fit_scaling_law` use every run.

    Args:
        table: One run or checkpoint per row with params, flops and loss; with tokens, their growth too.
        kind: pareto (no run of as few flops is better) or hull (the lower convex hull of log-loss over log-flops).
        group: Column that names the run of each checkpoint: draws are of whole runs, whose checkpoints share their
            luck; None: each row is a run.
        bootstrap: Draws of runs; 0: no intervals.
        seed: Of the draws.

    Raises:
        AnalysisError: A kind that does not exist, a missing column, a checkpoint without a run, runs that no law may
            be fitted to, or fewer than 3 runs on the frontier.

    Source: Hoffmann et al. (2022), arXiv 2203.15556, approach 1.
    """
    if kind not in KINDS:
        raise AnalysisError(f"kind = '{kind}' is not a frontier; choose {' or '.join(KINDS)}")
    check_draws(bootstrap, seed)
    members_of, table = _grouped(table, group)
    runs = read_law_runs(table, ("params", "flops"), ("tokens",))
    order = np.lexsort((runs.loss, runs.columns["flops"]))
    columns = {name: values[order] for name, values in runs.columns.items()}
    flops, loss, members_of = columns["flops"], runs.loss[order], members_of[order]
    front = _front(kind, flops, loss)
    if front.size < FEWEST_RUNS or np.unique(flops[front]).size < FEWEST_RUNS:
        raise AnalysisError(
            f"the frontier has {front.size} of {len(runs)} runs; its growth needs at least {FEWEST_RUNS}"
        )
    tokens = columns.get("tokens")
    line = fit_line(flops[front], columns["params"][front], None if tokens is None else tokens[front])
    if bootstrap:
        line = _with_draws(line, kind, loss, columns, members_of, bootstrap, seed)
    members = tuple(
        {
            "flops": float(flops[i]),
            "params": float(columns["params"][i]),
            "tokens": None if tokens is None else float(tokens[i]),
            "loss": float(loss[i]),
        }
        for i in front
    )
    groups = int(members_of.max()) + 1
    drawn = f"{groups} runs" if group is None else f"{groups} runs with all their checkpoints (column '{group}')"
    note = f"intervals: {bootstrap} bootstrap draws of {drawn}; a frontier is an extreme, for which they are rough"
    return FrontierFit(
        kind=kind,
        n=len(runs),
        runs=members,
        exponents=line.exponents,
        intervals=line.intervals,
        bootstrap=bootstrap,
        seed=seed,
        notes=(*([note] if bootstrap else []), *runs.notes),
        exclusions=runs.exclusions,
        line=line,
    )


def _grouped(table: pd.DataFrame, group: str | None) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Number of the run of each row, and the table; checkpoints of a run are no copies of it."""
    if group is None:
        return np.arange(len(table)), table
    if group not in table.columns:
        raise AnalysisError(f"group = '{group}' is not a column of the table; {did_you_mean(group, table.columns)}")
    names = table[group]
    if names.isna().any():
        raise AnalysisError(f"column '{group}' is empty in {int(names.isna().sum())} of {len(table)} rows; fill it in")
    rest = table.drop(columns=[name for name in (group, "trial_id", "run_id") if name in table.columns])
    rest.attrs = dict(table.attrs)
    return names.astype(str).factorize()[0].astype(np.intp), rest


def _front(kind: str, flops: Array, loss: Array) -> NDArray[np.intp]:
    """Positions of the rows on the frontier, of rows sorted by flops and, within one value, by loss."""
    before = np.minimum.accumulate(np.concatenate([[np.inf], loss[:-1]]))
    front = np.flatnonzero(loss < before)
    if kind == "pareto":
        return front
    x, y = np.log(flops), np.log(loss)
    hull: list[int] = []
    for i in front.tolist():
        while len(hull) > 1 and _above(x, y, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return np.array(hull, dtype=np.intp)


def _above(x: Array, y: Array, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or above the line through the two others."""
    return bool((y[middle] - y[first]) * (x[last] - x[first]) >= (y[last] - y[first]) * (x[middle] - x[first]))


def _with_draws(
    line: AllocationLine,
    kind: str,
    loss: Array,
    columns: Mapping[str, Array],
    members_of: NDArray[np.intp],
    bootstrap: int,
    seed: int,
) -> AllocationLine:
    rng = np.random.default_rng(seed)
    groups = int(members_of.max()) + 1
    params_draws, tokens_draws = [], []
    for _ in range(bootstrap):
        there = np.zeros(groups, dtype=bool)
        there[rng.integers(0, groups, groups)] = True
        chosen = np.flatnonzero(there[members_of])
        front = chosen[_front(kind, columns["flops"][chosen], loss[chosen])]
        x = np.log(columns["flops"][front])
        if np.unique(x).size < FEWEST_RUNS:
            continue
        params_draws.append(slopes(x, np.log(columns["params"][front])[None], line.centre)[0])
        if "tokens" in columns:
            tokens_draws.append(slopes(x, np.log(columns["tokens"][front])[None], line.centre)[0])
    shift = np.array(params_draws).reshape(-1, 2)
    return replace(
        line,
        params_draws=shift,
        tokens_draws=np.array(tokens_draws).reshape(-1, 2) if "tokens" in columns else None,
        lost=1.0 - len(params_draws) / bootstrap,
    )
