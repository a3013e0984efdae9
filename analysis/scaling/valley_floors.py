"""The floors of all valleys with draws of them. Called by `isoflop_valleys`.

The curve of one budget is: shape + level + tilt · log params + misfit. Level and tilt are fitted to the budget's own
sizes; the misfit is a smooth curve about them (`valley_fit`), none where the shape explains the runs. Draws of the
noise and of such misfits, carried through shape, level, tilt and misfit, are the uncertainty of curve and floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .laws import Array
from .valley_fit import ValleyFit

_POINTS, _FINE = 64, 1025
BEYOND = 0.4
"""Log params by which a floor may lie beyond the sizes of a budget whose lowest size is inside: a factor of 1.5."""
_JITTER = 1e-9


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Floors of all budgets.

    Attributes:
        floors: log params (budgets,); `draws` (draws, budgets): nan where a draw has none.
        by_three: Budgets whose floor is that of the parabola through the lowest size and its neighbours (budgets,).
        curves: log params and log-loss (2, points) of each budget.
    """

    floors: Array
    draws: Array
    by_three: NDArray[np.bool_]
    curves: tuple[Array, ...]


def find_floors(fit: ValleyFit, draws: int, rng: np.random.Generator) -> Floors:
    """The floor of each budget's curve, and as many draws of it."""
    grids = [_grid(fit, budget) for budget in range(fit.cells.z.size)]
    errors, elsewhere = _errors(fit, grids, draws, rng)
    theta = (errors + _own_lines(fit, draws, rng)) @ fit.shape.influence.T
    floors, found, three, curves = [], [], [], []
    for budget, grid in enumerate(grids):
        fine = np.linspace(grid[0], grid[-1], _FINE)
        curve, smoother, _ = _curve(fit, budget, fine)
        floor = float(_lowest(fine, curve[None])[0])
        coarse, smoother, slopes = _curve(fit, budget, grid)
        m = fit.members(budget)
        at_cells = fit.shape.at(fit.cells.x[m], fit.cells.z[budget])[1]
        moved = (errors[:, m] - theta @ at_cells.T) @ smoother.T + theta @ slopes.T - elsewhere[budget]
        begin = None if fit.misfit or np.isnan(floor) else int(np.argmin(coarse))
        drawn = _lowest(grid, coarse + moved, begin) - _lowest(grid, coarse[None])[0] + floor
        three.append(bool(np.isnan(floor)))
        if three[-1]:
            floor, drawn = _through_three(fit, budget, draws, rng)
        floors.append(floor)
        found.append(drawn)
        curves.append(np.array([grid, coarse]))
    return Floors(floors=np.array(floors), draws=np.column_stack(found), by_three=np.array(three), curves=tuple(curves))


def _grid(fit: ValleyFit, budget: int) -> Array:
    """log params where a budget's floor is looked for."""
    x = fit.cells.x[fit.cells.budget == budget]
    largest = min(float(x.max()) + BEYOND, fit.shape.largest(float(fit.cells.z[budget])))
    return np.linspace(float(x.min()) - BEYOND, largest, _POINTS)


