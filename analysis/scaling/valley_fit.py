"""Shape, noise and misfit of all valleys: which sizes take part, and what the shape leaves unexplained.

Called by `isoflop_valleys`. The window is the widest of `WINDOWS` in which the shape misses the runs by no more than
about half of their noise, and the narrowest where it misses by more in each. The growth of the optimum has no say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .laws import Array
from .valley_noise import LEAST_SD, BudgetNoise, neighbour_noise, noise_of_budgets, seeds_explain
from .valley_shape import EXPECTED, Shape, ValleyCells, budgets_own, fit_shape, without_lines

WINDOWS = (0.5, 0.25)
"""Log-loss above a budget's lowest up to which a size takes part, the widest first: 1.65 and 1.28 times the loss."""
SET_ASIDE = 6.0
"""Standard deviations from which a size is no part of its valley."""
_SMALL = 0.3
"""Variance of the misfit over that of the noise with which a window is wide enough."""
_MISFITS = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Variances of the misfit that are tried, over that of the noise; `_LENGTHS`: its scales in log params."""
_LENGTHS = (0.5, 1.0, 2.0)
_BELIEVED = 2.5
"""Log-likelihood that a misfit must gain."""
_ROBUST, _ROUNDS = 3, 6
_FIRST_SD = 0.005
FEWEST_LEFT = 2.0
"""Sizes less coordinates of the curves from which what the curves miss is a measure of the noise."""


@dataclass(frozen=True, kw_only=True)
class ValleyFit:
    """What `fit_valleys` found.

    Attributes:
        shape: Of all valleys; `missed` (cells,): log-loss less the shape.
        window: Log-loss above the lowest up to which sizes took part.
        near: Cells inside it; `kept`: those of them that were not set aside.
        misses: By how many standard deviations each cell misses its valley (cells,).
        noise: Standard deviation of one run's log-loss by budget.
        misfit: Standard deviation of what the shape misses, 0 for none; `length`: its scale in log params.
        pooled: Which budgets share a noise, for draws of it.
        known: Whether the noise is: not where the curves have about as many coordinates as there are sizes.
        by_seeds: Whether it is the noise between seeds.
    """

    cells: ValleyCells
    shape: Shape
    missed: Array
    window: float
    near: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    misses: Array
    noise: Array
    misfit: float
    length: float
    pooled: BudgetNoise
    known: bool
    by_seeds: bool

    def members(self, budget: int) -> NDArray[np.intp]:
        """Numbers of a budget's kept cells."""
        return np.flatnonzero(self.kept & (self.cells.budget == budget))

    def covariance(self, x: Array, other: Array) -> Array:
        """Of the misfit between log params (points, others)."""
        return self.misfit**2 * _alike(x, other, self.length)


def fit_valleys(cells: ValleyCells, seeds: tuple[Array, Array] | None) -> ValleyFit:
    """Shape, noise and misfit of budgets whose lowest size is inside.

    Args:
        seeds: Sums of squares between seeds (cells,) and their degrees of freedom; None: noise of the residuals. Where
            sizes differ from their neighbours by more than that, the runs of a size are no independent seeds, or sizes
            have a noise of their own: then they count as one run, and the noise is that of the residuals.
    """
    fit = _fit(cells, seeds, WINDOWS[0])
    if seeds is not None and not seeds_explain(
        *neighbour_noise(fit.cells, fit.kept, fit.missed), (part[fit.kept] for part in seeds)
    ):
        return fit_valleys(replace(cells, runs=np.ones_like(cells.runs)), None)
    for window in WINDOWS[1:]:
        if fit.misfit**2 <= _SMALL * float(np.median(fit.noise)) ** 2:
            break
        fit = _fit(cells, seeds, window)
    return fit


