"""The noise of runs, by budget: between seeds where there are several, else of sizes against their neighbours.

Standard deviations in log-loss. A budget's own few residuals say little, so budgets next to each other share a variance
as far as they differ by no more than chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .laws import Array
from .valley_shape import ValleyCells

ENOUGH_SEEDS = 10
"""Degrees of freedom between seeds from which they, and not the residuals, are the noise."""
LEAST_SD = 1e-7
"""Of noise-free runs: rounding."""
_OWN = 1.0
"""Degrees of freedom of what is known of the variance of a group of budgets before its runs."""
_CHANGE = 0.1
"""Probability that the next budget has another variance, before the runs."""
_CHANCE = 0.001
"""Probability below which sizes differ by more than seeds do."""
_LOCAL_SHARE = 0.6
"""Degrees of freedom of a size against its two neighbours: neighbouring differences share runs."""


@dataclass(frozen=True, kw_only=True)
class BudgetNoise:
    """Variance of one run by budget, where runs of budgets i to j, next to each other, share one with a probability.

    Attributes:
        variance: Of one run, by budget: one over its expected precision (budgets,).
        cuts: Of budgets that share a variance with budget i and none before it, the probability that the last is j, at
            [i, j].
        freedom: Degrees of freedom of the variance of budgets i to j, at [i, j]; `squares`: its sum of squares.
    """

    variance: Array
    cuts: Array
    freedom: Array
    squares: Array

    def draws(self, number: int, rng: np.random.Generator) -> Array:
        """Draws of the variance, in multiples of `variance` (draws, budgets)."""
        budgets = self.variance.size
        found, first = np.empty((number, budgets)), np.zeros(number, dtype=int)
        for i in range(budgets):
            rows = np.flatnonzero(first == i)
            last = rng.choice(budgets, size=rows.size, p=self.cuts[i])
            drawn = self.squares[i, last] / rng.chisquare(self.freedom[i, last])
            places = (np.arange(budgets) >= i) & (np.arange(budgets) <= last[:, None])
            found[rows] = np.where(places, drawn[:, None], found[rows])
            first[rows] = last + 1
        return found / self.variance


def noise_of_budgets(squares: Array, freedom: Array) -> BudgetNoise:
    """Variances of budgets that may change from one budget to the next, as far as sums of squares (budgets,) say so.

    The average over all ways to cut the budgets into neighbours of one variance, by their probability: variances of a
    group are scaled inverse chi-squares about the median budget's, with `_OWN` degrees of freedom.

    Source: Barry and Hartigan (1992), Annals of Statistics 20(1), product partition models.
    """
    from scipy.special import gammaln

    budgets = squares.size
    squares = np.maximum(squares, LEAST_SD**2 * freedom)
    known = freedom > 0
    middle = LEAST_SD**2
    if known.any():
        each = squares[known] / freedom[known]
        middle = float(np.quantile(each, 0.5, weights=freedom[known], method="inverted_cdf"))
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (squares, freedom)]
    group_squares, group_freedom = (part[None, 1:] - part[:-1, None] for part in sums)
    whole = np.triu(np.ones((budgets, budgets), dtype=bool))
    free = _OWN + np.where(whole, group_freedom, 0.0)
    within = _OWN * middle + np.where(whole, group_squares, 0.0)
    evidence = (
        gammaln(free / 2) - gammaln(_OWN / 2) + _OWN / 2 * np.log(_OWN * middle / 2) - free / 2 * np.log(within / 2)
    )
    onward = np.arange(budgets) - np.arange(budgets)[:, None]  # budgets that follow in the same group
    evidence += np.log1p(-_CHANGE) * onward + np.log(_CHANGE) * (np.arange(budgets) < budgets - 1)
    after, cuts = np.zeros(budgets + 1), np.zeros((budgets, budgets))
    for i in reversed(range(budgets)):
        ways = evidence[i, i:] + after[i + 1 :]
        after[i] = np.logaddexp.reduce(ways)
        cuts[i, i:] = np.exp(ways - after[i])
    begins, precision = np.zeros(budgets + 1), np.zeros(budgets)
    begins[0] = 1.0
    for i in range(budgets):
        share = begins[i] * cuts[i]
        begins[i + 1 :] += share[i:]
        precision[i:] += np.cumsum((share * free[i] / within[i])[::-1])[::-1][i:]
    cuts /= cuts.sum(axis=1, keepdims=True)
    return BudgetNoise(variance=1.0 / precision, cuts=cuts, freedom=free, squares=within)


def seeds_noise(cell: NDArray[np.intp], y: Array) -> tuple[Array, Array]:
    """Sums of squares (cells,) of runs about the mean of their size, and degrees of freedom."""
    runs = np.bincount(cell)
    means = np.bincount(cell, y) / runs
    return np.asarray(np.bincount(cell, (y - means[cell]) ** 2), dtype=float), np.asarray(runs - 1, dtype=float)


def neighbour_noise(cells: ValleyCells, kept: NDArray[np.bool_], missed: Array) -> tuple[Array, Array]:
    """Sums of squares (budgets,) of each size against the line through its neighbours, and degrees of freedom.

    `missed` (cells,) is what the shape leaves of the log-loss: a smooth misfit of it hardly enters.

    Source: Gasser, Sroka and Jennen-Steinmetz (1986), Biometrika 73.
    """
    budgets = cells.z.size
    squares, freedom = np.zeros(budgets), np.zeros(budgets)
    for b in range(budgets):
        m = np.flatnonzero(kept & (cells.budget == b))
        if m.size < 3:
            continue
        x, r, runs = cells.x[m], missed[m], cells.runs[m]
        before = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
        after = 1.0 - before
        off = r[1:-1] - before * r[:-2] - after * r[2:]
        variance = 1.0 / runs[1:-1] + before**2 / runs[:-2] + after**2 / runs[2:]
        freedom[b] = _LOCAL_SHARE * off.size + 0.2
        squares[b] = (off**2 / variance).mean() * freedom[b]
    return squares, freedom


def seeds_explain(squares: Array, freedom: Array, seeds: Iterable[Array]) -> bool:
    """Whether the noise between seeds, sums of squares and degrees of freedom (cells,), is all that sizes differ by.

    Not where the runs of a size are one run measured twice, or where sizes have a noise of their own: an F test of
    `squares` and `freedom` (budgets,) from `neighbour_noise` against `seeds`.
    """
    from scipy.special import fdtrc

    between, free = (float(part.sum()) for part in seeds)
    among, known = float(squares.sum()), float(freedom.sum())
    if not among > LEAST_SD**2 * known:
        return True
    return between > 0 and float(fdtrc(known, free, among / known / (between / free))) >= _CHANCE
