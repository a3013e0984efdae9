"""The noise of runs, by budget: between seeds where there are several, else of sizes against their neighbours.

Standard deviations in log-loss. A budget's own few residuals say little, so variances are drawn together as far as
they differ by no more than chance; where they differ by more, each leans on the budgets next to it first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .laws import Array
from .valley_shape import ValleyCells

ENOUGH_SEEDS = 10
"""Degrees of freedom between seeds from which they, and not the residuals, are the noise."""
LEAST_SD = 1e-7
"""Of noise-free runs: rounding."""
_LEANS = 0.3
"""Weight of the next budget's runs in the noise of a budget where budgets differ; of the one behind it, its square."""
_LOCAL_SHARE = 0.6
"""Degrees of freedom of a size against its two neighbours: neighbouring differences share runs."""


def drawn_together(squares: Array, freedom: Array) -> tuple[Array, Array]:
    """Variances (budgets,) from sums of squares and their degrees of freedom, shrunk to each other; their freedom.

    Where they differ by no more than chance, all are the common variance and have the common degrees of freedom.

    Source: Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3(1): the prior's weight is what the spread of the log
    variances beyond chance leaves.
    """
    common = max(float(squares.sum() / freedom.sum()), LEAST_SD**2)
    together = np.full(squares.size, common), np.full(squares.size, freedom.sum())
    if common == LEAST_SD**2 or _prior(squares, freedom) is None:
        return together
    places = np.arange(squares.size)
    near = _LEANS ** np.abs(places[:, None] - places)
    squares, freedom = near @ squares, near @ freedom
    prior = _prior(squares, freedom)
    if prior is None:
        return together
    weight, centre = prior
    found = np.maximum((weight * centre + squares) / (weight + freedom), LEAST_SD**2)
    return found, np.minimum(weight + freedom, together[1])


def _prior(squares: Array, freedom: Array) -> tuple[float, float] | None:
    """Degrees of freedom and variance of the prior; None where the variances differ by no more than chance."""
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    known = freedom >= 1
    if known.sum() < 3:
        return None
    half = freedom[known] / 2
    logs = np.log(np.maximum(squares[known] / freedom[known], LEAST_SD**2)) - digamma(half) + np.log(half)
    beyond = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if beyond <= 1e-3:
        return None
    weight = 2.0 * float(brentq(lambda value: float(polygamma(1, value)) - beyond, 1e-4, 1e4))
    return weight, float(np.exp(logs.mean() + digamma(weight / 2) - np.log(weight / 2)))


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
