"""Is a parameter of a law identified? Its profile: the best fit at each of its values. Called by `certificate`.

A parameter is moved away from its estimate and held there while all others are fitted again. Twice the rise of the
objective over the loss's scale is a likelihood ratio; where it passes the 95 % point of F (1 and runs - parameters
degrees of freedom) lies the end of an interval. Where it never does, as far as the parameter can go, the runs do not
say what the parameter is: "not identified".

Source: Raue et al. (2009), Bioinformatics 25; for M-estimates Schrader and Hettmansperger (1980), Biometrika 67.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .boundaries import BEYOND, at_edge, edges
from .laws import Array, Side
from .minimisation import Problem, minimise

_STEPS = np.geomspace(1e-4, 1.0, 28)
"""Where the profile is computed, as shares of the way to the end of a parameter's reach."""
_HALVINGS = 10
_WIDE = float(np.log(1e6))
_FAR = 2.0
"""How far a parameter without a bound is followed: a factor of a million, or 2 where it is no logarithm."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the runs say about one parameter.

    Attributes:
        low: Lower end of the profile interval; None: flat as far down as the parameter can go.
        high: Upper end; None: flat upwards.
        boundary: The end at which the estimate itself lies, beyond which it cannot go; the interval is then one-sided.
        identified: Whether both ends are there, or the only one.
        flat_from: For a flat side, how far it was followed: (lowest or None, highest or None), in the same unit.
    """

    parameter: str
    estimate: float
    low: float | None
    high: float | None
    boundary: Side | None
    identified: bool
    flat_from: tuple[float | None, float | None]


def profiles(problem: Problem, theta: Array, scale: float, level: float = 0.95) -> tuple[tuple[Profile, ...], Array]:
    """A profile for each parameter of the law, and the lowest point that any of them met, its exponents positive.

    Args:
        problem: In the units of the table.
        theta: The fitted coordinates (coordinates,) there.
        scale: Of the loss at the fit.
        level: Of the intervals.
    """
    names = problem.law.parameters
    sides = [(j, sign) for j in range(len(names)) for sign in (-1, 1)]
    boundary = edge_of_each(problem, theta)
    origin = np.array([_origin(problem, theta, j, boundary[j]) for j, _ in sides])
    reach = np.array([_reach(problem, theta, j)[0 if sign < 0 else 1] for j, sign in sides]) - origin
    freedom = problem.y.size - len(names)
    threshold = np.array([_threshold(freedom, level, one_sided=boundary[j] is not None) for j, _ in sides])
    hold = np.array([j for j, _ in sides])
    at = np.repeat(theta[None], len(sides), axis=0)
    best, lowest = float(problem.objective(theta[None])[0][0]), np.array(theta)
    crossing = np.full(len(sides), np.nan)
    before = np.zeros((len(sides), 2))  # (way gone, root of the likelihood ratio) at the last point
    inward = [sign * way > 0 and boundary[j] != _SIDES[sign] for (j, sign), way in zip(sides, reach, strict=True)]
    active = np.flatnonzero(inward)
    for share in _STEPS:
        start = at[active]
        start[np.arange(active.size), hold[active]] = origin[active] + share * reach[active]
        found, value = minimise(problem, start, hold=hold[active], tolerance=1e-8)
        falling = np.where(problem.law.falls(found), value, np.inf)
        if falling.min() < problem.objective(lowest[None])[0][0]:
            lowest = found[int(falling.argmin())]
        root = _root(value, best, scale)
        at[active] = found
        past = root >= threshold[active]
        for row, now in zip(active[past], root[past], strict=True):
            gone, then = before[row]
            if boundary[hold[row]] is not None:  # from an edge the root is no straight line, so the end is sought
                way = origin[row], reach[row]
                there = _sought(problem, at[row], hold[row], way, (gone, share), best, scale, threshold[row])
            else:
                part = (threshold[row] - then) / (now - then) if np.isfinite(now) else 1.0
                there = gone + part * (share - gone)
            crossing[row] = origin[row] + there * reach[row]
        before[active] = np.column_stack([np.full(active.size, share), root])
        active = active[~past]
        if active.size == 0:
            break
    reached = origin + reach
    return tuple(
        _profile(problem, name, theta[j], crossing[2 * j : 2 * j + 2], reached[2 * j : 2 * j + 2], boundary[j])
        for j, name in enumerate(names)
    ), lowest


