"""How far a new run may lie from a law: noise from where it is, the law's draws, and how far the law missed before.

A bootstrap over runs knows neither of noise that the runs of a budget share nor of a law that has not the shape of the
runs, so an interval from it alone is too narrow beyond the runs. What it misses is measured: each budget is left out in
turn and predicted from the others, and the interval is widened by a factor from the standardised misses. The factor
and how many of these runs then lie inside are printed. Called by `parametric_law`, `scaling_fit` and `certificate`.

Source of the standardised misses: Gneiting, Balabdaoui and Raftery (2007), J. Royal Statistical Society B 69
(calibration of predictive distributions); of whole groups left out: Roberts et al. (2017), Ecography 40.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .boundaries import settled
from .law_table import SPARE_RUNS, budget_groups
from .laws import Array
from .minimisation import Problem, minimise
from .resampling import draw

MOST_BLOCKS = 10
"""Left out in turn; budgets beyond are joined with their neighbours."""
FEWEST_BLOCKS = 3
RESOLUTION = 1e-7
"""Of a log-loss: what rounding in the runs and the end of the search leave open. Runs that lie on a law without noise
would else be expected to the last bit."""
_DRAWS = 40
_PRIOR = 2.0
"""How many budgets the factor 1 counts as: a mean square of five or six misses is known to 60 % alone."""
_NEAREST, _LEAST_NEAREST = 3, 12
"""Noise is drawn from the nearest third of the runs, at least a dozen."""


@dataclass(frozen=True, kw_only=True)
class IntervalCalibration:
    """What came of leaving out each budget in turn.

    Attributes:
        factor: What prediction intervals are multiplied by; at least 1.
        level: Nominal share of runs inside.
        budgets: Left out in turn (where there are many, neighbours together); `runs`: in them.
        inside: How many of these lie in their interval, each widened by the factor from the other budgets' misses.
        unwidened: How many would without a factor.
    """

    factor: float
    level: float
    budgets: int
    runs: int
    inside: int
    unwidened: int

    @property
    def sentence(self) -> str:
        """The finding in words."""
        covered, before = (100 * count / self.runs for count in (self.inside, self.unwidened))
        return (
            f"{100 * self.level:g} % prediction intervals, measured: {self.inside} of {self.runs} runs inside "
            f"({covered:.0f} %), each of {self.budgets} budgets predicted from the others; factor {self.factor:.2f} "
            f"for shared noise and the law's misfit (without it {before:.0f} %)"
        )


def calibrate(problem: Problem, theta: Array, order: Array, seed: int, level: float) -> IntervalCalibration | None:
    """Leave out each budget in turn and compare its runs with what the law, fitted to the others, predicts.

    Args:
        theta: Coordinates of the fit to all (coordinates,).
        order: What orders the runs by cost (runs,).

    Returns:
        None where fewer than three budgets can be left out.
    """
    blocks = budget_blocks(order)
    need = len(problem.law.parameters) + SPARE_RUNS
    usable = [k for k in range(int(blocks.max()) + 1) if np.count_nonzero(blocks != k) >= need]
    if len(usable) < FEWEST_BLOCKS:
        return None
    kept = np.array([blocks != k for k in usable])
    once = kept.astype(float)
    fits, _ = settled(problem, *minimise(problem, np.repeat(theta[None], len(usable), axis=0), once), once)
    rng = np.random.default_rng([seed, 3])
    shares = np.repeat(kept / kept.sum(axis=1, keepdims=True), _DRAWS, axis=0)
    weights = rng.multinomial(np.repeat(kept.sum(axis=1), _DRAWS), shares).astype(float)
    drawn, there = draw(problem, np.repeat(fits, _DRAWS, axis=0), weights, "calibration")
    log_draws = problem.law.log_loss(drawn[:, : len(problem.law.parameters)], problem.x)
    log_fits = problem.law.log_loss(fits[:, : len(problem.law.parameters)], problem.x)
    levels, misses = [], []
    for row, (k, law) in enumerate(zip(usable, log_fits, strict=True)):
        out = blocks == k
        own = log_draws[(there // _DRAWS) == row][:, out]
        if len(own) < 2 or not np.isfinite(own).all():
            continue
        noise = _local_noise(problem, kept[row], problem.y[kept[row]] - law[kept[row]])[out]
        missed = problem.y[out] - law[out]
        of_mean = np.sqrt(own.mean(axis=1).var() + np.mean(noise**2) / missed.size) + RESOLUTION
        levels.append(_beyond_rounding(missed.mean()) / of_mean)
        misses.append(np.abs(_beyond_rounding(missed)) / (np.sqrt(own.var(axis=0) + noise**2) + RESOLUTION))
    if len(levels) < FEWEST_BLOCKS:
        return None
    from scipy.special import ndtri

    squares = np.array(levels) ** 2
    wide = float(ndtri(0.5 + level / 2))
    return IntervalCalibration(
        factor=_factor(squares),
        level=level,
        budgets=squares.size,
        runs=sum(miss.size for miss in misses),
        inside=_inside(misses, squares, wide),
        unwidened=sum(int((miss <= wide).sum()) for miss in misses),
    )


def _factor(squares: Array) -> float:
    """Root of the mean square of the standardised misses, drawn to 1 as if by two budgets more; at least 1."""
    return float(np.sqrt(max(1.0, (_PRIOR + squares.sum()) / (_PRIOR + squares.size))))


def _inside(misses: Sequence[Array], squares: Array, wide: float) -> int:
    """Runs inside intervals of half-width `wide` times a factor: each budget's by the factor of the others."""
    others = (_factor(np.delete(squares, k)) for k in range(squares.size))
    return sum(int((miss <= wide * by).sum()) for miss, by in zip(misses, others, strict=True))


