"""Parameters at the edge of what they can be: an irreducible loss of zero, a term that vanishes, a worth without end.

The coordinates are logarithms, so an edge lies at infinity, where the objective is flat: a search that stepped too far
stays there, and one that belongs there never arrives. So where any fit ended near an edge, all are begun again inside
and tried at that edge, and the lowest is kept. Called by `resampling` and `parametric_law`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .laws import Array, Side
from .minimisation import Problem, minimise

BEYOND: dict[Side, float] = {"low": 0.0, "high": float("inf")}
"""What a parameter is at an edge."""
FAR = 50.0
"""A logarithm so far out that nothing beyond differs: e^-50 of a loss is none."""
_NEAR = float(np.log(10.0))
"""How far inside an edge an end still counts as near it."""
_SAME = 1e-9
"""Share of an objective by which an edge may be higher and is still taken: the search ends no nearer."""
_SECOND_STARTS = 3
_NO_SHARE = 1e-6
"""Of the loss of every run: a term below it has vanished."""


def edges(problem: Problem) -> list[tuple[int, Side]]:
    """The coordinates that may end at an edge, and at which end."""
    law = problem.law
    found: list[tuple[int, Side]] = [(law.index(name), side) for name, sides in law.limits.items() for side in sides]
    if len(law.coefficients) > 1:  # a law of one term needs it
        limited = {j for j, _ in found}
        found += [(law.index(name), "low") for name in law.coefficients if law.index(name) not in limited]
    return found


def at_edge(problem: Problem, theta: Array, within: float = 0.0) -> NDArray[np.bool_]:
    """Which rows of coordinates lie at which edge, in the order of `edges`: (rows, edges).

    Args:
        within: How far inside it (in the logarithm) still counts.
    """
    law, found = problem.law, edges(problem)
    bounds = law.bounds(problem.x, problem.y)
    held = np.zeros((len(theta), len(found)), dtype=bool)
    law_theta = theta[:, : len(law.parameters)]
    shares: list[Array] = []
    for column, (j, side) in enumerate(found):
        name = law.parameters[j]
        if name in law.limits:
            low, high = bounds[name]
            held[:, column] = theta[:, j] <= low + within if side == "low" else theta[:, j] >= high - within
            continue
        if not shares:  # of a term in the loss, the largest over the runs
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                terms = [np.broadcast_to(u, (len(theta), problem.y.size)) for u, _ in law.terms(law_theta, problem.x)]
                shares = [(u - problem.y).max(axis=1) for u in terms]
        term = law.coefficients.index(name)
        held[:, column] = shares[term] <= np.log(_NO_SHARE) + within
    return held


def natural_values(problem: Problem, theta: Array) -> Array:
    """Parameters (rows, parameters) in the units of the problem; at an edge 0 or infinite."""
    law = problem.law
    values = law.natural(theta[:, : len(law.parameters)], np.zeros(len(problem.centre)))
    for (j, side), there in zip(edges(problem), at_edge(problem, theta).T, strict=True):
        values[there, j] = BEYOND[side]
    return values


def placed(problem: Problem, theta: Array, edge: tuple[int, Side]) -> Array:
    """The rows with one coordinate at its edge."""
    moved = np.array(theta)
    moved[:, edge[0]] = -FAR if edge[1] == "low" else FAR
    return moved


def settled(
    problem: Problem, theta: Array, value: Array, weights: Array | None = None, *, every_edge: bool = False
) -> tuple[Array, Array]:
    """Fits, each at the lowest of where it ended, of starts inside, and of the edges near which any ended.

    Args:
        theta: Where each row ended (rows, coordinates), with its objective `value` (rows,).
        weights: How often each run counts (rows, runs); None: once.
        every_edge: Try the edges at which none ended too.

    Returns:
        Coordinates and objectives, a row each; a coordinate at its edge is ± `FAR`.
    """
    theta, value = np.array(theta), np.array(value)
    near = at_edge(problem, theta, within=_NEAR) | ~np.isfinite(theta).all(axis=1, keepdims=True)
    if not near.any() and not every_edge:
        return theta, value
    if near.any():
        for start in _inside(problem, len(theta), weights):
            _keep_lower(problem, theta, value, weights, start, None)
    for column, edge in enumerate(edges(problem)):
        if every_edge or near[:, column].any():
            hold = np.full(len(theta), edge[0])
            _keep_lower(problem, theta, value, weights, placed(problem, theta, edge), hold)
    return theta, value


def _keep_lower(
    problem: Problem,
    theta: Array,
    value: Array,
    weights: Array | None,
    start: Array,
    hold: NDArray[np.intp] | None,
) -> None:
    """Minimise from `start` and take, in place, what is no higher than what a row has."""
    found, lower = minimise(problem, start, weights, hold=hold)
    with np.errstate(invalid="ignore"):
        better = np.isfinite(lower) & ~(lower > value * (1 + (_SAME if hold is not None else 0.0)))
    better &= problem.law.falls(found) | ~problem.law.falls(theta)  # more that does harm is no better law
    theta[better], value[better] = found[better], lower[better]


def _inside(problem: Problem, rows: int, weights: Array | None) -> list[Array]:
    """For each row the starts of the law that are lowest for its weights, of the lower and of the higher levels."""
    law = problem.law
    starts = law.starts(problem.x, problem.y)
    residuals = problem.residuals(starts)
    log_scale = None
    if problem.loss.n_scales:
        log_scale = np.log(np.maximum(np.median(np.abs(residuals), axis=1), 1e-6))[:, None]
        starts = np.column_stack([starts, log_scale])
    cost = problem.loss.value(residuals, log_scale)[0]
    by_row = cost.sum(axis=1)[None] if weights is None else weights @ cost.T
    order = np.argsort(np.broadcast_to(by_row, (rows, len(starts))), axis=1)
    return [starts[order[:, rank]] for rank in range(_SECOND_STARTS)]
