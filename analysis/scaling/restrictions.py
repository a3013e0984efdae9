"""Laws with tied and fixed parameters: fewer free ones, so that few runs are enough. Called by `parametric_law`.

A restricted law is a `Law` of the free parameters; it asks the whole law for its terms and carries the gradient back by
the chain rule. What is tied or fixed is so in the units of the table, while a fit counts in units of the runs' means,
so a restriction knows these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from .boundaries import FAR
from .laws import Array, Bounds, Law, Term


@dataclass(frozen=True, kw_only=True)
class RestrictedLaw(Law):
    """A law some of whose parameters are fixed or follow another.

    Attributes:
        whole: The law without restriction.
        fixed: Coordinates of the fixed parameters in the units of the table.
        leaders: The free parameter that each parameter follows, itself for a free one; fixed ones have none.
        centre: Logarithm of the units of the columns in which this one is evaluated (columns,).
    """

    whole: Law
    fixed: Mapping[str, float]
    leaders: Mapping[str, str]
    centre: Array

    def at(self, centre: Array) -> Law:
        """This law for columns in units of exp(centre)."""
        moved = replace(self, centre=np.asarray(centre, dtype=float))
        return replace(moved, terms=partial(_terms, moved))

    def rescaled(self, theta: Array, centre: Array) -> Array:
        """Coordinates in units that are exp(-centre) times the present ones."""
        moved = np.array(theta, dtype=float)
        for coefficient, exponent, column in self.whole.scales:
            if self.leaders.get(coefficient) == coefficient:
                moved[:, self.index(coefficient)] += self._power(theta, exponent)[0] * centre[column]
        return moved

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters of the whole law, from the free ones."""
        found = {}
        for name in self.whole.parameters:
            if name in self.leaders:
                found[name] = values[self.leaders[name]]
            else:
                found[name] = _natural(self.whole, name, self.fixed[name])
        return found

    def whole_coordinates(self, theta: Array) -> Array:
        """Coordinates of the whole law (rows, its parameters)."""
        return _expanded(self, theta)[0]

    @property
    def whole_exponents(self) -> tuple[str, ...]:
        """`exponents`, those that are tied or fixed included."""
        return self.whole.exponents

    def restriction(self, name: str) -> str | None:
        """Why a parameter has no interval of its own."""
        if name in self.fixed:
            return "fixed"
        leader = self.leaders.get(name, name)  # an exponent of the allocation is of neither kind
        return None if leader == name else f"= {leader}"

    @property
    def allocation_restriction(self) -> str | None:
        """Why the exponents of the allocation follow without a measurement: they depend on alpha / beta alone."""
        behind = self.whole_exponents
        if behind and all(name in self.fixed for name in behind):
            return "fixed"
        return "tied" if len({self.leaders.get(name, name) for name in behind}) == 1 else None

    def refuse_outside(self, x: Array, y: Array) -> None:
        """Refuse fixed values that mean nothing for these runs; log-columns (columns, runs) in the table's units."""
        for name, ends in self.whole.bounds(x, y).items():
            coordinate = self.fixed.get(name)
            sides = self.whole.limits.get(name, ())
            if coordinate is None:
                continue
            low = -math.inf if "low" in sides else ends[0]
            high = math.inf if "high" in sides else ends[1]
            if low < coordinate < high:
                continue
            log = name in self.whole.logs
            shown = (f"{math.exp(min(end, 700.0)) if log else end:.4g}" for end in (low, high))
            raise AnalysisError(
                f"fix: {name} = {_natural(self.whole, name, coordinate):g} is outside what it can be for these runs in "
                f"'{self.name}': {' to '.join(shown)}"
            )

    def _power(self, theta: Array, exponent: str | None) -> tuple[Array | float, int | None, Array | float]:
        """By what a change of units enters a coefficient: the power, the coordinate behind it, and its derivative."""
        if exponent is None:
            return 1.0, None, 0.0
        log = exponent in self.whole.logs
        if exponent in self.fixed:
            value = self.fixed[exponent]
            return (math.exp(value) if log else value), None, 0.0
        j = self.index(self.leaders[exponent])
        power = np.exp(theta[:, j]) if log else theta[:, j]
        return power, j, power if log else 1.0


