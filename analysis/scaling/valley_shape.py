"""The shape that the valleys of all budgets share, and how far it may be trusted. Called by `valley_floors`.

At one budget C the runs of size N see D = C / N, tokens up to a factor. The shape is the log of
E + A / N^alpha + B / (D - lost)^beta: two power laws, of which the second is steep where part of every run's tokens
(warm-up) is lost. It is a guide and no law: each budget may lie higher or lower and may be tilted, as much as the
budgets say by themselves (variances of level and tilt, by moments), so that the growth of the optimum stays its runs'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .laws import Array

N_COORDINATES = 6
_PRIOR_SD = np.array([0.7, 1.5, 1.5, 0.25, 0.25, 3.0])
"""Of log E, log A, log B (at the centre of the runs), log alpha, log beta and the tokens lost: they decide little but
where a handful of runs leaves a coordinate open."""
_EXPONENT = 0.35
_LOST_STARTS = (0.0, 1.5, 4.0)
_LOST_GAINS = 1.5
"""Log-likelihood that lost tokens must gain: a little more than by Akaike's criterion, 1."""
_MOST_STEPS = 80
_ALL = 1.0 - 1e-9
"""Share of tokens lost at the most: beyond, the loss is that of no training."""
_FREE_LEVEL, _FREE_TILT = 0.05, 0.03
"""Standard deviations of level and tilt (log-loss; per unit of log params) below `_FEWEST_TO_JUDGE` budgets."""
_FEWEST_TO_JUDGE = 6
_WHITENED, EXPECTED = 0.5, 1.0
_TILTED = 0.3
"""Least tilt over level: budgets that the two power laws miss in level are not believed in tilt."""


