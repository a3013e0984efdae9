"""The points of a design over factors: grid, one at a time, full and fractional factorials.

`config.space.designs` makes arms of them. Nothing here knows presets: `resolve` gives the whole trial at a point, which
conditions and constraints read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stackwise_ray.config.space import fractions, naming
from stackwise_ray.config.space.domains import Choice, Resolve, Space, active, enumerate_grid, first_broken, levels
from stackwise_ray.config.space.sweep_config import (
    FactorialDesign,
    FractionalFactorialDesign,
    GridDesign,
    OneAtATimeDesign,
)
from stackwise_ray.core.errors import ConfigError

Points = Iterator[tuple[dict[str, Any], str | None]]
"""Each point (path to value) with the constraint that it breaks, or None."""

MOST_WORDS = 8
"""Words of a defining relation that a note shows, shortest first."""

FactorDesign = GridDesign | OneAtATimeDesign | FactorialDesign | FractionalFactorialDesign


def points_of(
    design: FactorDesign, space: Space, resolve: Resolve, source: str | None
) -> tuple[Points, tuple[str, ...]]:
    """The points of a design over factors, lazily, and what a reader of the plan should know about them.

    Raises:
        ConfigError: A factor does not suit the design (endless, conditional, not of two levels).
    """
    if isinstance(design, OneAtATimeDesign):
        return _checked(_one_at_a_time(space, resolve, source), space, resolve), ()
    if isinstance(design, FractionalFactorialDesign):
        return _fraction(design, space, resolve, source)
    if isinstance(design, FactorialDesign):
        for factor in space.factors:
            if len(levels(factor.domain) or (1, 2)) < 2:
                raise ConfigError(
                    "has fewer than two levels; a factorial needs two or more of each factor",
                    path=factor.place,
                    source=source,
                )
    return enumerate_grid(space, resolve=resolve, source=source), ()


def _one_at_a_time(space: Space, resolve: Resolve, source: str | None) -> Iterator[dict[str, Any]]:
    yield {}
    for factor in space.factors:
        if not active(factor, {}, resolve):
            raise ConfigError(
                "has a condition that is false in the base; change the base, or remove the condition",
                path=factor.place,
                source=source,
            )
        values = levels(factor.domain)
        if values is None:
            raise ConfigError(
                "is a range, and this design cannot try all of its values; write a list of levels",
                path=factor.place,
                source=source,
            )
        yield from ({factor.path: value} for value in values)


def _fraction(
    design: FractionalFactorialDesign, space: Space, resolve: Resolve, source: str | None
) -> tuple[Points, tuple[str, ...]]:
    pairs: list[tuple[Any, ...]] = []
    for factor in space.factors:
        values = levels(factor.domain)
        if factor.when:
            problem = "has a condition, but a fraction needs every factor in every run; remove it"
            raise ConfigError(problem, path=factor.place, source=source)
        if not isinstance(factor.domain, Choice) or values is None or len(values) != 2:
            problem = "does not have two levels; a fractional factorial needs exactly two of each factor"
            raise ConfigError(problem, path=factor.place, source=source)
        pairs.append(values)
    if not 2 <= len(pairs) <= fractions.MOST_FACTORS:
        problem = f"has {len(pairs)} factors; a fraction takes 2 to {fractions.MOST_FACTORS}"
        raise ConfigError(problem, path="design.factors", source=source)
    fraction = fractions.smallest_fraction(len(pairs), design.resolution)
    points = (
        {path: pair[bit] for path, pair, bit in zip(space.paths, pairs, run, strict=True)} for run in fraction.runs
    )
    return _checked(points, space, resolve), (_aliases(fraction, list(naming.short_keys(space.paths).values())),)


def _aliases(fraction: fractions.Fraction, keys: list[str]) -> str:
    """What the fraction costs: its resolution, and the shortest words of its defining relation."""
    head = f"{len(fraction.runs)} of {2 ** len(keys)} runs"
    if not fraction.words:
        return f"{head}: the full factorial"
    words = sorted(fraction.words, key=len)
    shown = " = ".join(" × ".join(keys[position] for position in word) for word in words[:MOST_WORDS])
    more = f" and {len(words) - MOST_WORDS} more" if len(words) > MOST_WORDS else ""
    return f"{head}, resolution {fraction.resolution}; defining relation I = {shown}{more}"


def _checked(points: Iterable[dict[str, Any]], space: Space, resolve: Resolve) -> Points:
    for point in points:
        yield point, (first_broken(space.require, resolve(point)) if space.require else None)