def restricted(law: Law, tie: Sequence[str], fix: Mapping[str, float]) -> Law:
    """The law with parameters tied ("alpha=beta") and fixed ({"E": 1.69}), in the units of the table.

    Raises:
        AnalysisError: A parameter that the law does not have, one that is both tied and fixed, two that cannot be
            equal, a value that it cannot take, or no parameter left.
    """
    if not tie and not fix:
        return law
    fixed = {name: _coordinate(law, name, value) for name, value in fix.items()}
    leaders = {name: name for name in law.parameters if name not in fixed}
    for words in tie:
        names = [word.strip() for word in words.split("=")]
        if len(names) < 2 or len(set(names)) < len(names):
            raise AnalysisError(f"tie = '{words}': write two parameters with = between, such as alpha=beta")
        for name in names:
            _require(law, name, "tie")
            if name in fixed:
                raise AnalysisError(f"'{name}' is both tied and fixed; fix the other one to the same value instead")
        if len({name in law.logs for name in names}) > 1:
            raise AnalysisError(f"tie = '{words}': one is searched for in logarithms and may not be negative, not both")
        joined = {leaders[name] for name in names}
        first = next(name for name in law.parameters if name in joined)
        leaders = {name: first if leader in joined else leader for name, leader in leaders.items()}
    free = tuple(name for name in law.parameters if leaders.get(name) == name)
    if not free:
        raise AnalysisError(f"every parameter of '{law.name}' is fixed; leave at least one free")
    own_terms = [name for name in law.coefficients if list(leaders.values()).count(name) == 1]
    empty = RestrictedLaw(
        name=law.name,
        formula=law.formula,
        parameters=free,
        logs=law.logs & set(free),
        columns=law.columns,
        terms=law.terms,
        starts=partial(_starts, law, free),
        bounds=partial(_bounds, law, free),
        limits={name: sides for name, sides in law.limits.items() if name in free},
        scales=(),
        coefficients=law.coefficients if len(own_terms) == len(law.coefficients) else (),
        exponents=tuple(name for name in law.exponents if name in free),
        source=law.source,
        quantity=law.quantity,
        whole=law,
        fixed=fixed,
        leaders=leaders,
        centre=np.zeros(max(1, len(law.columns))),
    )
    return empty.at(empty.centre)


def _require(law: Law, name: str, option: str) -> None:
    if name not in law.parameters:
        raise AnalysisError(f"{option}: '{law.name}' has no parameter '{name}'; {did_you_mean(name, law.parameters)}")


def _coordinate(law: Law, name: str, value: float) -> float:
    """The coordinate of a fixed value."""
    _require(law, name, "fix")
    if not math.isfinite(value):
        raise AnalysisError(f"fix: {name} = {value} must be a finite number")
    if name not in law.logs:
        return value
    if value == 0 and (name in law.limits or (len(law.coefficients) > 1 and name in law.coefficients)):
        return -FAR
    if value <= 0:
        raise AnalysisError(f"fix: {name} = {value:g} must be positive in '{law.name}'")
    return math.log(value)


def _natural(law: Law, name: str, coordinate: float) -> float:
    if name not in law.logs:
        return coordinate
    return 0.0 if coordinate <= -FAR else math.exp(coordinate)


def _starts(law: Law, free: tuple[str, ...], x: Array, y: Array) -> Array:
    return np.unique(law.starts(x, y)[:, [law.index(name) for name in free]], axis=0)


def _bounds(law: Law, free: tuple[str, ...], x: Array, y: Array) -> Bounds:
    return {name: ends for name, ends in law.bounds(x, y).items() if name in free}


def _expanded(law: RestrictedLaw, theta: Array) -> tuple[Array, list[dict[int, Array | float]]]:
    """Coordinates of the whole law (rows, its parameters), and of each the derivatives by the free ones."""
    whole = law.whole
    full = np.empty((len(theta), len(whole.parameters)))
    slopes: list[dict[int, Array | float]] = []
    for i, name in enumerate(whole.parameters):
        leader = law.leaders.get(name)
        slope: dict[int, Array | float] = {}
        if leader is None:
            full[:, i] = law.fixed[name]
        else:
            full[:, i] = theta[:, law.index(leader)]
            slope[law.index(leader)] = 1.0
        for member, sign in ((leader, 1.0), (name, -1.0)) if leader != name else ():
            for _, exponent, column in (scale for scale in whole.scales if scale[0] == member):
                power, j, derivative = law._power(theta, exponent)
                full[:, i] += sign * law.centre[column] * power
                if j is not None:
                    slope[j] = slope.get(j, 0.0) + sign * law.centre[column] * derivative
        slopes.append(slope)
    return full, slopes


def _terms(law: RestrictedLaw, theta: Array, x: Array) -> list[Term]:
    """The terms of the whole law with their derivatives by the free coordinates."""
    full, slopes = _expanded(law, theta)
    found: list[Term] = []
    for u, derivatives in law.whole.terms(full, x):
        by_free: dict[int, Array | float] = {}
        for i, du in derivatives.items():
            for j, slope in slopes[i].items():
                by_row = slope[:, None] if isinstance(slope, np.ndarray) else slope
                by_free[j] = by_free.get(j, 0.0) + by_row * du
        found.append((u, by_free))
    return found