def _fit(cells: ValleyCells, seeds: tuple[Array, Array] | None, window: float) -> ValleyFit:
    near = _near(cells, window)
    kept, shape = near, None
    variance, trust = np.full(cells.y.size, _FIRST_SD**2), np.ones(cells.y.size)
    for turn in range(_ROUNDS):
        weights = trust * cells.runs / variance
        shape = fit_shape(cells, kept, weights, shape)
        missed, off = _off(cells, shape, np.where(kept, weights, 1e-12 * weights))
        if turn < _ROBUST:  # Student's t of four degrees of freedom, about the middle of all misses
            common = max(1.7 * float(np.median(np.abs(off[near]))), LEAST_SD)
            variance = np.full(cells.y.size, common**2)
            trust = 5.0 / (4.0 + off**2 / variance)
        else:
            variance, trust = _own_variance(cells, kept, off, shape).variance[cells.budget], np.ones(cells.y.size)
            if _left(cells, kept, shape) < FEWEST_LEFT:  # the shape passes through the runs: their misses say nothing
                variance = np.maximum(variance, _FIRST_SD**2)
        limit = (2.0 if turn < _ROBUST else 1.0) * SET_ASIDE
        if turn:
            level, tilt = budgets_own(cells, kept, cells.runs / variance, missed)
            shape = replace(shape, level=level, tilt=tilt)
        far = _expected(cells, shape, np.where(kept, weights, 1e-12 * weights), missed)
        kept = _enough(cells, near, np.abs(far) < limit * np.sqrt(variance))
    shape = fit_shape(cells, kept, cells.runs / variance, shape, sparing=True)
    weights = np.where(kept, 1.0, 1e-12) * cells.runs / variance
    missed, off = _off(cells, shape, weights)
    own = _own_variance(cells, kept, off, shape)
    if seeds is None:
        squares, free = neighbour_noise(cells, kept, missed)
    else:  # of the sizes that take part: a seed that diverged is no noise of the others
        squares, free = (cells.per_budget(part, kept) for part in seeds)
    between = noise_of_budgets(squares, free)
    local = between.variance if seeds is not None else np.minimum(between.variance, 1.5 * own.variance)
    known = seeds is not None or _left(cells, kept, shape) >= FEWEST_LEFT
    share, length, scale = (
        _misfit(cells, kept, missed, local, shape.used, known=seeds is not None) if known else (0.0, 1.0, 1.0)
    )
    noise, pooled = (local * scale, between) if share or seeds is not None else (own.variance, own)
    return ValleyFit(
        cells=cells,
        shape=shape,
        missed=missed,
        window=window,
        near=near,
        kept=kept,
        misses=_expected(cells, shape, weights, missed) / np.sqrt(variance),
        noise=np.sqrt(noise),
        misfit=float(np.sqrt(share * np.median(local) * scale)),
        length=length,
        pooled=pooled,
        known=known,
        by_seeds=seeds is not None,
    )


def _near(cells: ValleyCells, window: float) -> NDArray[np.bool_]:
    """Sizes less than `window` above the lowest of their budget, or above the second where that is far below it."""
    near = np.zeros(cells.y.size, dtype=bool)
    for members in _members(cells):
        y = cells.y[members]
        lowest, second = np.sort(y)[:2]
        inside = y < (lowest if second < lowest + window else second) + window
        if inside.sum() < 2:
            middle = int(np.argmin(y))
            inside[max(0, middle - 1) : middle + 2] = True
        near[members] = inside
    return near


