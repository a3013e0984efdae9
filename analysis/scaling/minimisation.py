"""Minimising a law's objective: one run at a time from a grid of starts, and many weighted fits at once.

`search` is the fit: L-BFGS with the analytic gradient from every start. `minimise` moves many rows together, each with
weights of its own for the runs: a bootstrap draw counts runs several times, a hold-out counts some zero times, and a
profile holds a coordinate. Called by `parametric_law` and `certificate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .law_losses import Loss
from .laws import Array, Law

_ARMIJO, _WOLFE = 1e-4, 0.9
_MOST_STEPS = 400
_ROUNDING = 1e-7
"""Residual below which two fits are the same: the objective of noise-free runs is rounding, not a measure."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A law, a loss and the runs.

    Attributes:
        x: Log-columns (columns, runs), in the units of `centre`.
        y: Log of the measured loss (runs,).
        centre: Mean of the log-columns in the table's units (columns,).
    """

    law: Law
    loss: Loss
    x: Array
    y: Array
    centre: Array

    @classmethod
    def of(cls, law: Law, loss: Loss, columns: Mapping[str, Array], losses: Array) -> Problem:
        """The problem of runs with these columns (runs,), in the law's order, and losses (runs,)."""
        x = np.log(np.array(list(columns.values())))
        centre = x.mean(axis=1)
        names = list(columns)
        if "unique_tokens" in names:  # the law compares them with tokens, so both are counted in one unit
            centre[names.index("unique_tokens")] = centre[names.index("tokens")]
        return cls(law=law.at(centre), loss=loss, x=x - centre[:, None], y=np.log(losses), centre=centre)

    @property
    def n_coordinates(self) -> int:
        """Parameters of the law and of the loss."""
        return len(self.law.parameters) + self.loss.n_scales

    def in_table_units(self) -> Problem:
        """The same problem with the columns as they stand in the table."""
        x = self.x + self.centre[:, None]
        origin = np.zeros_like(self.centre)
        return Problem(law=self.law.at(origin), loss=self.loss, x=x, y=self.y, centre=origin)

    def residuals(self, theta: Array) -> Array:
        """log(law) - log(measured): (rows, runs)."""
        return self.law.log_loss(theta[:, : len(self.law.parameters)], self.x) - self.y

    def split(self, theta: Array) -> tuple[Array, Array | None]:
        """Coordinates of the law, and the loss's log scale as a column."""
        n = len(self.law.parameters)
        return theta[:, :n], theta[:, n:] if self.loss.n_scales else None

    def objective(self, theta: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """Sum of the loss over the runs (rows,) and its gradient (rows, coordinates)."""
        law_theta, log_scale = self.split(theta)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            terms = self.law.terms(law_theta, self.x)
            top = terms[0][0]
            for u, _ in terms[1:]:
                top = np.maximum(top, u)
            parts = [np.exp(u - top) for u, _ in terms]
            total = np.broadcast_to(sum(parts[1:], start=parts[0]), (len(theta), self.y.size))
            r = top + np.log(total) - self.y
            rho, psi, by_scale = self.loss.value(r, log_scale)
            if weights is not None:
                rho, psi = rho * weights, psi * weights
            gradient = np.zeros_like(theta)
            pull = psi / total
            for part, (_, derivatives) in zip(parts, terms, strict=True):
                share = pull * part
                for j, du in derivatives.items():
                    gradient[:, j] += _contract(share, du)
            if by_scale is not None:
                gradient[:, -1] = (by_scale if weights is None else by_scale * weights).sum(axis=1)
        return rho.sum(axis=1), gradient

    def jacobian(self, theta: Array) -> Array:
        """d log(law) of one row of coordinates: (runs, parameters)."""
        n_parameters = len(self.law.parameters)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            terms = self.law.terms(theta[None, :n_parameters], self.x)
            log_f = self.law.log_loss(theta[None, :n_parameters], self.x)
            columns = np.zeros((self.y.size, n_parameters))
            for u, derivatives in terms:
                share = np.exp(u - log_f)
                for j, du in derivatives.items():
                    columns[:, j] += (share * du)[0]
        return columns

    def curvature(self, theta: Array) -> Array:
        """Second derivatives as reweighted least squares has them: (coordinates, coordinates), positive."""
        log_scale = self.split(theta[None])[1]
        columns = self.jacobian(theta)
        weight = self.loss.weight(self.residuals(theta[None]), log_scale)[0]
        matrix = np.zeros((self.n_coordinates, self.n_coordinates))
        n = columns.shape[1]
        matrix[:n, :n] = (columns * weight[:, None]).T @ columns
        if self.loss.n_scales:
            matrix[n, n] = self.y.size  # of the order of the information on a log scale
        return matrix

    def same(self, objective: Array | float, best: float, scale: float) -> NDArray[np.bool_]:
        """Whether an objective is as low as the best: a likelihood ratio of 0.001 away, or rounding."""
        return np.asarray(objective) - best <= 5e-4 * scale + 0.5 * self.y.size * _ROUNDING**2


def _contract(share: Array, du: Array | float) -> Array:
    """Sum over runs of share x du, whatever du varies with."""
    if not isinstance(du, np.ndarray):
        return np.asarray(share.sum(axis=1) * du)
    if du.ndim == 1:
        return np.asarray(share @ du)
    return np.asarray(np.einsum("bi,bi->b", share, np.broadcast_to(du, share.shape)))


def search(problem: Problem) -> tuple[Array, Array]:
    """L-BFGS from every start of the law: end points (starts, coordinates) and objectives (starts,), best first."""
    from scipy.optimize import minimize

    starts = problem.law.starts(problem.x, problem.y)
    if problem.loss.n_scales:
        spread = np.log(np.maximum(np.median(np.abs(problem.residuals(starts)), axis=1), 1e-6))
        starts = np.column_stack([starts, spread])
    size = 1.0 / max(1e-12, float(np.median(problem.objective(starts)[0])))  # L-BFGS stops on absolute differences

    def one(theta: Array) -> tuple[float, Array]:
        value, gradient = problem.objective(theta[None])
        if not np.isfinite(value[0]) or not np.isfinite(gradient).all():
            return 1e30, np.zeros_like(theta)
        return float(value[0]) * size, gradient[0] * size

    options: Any = {"maxiter": 200, "ftol": 1e-12, "gtol": 1e-10, "maxls": 40}
    ends = np.array([minimize(one, start, jac=True, method="L-BFGS-B", options=options).x for start in starts])
    values = problem.objective(ends)[0]
    values = np.where(np.isfinite(values), values, np.inf)
    order = np.argsort(values, kind="stable")
    return ends[order], values[order]


def minimise(
    problem: Problem,
    theta: Array,
    weights: Array | None = None,
    *,
    hold: NDArray[np.intp] | None = None,
    tolerance: float = 1e-9,
) -> tuple[Array, Array]:
    """BFGS on many rows at once, each with its own weights and its own line search.

    All rows begin with the curvature of the first one's law, so the axes of the search fit the valley. An iteration
    evaluates every unfinished row once: a row whose step was accepted takes a new direction, the others bisect theirs
    between too short (the slope is still steep) and too long (the objective did not fall enough).

    Args:
        theta: Where each row begins (rows, coordinates).
        weights: How often each run counts (rows, runs); None: once.
        hold: A coordinate of each row that stays where it is (rows,).
        tolerance: A row ends where a step promises less than this share of its objective.

    Returns:
        Coordinates and objectives, a row each.

    Source: Lewis and Overton (2013), Mathematical Programming 141 (BFGS with a weak Wolfe search where the objective
    is nearly non-smooth, as Huber's is with a delta far below the noise).
    """
    at = np.array(theta, dtype=float)
    value, gradient = problem.objective(at, weights)
    free = np.ones(at.shape, dtype=bool)
    if hold is not None:
        free[np.arange(len(at)), hold] = False
    first = _inverses(problem.curvature(at[0]), free)
    gradient *= free
    inverse = first.copy()
    step, low, high = np.ones(len(at)), np.zeros(len(at)), np.full(len(at), np.inf)
    direction = -np.einsum("bij,bj->bi", inverse, gradient)
    slope = np.einsum("bi,bi->b", direction, gradient)
    floor = 0.5 * problem.y.size * (1e-3 * _ROUNDING) ** 2
    active = np.flatnonzero(np.isfinite(value) & (-slope > tolerance * np.abs(value) + floor))
    fresh = np.ones(len(at), dtype=bool)
    for _ in range(_MOST_STEPS):
        if active.size == 0:
            break
        i = active
        tried = at[i] + step[i, None] * direction[i]
        new_value, new_gradient = problem.objective(tried, None if weights is None else weights[i])
        new_gradient *= free[i]
        new_slope = np.einsum("bi,bi->b", direction[i], new_gradient)
        with np.errstate(invalid="ignore"):
            falls = new_value <= value[i] + _ARMIJO * step[i] * slope[i]
            accepted = falls & (new_slope >= _WOLFE * slope[i])
        high[i] = np.where(falls, high[i], step[i])
        low[i] = np.where(falls & ~accepted, step[i], low[i])
        bounded = np.isfinite(high[i])
        step[i] = np.where(bounded, 0.5 * (low[i] + np.where(bounded, high[i], 0.0)), 2.0 * step[i])
        # a row whose search has shrunk to nothing takes what it has, if that is lower
        stuck = ~accepted & ((high[i] - low[i]) * np.abs(slope[i]) <= 1e-3 * (tolerance * np.abs(value[i]) + floor))
        taken = accepted | (stuck & falls)
        moved = i[taken]
        moves, turns = tried[taken] - at[moved], new_gradient[taken] - gradient[moved]
        at[moved], value[moved], gradient[moved] = tried[taken], new_value[taken], new_gradient[taken]
        _update(inverse, moved, moves, turns)
        fresh[moved] = False
        again = i[stuck & ~taken & ~fresh[i]]  # once more along the first axes before giving up
        inverse[again], fresh[again] = first[again], True
        turned = np.concatenate([moved, again])
        direction[turned] = -np.einsum("bij,bj->bi", inverse[turned], gradient[turned])
        slope[turned] = np.einsum("bi,bi->b", direction[turned], gradient[turned])
        step[turned], low[turned], high[turned] = 1.0, 0.0, np.inf
        spent = i[stuck & ~taken & ~np.isin(i, again)]
        going = -slope[i] > tolerance * np.abs(value[i]) + floor
        active = i[going & ~np.isin(i, spent)]
    return at, value


def _inverses(matrix: Array, free: NDArray[np.bool_]) -> Array:
    """For each row the inverse over its free coordinates, zero elsewhere; a flat direction counts as a little bent."""
    inverses = np.zeros((*free.shape, free.shape[1]))
    patterns, members = np.unique(free, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        inner = matrix[np.ix_(pattern, pattern)]
        if not np.isfinite(inner).all() or not inner.any():  # the law overflows or is flat: as steepest descent begins
            inverses[members.reshape(-1) == number] = np.diag(pattern.astype(float))
            continue
        diagonal = np.diag(inner)
        size = np.sqrt(np.maximum(diagonal, 1e-12 * max(1e-30, float(diagonal.max()))))
        values, vectors = np.linalg.eigh(inner / np.outer(size, size))
        values = np.maximum(values, 1e-9 * values.max())
        whole = np.zeros_like(matrix)
        whole[np.ix_(pattern, pattern)] = (vectors / values) @ vectors.T / np.outer(size, size)
        inverses[members.reshape(-1) == number] = whole
    return inverses


def _update(inverse: Array, rows: NDArray[np.intp], moves: Array, turns: Array) -> None:
    """The BFGS update of the inverse curvature, in place, where it stays positive."""
    along = np.einsum("bi,bi->b", moves, turns)
    keep = along > 1e-14 * np.linalg.norm(moves, axis=1) * np.linalg.norm(turns, axis=1)
    rows, s, y, along = rows[keep], moves[keep], turns[keep], along[keep]
    bent = np.einsum("bij,bj->bi", inverse[rows], y)
    weight = (1.0 + np.einsum("bi,bi->b", y, bent) / along) / along
    cross = np.einsum("bi,bj->bij", bent, s) / along[:, None, None]
    inverse[rows] += weight[:, None, None] * np.einsum("bi,bj->bij", s, s) - cross - cross.transpose(0, 2, 1)
