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

from .laws import Array
from .minimisation import Problem, minimise

_LEVEL = 0.95
_STEPS = np.geomspace(1e-4, 1.0, 28)
"""Where the profile is computed, as shares of the way to the end of a parameter's reach."""
_WIDE = float(np.log(1e6))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the runs say about one parameter.

    Attributes:
        low: Lower end of the 95 % profile interval; None: flat as far down as the parameter can go.
        high: Upper end; None: flat upwards.
        identified: Whether both ends are there.
        flat_from: For a flat side, how far it was followed: (lowest or None, highest or None), in the same unit.
    """

    parameter: str
    estimate: float
    low: float | None
    high: float | None
    identified: bool
    flat_from: tuple[float | None, float | None]


def profiles(problem: Problem, theta: Array, scale: float) -> tuple[tuple[Profile, ...], Array]:
    """A profile for each parameter of the law, and the lowest point that any of them met, its exponents positive.

    Args:
        problem: In the units of the table.
        theta: The fitted coordinates (coordinates,) there.
        scale: Of the loss at the fit.
    """
    names = problem.law.parameters
    threshold = _threshold(problem.y.size - len(names))
    sides = [(j, sign) for j in range(len(names)) for sign in (-1, 1)]
    reach = np.array([_reach(problem, theta, j)[0 if sign < 0 else 1] - theta[j] for j, sign in sides])
    hold = np.array([j for j, _ in sides])
    at = np.repeat(theta[None], len(sides), axis=0)
    best, lowest = float(problem.objective(theta[None])[0][0]), np.array(theta)
    crossing = np.full(len(sides), np.nan)
    before = np.zeros((len(sides), 2))  # (way gone, root of the likelihood ratio) at the last point
    active = np.flatnonzero([sign * way > 0 for (_, sign), way in zip(sides, reach, strict=True)])
    for share in _STEPS:
        start = at[active]
        start[np.arange(active.size), hold[active]] = theta[hold[active]] + share * reach[active]
        found, value = minimise(problem, start, hold=hold[active], tolerance=1e-8)
        falling = np.where(problem.law.falls(found), value, np.inf)
        if falling.min() < problem.objective(lowest[None])[0][0]:
            lowest = found[int(falling.argmin())]
        root = np.sqrt(np.maximum(0.0, 2.0 * (value - best) / scale)) if scale > 0 else np.full(active.size, np.inf)
        at[active] = found
        past = root >= threshold
        for row, now in zip(active[past], root[past], strict=True):
            gone, then = before[row]
            part = (threshold - then) / (now - then) if np.isfinite(now) else 1.0
            crossing[row] = theta[hold[row]] + (gone + part * (share - gone)) * reach[row]
        before[active] = np.column_stack([np.full(active.size, share), root])
        active = active[~past]
        if active.size == 0:
            break
    return tuple(
        _profile(problem, name, theta[j], crossing[2 * j : 2 * j + 2], theta[j] + reach[2 * j : 2 * j + 2])
        for j, name in enumerate(names)
    ), lowest


def _threshold(freedom: int) -> float:
    """Root of the 95 % point of F with 1 and `freedom` degrees of freedom: that of Student's t, two-sided."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + _LEVEL / 2))


def _profile(problem: Problem, name: str, estimate: float, ends: Array, reached: Array) -> Profile:
    with np.errstate(over="ignore"):  # a parameter that is not identified may be infinite
        place, crossed, far = (
            np.exp(v) if name in problem.law.logs else v for v in (np.array(estimate), ends, reached)
        )
    low, high = (None if np.isnan(end) else float(end) for end in crossed)
    flat = tuple(float(way) if np.isnan(end) else None for end, way in zip(ends, far, strict=True))
    return Profile(
        parameter=name,
        estimate=float(place),
        low=low,
        high=high,
        identified=low is not None and high is not None,
        flat_from=(flat[0], flat[1]),
    )


def _reach(problem: Problem, theta: Array, j: int) -> tuple[float, float]:
    """How far a coordinate can go and still mean what it means."""
    name, lowest = problem.law.parameters[j], float(problem.y.min())
    if name in ("E", "a"):
        return lowest - float(np.log(1e3)), lowest + 0.5  # a thousandth of the lowest loss is none
    if name == "d":
        return float(problem.x[0].min()), float(problem.x[0].max())  # a break outside the runs is none
    if name in problem.law.logs:
        return float(theta[j]) - _WIDE, float(theta[j]) + _WIDE
    if name in ("c0", "c1"):
        return float(theta[j]) - 2.0, float(theta[j]) + 2.0
    return 0.0, max(float(theta[j]), 0.0) + 2.0  # at exponent 0 a term is a constant
