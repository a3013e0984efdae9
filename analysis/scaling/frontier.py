"""`fit_frontier`: params and tokens of the runs that no cheaper run beats, over flops (Chinchilla, approach 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core.errors import AnalysisError

from ..paired.intervals import check_draws
from ..render import Grid, GridView
from .allocation import AllocationLine, fit_line, slopes
from .law_table import read_law_runs
from .law_text import show_ends, show_value
from .laws import Array

if TYPE_CHECKING:
    import pandas as pd

FEWEST_RUNS = 3


@dataclass(frozen=True, kw_only=True, repr=False)
class FrontierFit(GridView):
    """The frontier of loss over flops, and how params and tokens grow along it.

    Attributes:
        n: Runs in the table.
        runs: flops, params, tokens (None where not recorded) and loss of each run on the frontier, the cheapest first.
        exponents: {a, b}: params and tokens grow as flops^a and flops^b; no b where tokens are not recorded.
        intervals: 95 % percentile bootstrap over runs, by exponent; None with bootstrap=0 or where too many draws have
            a frontier of fewer than 3 runs.
    """

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
        return Grid(names, rows, "Frontier: runs that no run of as few flops beats", self.notes, (0, 1, 2, 3))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        return {"sentence": self.sentence, **{name: value for name, value in vars(self).items() if name != "line"}}


def fit_frontier(table: pd.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> FrontierFit:
    """Growth of params and tokens along the frontier: the runs that no run of as few flops beats.

    A frontier follows the luckiest runs, so noise bends it, and a bootstrap of it is rough; `fit_isoflop` and
    `fit_scaling_law` use every run.

    Args:
        table: One run per row with params, flops and loss; with tokens, their growth too.
        bootstrap: Draws of runs; 0: no intervals.
        seed: Of the draws.

    Raises:
        AnalysisError: A missing column, runs that no law may be fitted to, or fewer than 3 runs on the frontier.

    Source: Hoffmann et al. (2022), arXiv 2203.15556, approach 1, on final losses alone.
    """
    check_draws(bootstrap, seed)
    runs = read_law_runs(table, ("params", "flops"), ("tokens",))
    order = np.lexsort((runs.loss, runs.columns["flops"]))
    columns = {name: values[order] for name, values in runs.columns.items()}
    flops, loss = columns["flops"], runs.loss[order]
    front = _front(loss)
    if front.size < FEWEST_RUNS or np.unique(flops[front]).size < FEWEST_RUNS:
        raise AnalysisError(
            f"the frontier has {front.size} of {len(runs)} runs; its growth needs at least {FEWEST_RUNS}"
        )
    tokens = columns.get("tokens")
    line = fit_line(flops[front], columns["params"][front], None if tokens is None else tokens[front])
    if bootstrap:
        line = _with_draws(line, loss, columns, bootstrap, seed)
    members = tuple(
        {
            "flops": float(flops[i]),
            "params": float(columns["params"][i]),
            "tokens": None if tokens is None else float(tokens[i]),
            "loss": float(loss[i]),
        }
        for i in front
    )
    note = f"intervals: {bootstrap} bootstrap draws of runs; a frontier is an extreme, for which they are rough"
    return FrontierFit(
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


def _front(loss: Array) -> NDArray[np.intp]:
    """Positions of the runs, sorted by flops, that have a lower loss than every cheaper one."""
    before = np.minimum.accumulate(np.concatenate([[np.inf], loss[:-1]]))
    return np.flatnonzero(loss < before)


def _with_draws(
    line: AllocationLine, loss: Array, columns: Mapping[str, Array], bootstrap: int, seed: int
) -> AllocationLine:
    rng = np.random.default_rng(seed)
    params_draws, tokens_draws = [], []
    for _ in range(bootstrap):
        chosen = np.unique(rng.integers(0, loss.size, loss.size))
        front = chosen[_front(loss[chosen])]
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