_SIDES: dict[int, Side] = {-1: "low", 1: "high"}


def _root(value: Array, best: float, scale: float) -> Array:
    return np.sqrt(np.maximum(0.0, 2.0 * (value - best) / scale)) if scale > 0 else np.full(value.size, np.inf)


def _sought(
    problem: Problem,
    at: Array,
    j: int,
    way: tuple[float, float],
    between: tuple[float, float],
    best: float,
    scale: float,
    threshold: float,
) -> float:
    """Share of the way at which the root passes the threshold, by halving what lies between."""
    low, high = between
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        start = at[None].copy()
        start[0, j] = way[0] + middle * way[1]
        found, value = minimise(problem, start, hold=np.array([j]), tolerance=1e-8)
        if _root(value, best, scale)[0] >= threshold:
            high = middle
        else:
            low = middle
            at = found[0]
    return 0.5 * (low + high)


def edge_of_each(problem: Problem, theta: Array) -> list[Side | None]:
    """The edge at which each parameter of coordinates (coordinates,) lies; None: at none."""
    found: list[Side | None] = [None] * len(problem.law.parameters)
    for (j, side), there in zip(edges(problem), at_edge(problem, theta[None])[0], strict=True):
        if there:
            found[j] = side
    return found


def _origin(problem: Problem, theta: Array, j: int, edge: Side | None) -> float:
    """Where a profile starts: at the estimate, or, from an edge at infinity, where the parameter begins to count."""
    if edge is None:
        return float(theta[j])
    law = problem.law
    name = law.parameters[j]
    if name in law.limits:
        return law.bounds(problem.x, problem.y)[name][0 if edge == "low" else 1]
    u = law.terms(theta[None, : len(law.parameters)], problem.x)[law.coefficients.index(name)][0]
    return float(theta[j] - (np.broadcast_to(u, (1, problem.y.size))[0] - problem.y).max() - np.log(1e3))


def _threshold(freedom: int, level: float, *, one_sided: bool) -> float:
    """Root of the level's point of F with 1 and `freedom` degrees of freedom: that of Student's t, two-sided.

    Of an estimate at an edge, half of the likelihood ratios are 0, so its one end is that of a one-sided test (Self and
    Liang 1987, J. American Statistical Association 82).
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level if one_sided else 0.5 + level / 2))


def _profile(
    problem: Problem, name: str, estimate: float, ends: Array, reached: Array, boundary: Side | None
) -> Profile:
    with np.errstate(over="ignore"):  # a parameter that is not identified may be infinite
        place, crossed, far = (
            np.exp(v) if name in problem.law.logs else v for v in (np.array(estimate), ends, reached)
        )
    low, high = (None if np.isnan(end) else float(end) for end in crossed)
    sides = zip(ends, far, ("low", "high"), strict=True)
    flat = tuple(float(way) if np.isnan(end) and side != boundary else None for end, way, side in sides)
    return Profile(
        parameter=name,
        estimate=float(place) if boundary is None else BEYOND[boundary],
        low=low if boundary != "low" else 0.0,
        high=high if boundary != "high" else np.inf,
        boundary=boundary,
        identified=flat == (None, None),
        flat_from=(flat[0], flat[1]),
    )


def _reach(problem: Problem, theta: Array, j: int) -> tuple[float, float]:
    """How far a coordinate can go and still mean what it means."""
    law = problem.law
    at, name = float(theta[j]), law.parameters[j]
    low, high = law.bounds(problem.x, problem.y).get(name, (-np.inf, np.inf))
    far = _WIDE if name in law.logs else _FAR
    return (at - far if np.isinf(low) else low), (max(at, low) + far if np.isinf(high) else high)