def _enough(cells: ValleyCells, near: NDArray[np.bool_], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The good cells; all near ones of a budget that would be left with fewer than two."""
    kept = near & good
    for members in _members(cells):
        if kept[members].sum() < 2:
            kept[members] = near[members]
    return kept


def _members(cells: ValleyCells) -> Iterator[NDArray[np.intp]]:
    for budget in range(cells.z.size):
        yield np.flatnonzero(cells.budget == budget)


def _off(cells: ValleyCells, shape: Shape, weights: Array) -> tuple[Array, Array]:
    """Log-loss less the shape, and the same less each budget's line, as of one run."""
    missed = cells.y - shape.at(cells.x, cells.z[cells.budget])[0]
    return missed, without_lines(missed[:, None], cells, weights)[:, 0] * np.sqrt(cells.runs)


def _expected(cells: ValleyCells, shape: Shape, weights: Array, missed: Array) -> Array:
    """Log-loss less the shape and the line to be expected of each budget, as of one run: an outlier tilts no line."""
    left = without_lines(missed[:, None], cells, weights, shape.level, shape.tilt, EXPECTED)[:, 0]
    return left * np.sqrt(cells.runs)


def _left(cells: ValleyCells, kept: NDArray[np.bool_], shape: Shape) -> float:
    """Sizes less the coordinates of the curves."""
    return float(kept.sum()) - 2.0 * cells.z.size - shape.used


def _own_variance(cells: ValleyCells, kept: NDArray[np.bool_], off: Array, shape: Shape) -> BudgetNoise:
    """Of one run, by budget, from what shape, level and tilt leave."""
    count = cells.per_budget(np.ones(cells.y.size), kept)
    freedom = np.maximum(count - 2.0 - shape.used / cells.z.size, 0.25)
    return noise_of_budgets(cells.per_budget(off**2, kept), freedom)


def _alike(x: Array, other: Array, length: float) -> Array:
    return np.asarray(np.exp(-0.5 * ((x[:, None] - other) / length) ** 2))


def _misfit(
    cells: ValleyCells, kept: NDArray[np.bool_], missed: Array, noise: Array, used: float, *, known: bool
) -> tuple[float, float, float]:
    """Variance of the misfit over the median noise, its length, and the scale of the noise: restricted likelihood.

    Args:
        noise: Variance of one run by budget; `known`: it is not rescaled.
        used: Coordinates that the shape has taken from the runs.
    """
    parts = [np.flatnonzero(kept & (cells.budget == budget)) for budget in range(cells.z.size)]
    free = max(sum(part.size - 2 for part in parts) - used, 1.0)
    most, middle = max(part.size for part in parts), float(np.median(noise))
    # (budgets, most, most) and (budgets, most, 3): budgets of fewer sizes end in places without weight
    apart, diagonal = np.full((len(parts), most, most), np.inf), np.ones((len(parts), most))
    rows = np.zeros((len(parts), most, 3))
    for budget, m in enumerate(parts):
        apart[budget, : m.size, : m.size] = np.abs(cells.x[m, None] - cells.x[m])
        diagonal[budget, : m.size] = noise[budget] / cells.runs[m] / middle
        rows[budget, : m.size] = np.column_stack([np.ones(m.size), cells.x[m] - cells.x[m].mean(), missed[m]])

    def likelihood(share: float, length: float) -> tuple[float, float]:
        spread = share * np.exp(-0.5 * (apart / length) ** 2)
        spread[:, np.arange(most), np.arange(most)] += diagonal
        products = rows.transpose(0, 2, 1) @ np.linalg.solve(spread, rows)
        lines, along = products[:, :2, :2], products[:, :2, 2:]
        rest = products[:, 2, 2] - (along * np.linalg.solve(lines, along)).sum(axis=(1, 2))
        logs = float((np.linalg.slogdet(spread)[1] + np.linalg.slogdet(lines)[1]).sum())
        scale = 1.0 if known else max(float(rest.sum()) / middle / free, 1e-12)
        return -0.5 * (float(rest.sum()) / middle / scale + free * np.log(scale) + logs), scale

    none, scale = likelihood(0.0, _LENGTHS[0])
    tried = [(*likelihood(share, length), share, length) for share in _MISFITS for length in _LENGTHS]
    best = max(tried)
    if best[0] < none + _BELIEVED:
        return 0.0, _LENGTHS[0], scale
    return best[2], best[3], best[1]