@dataclass(frozen=True, kw_only=True)
class ValleyCells:
    """Sizes with runs, of all budgets in one list.

    Attributes:
        x: log params (cells,); `y`: mean log-loss; `runs`: runs behind it.
        budget: Number of the budget (cells,); `z`: log flops of each budget (budgets,).
    """

    x: Array
    y: Array
    runs: Array
    budget: NDArray[np.intp]
    z: Array

    def per_budget(self, values: Array, kept: NDArray[np.bool_] | slice = slice(None)) -> Array:
        """Sum of `values` (cells,) over each budget's cells."""
        return np.asarray(np.bincount(self.budget[kept], values[kept], self.z.size), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A fitted shape.

    Attributes:
        theta: Its coordinates (6,).
        centre: Mean log params and mean log D of the runs.
        wall: Log D, less the centre, below which no run lies that the shape was fitted to.
        level, tilt: Standard deviations of the budgets' own level and tilt.
        influence: Change of `theta` by a change of each cell's log-loss (6, cells); 0 for cells that are left out.
        used: Coordinates that the runs decided, rather than their prior: at most 6.
    """

    theta: Array
    centre: tuple[float, float]
    wall: float
    level: float
    tilt: float
    influence: Array
    used: float

    def at(self, x: Array, z: Array | float) -> tuple[Array, Array]:
        """Log-loss (points,) at log params and log flops, and its derivatives by `theta` (points, 6)."""
        return surface(self.theta, x - self.centre[0], z - x - self.centre[1], self.wall)

    def largest(self, z: float) -> float:
        """log params at which half the tokens are left that are left at the wall; infinite where none are lost."""
        lost = -np.expm1(-self.theta[5])
        if lost <= 0:
            return np.inf
        return float(z - self.centre[1] - self.wall + np.log((1.0 + lost) / 2.0 / lost))


def surface(theta: Array, n: Array, d: Array, wall: float) -> tuple[Array, Array]:
    """Log-loss (points,) and its derivatives (points, 6) at centred log params and log D.

    The tokens lost are 1 - exp(-theta[5]) of the wall: none at 0, and negative ones are allowed so that noise about
    none does not always count as some.
    """
    log_e, log_a, log_b, log_alpha, log_beta, lost = theta
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    near = np.exp(wall - d)
    share = np.minimum((1.0 - np.exp(-lost)) * near, _ALL)
    left = d + np.log1p(-share)
    parts = np.array([np.exp(log_e) + 0.0 * n, np.exp(log_a - alpha * n), np.exp(log_b - beta * left)])
    e, a, b = parts
    bend = np.exp(-lost) * near / (1.0 - share)
    slopes = np.column_stack([e, a, b, -a * n * alpha, -b * left * beta, b * beta * bend])
    total = parts.sum(axis=0)
    return np.log(total), slopes / total[:, None]


def without_lines(
    columns: Array,
    cells: ValleyCells,
    weights: Array,
    level: float = np.inf,
    tilt: float = np.inf,
    power: float = _WHITENED,
) -> Array:
    """Columns (cells, k) less each budget's weighted line over log params.

    Finite standard deviations of level and tilt take out a share of the line: with `power` one half the columns are
    whitened, as generalised least squares needs them; with 1 the line is the one to be expected.
    """
    total = cells.per_budget(weights)
    across = cells.x - (cells.per_budget(weights * cells.x) / total)[cells.budget]
    spread = cells.per_budget(weights * across**2)
    with np.errstate(divide="ignore"):
        shares = [1.0 - (1.0 + sd**2 * known) ** -power for sd, known in ((level, total), (tilt, spread))]
    found = np.empty_like(columns)
    for k, column in enumerate(columns.T):
        means = cells.per_budget(weights * column) / total
        slopes = cells.per_budget(weights * across * column) / spread
        found[:, k] = column - (shares[0] * means)[cells.budget] - (shares[1] * slopes)[cells.budget] * across
    return found


def fit_shape(
    cells: ValleyCells, kept: NDArray[np.bool_], weights: Array, begin: Shape | None, *, sparing: bool = False
) -> Shape:
    """The shape that fits the kept cells best, by damped least squares.

    Args:
        kept: Cells that take part (cells,); each budget has at least two of them.
        weights: One over the variance of each cell's mean log-loss (cells,).
        begin: A shape to start from, whose variances of level and tilt hold; None: several starts.
        sparing: No tokens are lost unless the runs say so. That they may be counts in the uncertainty all the same.
    """
    part = ValleyCells(x=cells.x[kept], y=cells.y[kept], runs=cells.runs[kept], budget=cells.budget[kept], z=cells.z)
    weight = weights[kept]
    d = cells.z[part.budget] - part.x
    centre = (float(part.x.mean()), float(d.mean()))
    n, d = part.x - centre[0], d - centre[1]
    wall = float(d.min())
    middle = float(np.median(part.y))
    prior = np.array([middle - 0.7, middle - 1.5, middle - 1.5, np.log(_EXPONENT), np.log(_EXPONENT), 0.0])
    level, tilt = (_FREE_LEVEL, _FREE_TILT) if begin is None else (begin.level, begin.tilt)

    def missed(theta: Array) -> tuple[float, Array, Array]:
        values, slopes = surface(theta, n, d, wall)
        both = without_lines(np.column_stack([part.y - values, slopes]), part, weight, level, tilt)
        cost = float(weight @ both[:, 0] ** 2 + (((theta - prior) / _PRIOR_SD) ** 2).sum())
        return cost, both[:, 0], both[:, 1:]

    starts = [np.append(prior[:5], lost) for lost in _LOST_STARTS] if begin is None else [begin.theta]
    found = min((_descend(missed, start, prior, weight) for start in starts), key=lambda end: end[0])
    if sparing:
        none = _descend(missed, np.append(found[1][:5], 0.0), prior, weight, held=True)
        found = none if none[0] < found[0] + 2.0 * _LOST_GAINS else found
    theta, slopes = found[1:]
    known = (slopes * weight[:, None]).T @ slopes
    inverse = np.linalg.inv(known + np.diag(_PRIOR_SD**-2))
    influence = np.zeros((N_COORDINATES, cells.x.size))
    influence[:, kept] = inverse @ (without_lines(slopes, part, weight, level, tilt) * weight[:, None]).T
    return Shape(
        theta=theta,
        centre=centre,
        wall=wall,
        level=level,
        tilt=tilt,
        influence=influence,
        used=float(np.trace(inverse @ known)),
    )


def _descend(
    missed: Callable[[Array], tuple[float, Array, Array]],
    start: Array,
    prior: Array,
    weight: Array,
    *,
    held: bool = False,
) -> tuple[float, Array, Array]:
    """Levenberg and Marquardt: cost, coordinates and derivatives at the end; with `held` the last coordinate stays."""
    free = slice(N_COORDINATES - 1 if held else N_COORDINATES)
    theta, damping = start.copy(), 1e-2
    cost, residual, slopes = missed(theta)
    for _ in range(_MOST_STEPS):
        curvature = (slopes * weight[:, None]).T @ slopes + np.diag(_PRIOR_SD**-2)
        downhill = (slopes * weight[:, None]).T @ residual - (theta - prior) / _PRIOR_SD**2
        damped = curvature + damping * np.diag(np.diag(curvature))
        moved = theta.copy()
        moved[free] += np.clip(np.linalg.solve(damped[free, free], downhill[free]), -2.0, 2.0)
        other = missed(moved)
        if other[0] < cost:
            gained = cost - other[0]
            theta, (cost, residual, slopes) = moved, other
            damping = max(damping / 5.0, 1e-10)
            if gained < 1e-7 * max(1.0, cost):
                break
        elif damping > 1e8:
            break
        else:
            damping *= 6.0
    return cost, theta, slopes


def budgets_own(cells: ValleyCells, kept: NDArray[np.bool_], weights: Array, missed: Array) -> tuple[float, float]:
    """Standard deviations of level and tilt over the budgets, by moments without the farthest; free for few budgets."""
    budgets = cells.z.size
    if budgets < _FEWEST_TO_JUDGE:
        return _FREE_LEVEL, _FREE_TILT
    weight = np.where(kept, weights, 0.0)
    total = cells.per_budget(weight)
    across = cells.x - (cells.per_budget(weight * cells.x) / total)[cells.budget]
    spread = cells.per_budget(weight * across**2)
    found = []
    for values, known in (
        (cells.per_budget(weight * missed) / total, total),
        (cells.per_budget(weight * across * missed) / spread, spread),
    ):
        rest = np.argsort(values**2)[:-1]
        found.append(float(np.sqrt(max(0.0, ((values**2)[rest].sum() - (1.0 / known)[rest].sum()) / (budgets - 4)))))
    level, tilt = found
    return level, max(tilt, _TILTED * level)