def _beyond_rounding(miss: Array | float) -> Array:
    return np.asarray(np.sign(miss) * np.maximum(np.abs(miss) - RESOLUTION, 0.0))


def budget_blocks(order: Array) -> NDArray[np.intp]:
    """Number of the block of each run: its budget, or several neighbours where there are more than ten.

    >>> budget_blocks(np.array([1e18, 1e18, 3e18, 9e18])).tolist()
    [0, 0, 1, 2]
    """
    groups = budget_groups(order)
    counts = np.bincount(groups)
    if counts.size <= MOST_BLOCKS:
        return groups
    middles = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    joined = np.unique((middles * MOST_BLOCKS).astype(int), return_inverse=True)[1]
    return np.asarray(joined[groups], dtype=np.intp)


def predictive_draws(
    problem: Problem, theta: Array, draws: Array, x: Array, factor: float, rng: np.random.Generator
) -> Array:
    """Log-losses of new runs at log-columns (columns, points) in the problem's units: (draws, points).

    Each draw of the law with a residual of a run nearby; their distances from the law are multiplied by `factor`.
    """
    n = len(problem.law.parameters)
    middle = problem.law.log_loss(theta[None, :n], x)
    residuals = widened_residuals(problem, theta)
    near = nearest(problem.x, x, problem.law.columns)
    chosen = rng.integers(0, near.shape[1], size=(len(draws), x.shape[1]))
    noise = residuals[near[np.arange(x.shape[1])[None], chosen]]
    with np.errstate(invalid="ignore"):
        return np.asarray(middle + factor * (problem.law.log_loss(draws[:, :n], x) + noise - middle))


def interval_ends(draws: Array, level: float) -> tuple[Array, Array]:
    """Ends of an interval over draws (draws, …) of which a run lies outside with rank p at most 1 - level."""
    ordered = np.sort(draws, axis=0)
    rank = max(1, int(((1 - level) * (len(draws) + 1) + 1) / 2))
    return ordered[rank - 1], ordered[-rank]


def widened_residuals(problem: Problem, theta: Array) -> Array:
    """log(measured) - log(law) at a fit, as wide as the noise: the parameters have taken their share of it."""
    r = -problem.residuals(theta[None])[0]
    return np.asarray(r * np.sqrt(r.size / (r.size - len(problem.law.parameters))))


def _local_noise(problem: Problem, kept: Array, residuals: Array) -> Array:
    """Standard deviation of the noise at each run (runs,), from residuals of the kept ones nearby."""
    free = residuals.size - len(problem.law.parameters)
    near = nearest(problem.x[:, kept], problem.x, problem.law.columns)
    return np.asarray(np.sqrt((residuals[near] ** 2).mean(axis=1) * residuals.size / free))


def nearest(known: Array, x: Array, columns: tuple[str, ...]) -> NDArray[np.intp]:
    """Positions of the known runs (columns, runs) nearest to each point (columns, points): (points, nearest).

    Near is meant in compute and, where a law has both, in the ratio of tokens to params, each in its spread.
    """
    if columns[:2] == ("params", "tokens"):
        known, x = (np.vstack([part[0] + part[1], part[1] - part[0], part[2:]]) for part in (known, x))
    spread = known.std(axis=1)
    far = spread > 1e-12
    steps = (x[far][:, :, None] - known[far][:, None, :]) / spread[far][:, None, None]
    count = min(known.shape[1], max(_LEAST_NEAREST, -(-known.shape[1] // _NEAREST)))
    return np.asarray(np.argsort((steps**2).sum(axis=0), axis=1, kind="stable")[:, :count])