def _errors(fit: ValleyFit, grids: list[Array], draws: int, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """Draws of noise and misfit at the cells (draws, cells), and of the misfit alone on each grid (draws, points)."""
    cells, errors, elsewhere = fit.cells, np.zeros((draws, fit.cells.y.size)), []
    heavy = np.sqrt(fit.pooled.draws(draws, rng))
    for budget, grid in enumerate(grids):
        m = fit.members(budget)
        noise = fit.noise[budget] / np.sqrt(cells.runs[m]) * rng.standard_normal((draws, m.size))
        other = np.zeros((draws, grid.size))
        if fit.misfit:
            places = np.concatenate([cells.x[m], grid])
            spread = fit.covariance(places, places) + _JITTER * fit.misfit**2 * np.eye(places.size)
            missed = rng.standard_normal((draws, places.size)) @ np.linalg.cholesky(spread).T
            noise, other = noise + missed[:, : m.size], missed[:, m.size :]
        errors[:, m] = heavy[:, [budget]] * noise
        elsewhere.append(heavy[:, [budget]] * other)
    return errors, elsewhere


def _own_lines(fit: ValleyFit, draws: int, rng: np.random.Generator) -> Array:
    """Draws of the budgets' own levels and tilts (draws, cells): they move the shape, and not the budget itself.

    Their variances are those of the shape and one standard error of them: one that came out as 0 need not be.
    """
    cells, shape, budgets = fit.cells, fit.shape, fit.cells.z.size
    weights = np.where(fit.kept, cells.runs / fit.noise[cells.budget] ** 2, 0.0)
    total = cells.per_budget(weights)
    across = cells.x - (cells.per_budget(weights * cells.x) / total)[cells.budget]
    spread = cells.per_budget(weights * across**2)
    error = np.sqrt(2.0 / max(budgets - 1, 1))
    level, tilt = (
        np.sqrt(sd**2 + error * float(np.median(1.0 / known))) * rng.standard_normal((draws, budgets))
        for sd, known in ((shape.level, total), (shape.tilt, spread))
    )
    return np.asarray(level[:, cells.budget] + tilt[:, cells.budget] * across)


def _curve(fit: ValleyFit, budget: int, grid: Array) -> tuple[Array, Array, Array]:
    """A budget's curve (points,), the smoother (points, cells) from what the shape misses, the shape's derivatives."""
    m = fit.members(budget)
    x, middle = fit.cells.x[m], float(fit.cells.x[m].mean())
    lines, beyond = (np.column_stack([np.ones(at.size), at - middle]) for at in (x, grid))
    spread = np.diag(fit.noise[budget] ** 2 / fit.cells.runs[m])
    if fit.misfit:
        spread = spread + fit.covariance(x, x)
    known = np.linalg.solve(spread, lines)
    own = np.linalg.solve(lines.T @ known, known.T)
    smoother = beyond @ own
    if fit.misfit:
        smoother = smoother + fit.covariance(grid, x) @ np.linalg.solve(spread, np.eye(m.size) - lines @ own)
    shape, slopes = fit.shape.at(grid, float(fit.cells.z[budget]))
    return shape + smoother @ fit.missed[m], smoother, slopes


def _lowest(grid: Array, curves: Array, begin: int | None = None) -> Array:
    """Lowest point of each curve (rows, points) by the parabola through three points; nan at an end.

    With `begin` it is the floor of the valley that this point lies in: a draw moves the shape along its tangent, which
    says little far from the floor, above all where the tokens are nearly all lost.
    """
    lowest = np.argmin(curves, axis=1) if begin is None else _downhill(curves, begin)
    inside = np.clip(lowest, 1, grid.size - 2)
    rows = np.arange(len(curves))
    before, here, after = (curves[rows, inside + k] for k in (-1, 0, 1))
    bend = before - 2.0 * here + after
    good = (lowest == inside) & (bend > 0)
    return np.where(good, grid[inside] + (grid[1] - grid[0]) * (before - after) / 2.0 / np.where(good, bend, 1), np.nan)


def _downhill(curves: Array, begin: int) -> NDArray[np.intp]:
    """Where a walk downhill from a point of each curve (rows, points) ends."""
    steps = np.diff(curves, axis=1)
    right, left = steps[:, begin:] >= 0, steps[:, :begin][:, ::-1] <= 0
    there = np.where(right.any(axis=1), begin + np.argmax(right, axis=1), curves.shape[1] - 1)
    back = np.where(left.any(axis=1), begin - np.argmax(left, axis=1), 0)
    return np.where(there > begin, there, back)


def _through_three(fit: ValleyFit, budget: int, draws: int, rng: np.random.Generator) -> tuple[float, Array]:
    """Floor of the parabola through the lowest size and its neighbours, and draws of it."""
    cells = fit.cells
    m = np.flatnonzero((cells.budget == budget) & (fit.kept | ~fit.near))
    lowest = int(np.clip(np.argmin(cells.y[m]), 1, m.size - 2))
    m = m[lowest - 1 : lowest + 2]
    noise = fit.noise[budget] / np.sqrt(cells.runs[m]) * rng.standard_normal((draws, 3))
    x = cells.x[m]
    bend, tilt, _ = np.polyfit(x - x[1], np.vstack([cells.y[m], cells.y[m] + noise]).T, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        floors = np.where(bend > 0, x[1] - tilt / (2.0 * bend), np.nan)
    return float(floors[0]), floors[1:]
