"""Domains: the values that a factor of a design, a tuning space or a search space may take.

A space is parsed and checked here; design generators enumerate it, and the searchers of layer 4 map each domain,
a frozen dataclass with explicit fields, to one call of their library. `active` says whether a conditional factor
has a value at a point, `first_broken` which constraint forbids a finished point.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from stackwise_ray.config.space.expressions import Expression, parse_expression
from stackwise_ray.config.trial import paths
from stackwise_ray.config.trial.editing import value_at
from stackwise_ray.config.trial.paths import overlap
from stackwise_ray.config.trial.validation import describe, show
from stackwise_ray.core.errors import ConfigError, did_you_mean

MOST_POINTS = 20_000
"""Largest grid that is enumerated; above it a search is meant."""


@dataclass(frozen=True)
class Choice:
    """One of these values, in the order written. Written as a list or `{choice: […]}`."""

    values: tuple[Any, ...]

    @property
    def ascending(self) -> tuple[float, ...] | None:
        """The values from small to large if all of them are numbers: a sampler may then learn from neighbours."""
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in self.values):
            return None
        return tuple(sorted(self.values))


@dataclass(frozen=True)
class Uniform:
    """A real number, uniform on [low, high]."""

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform:
    """A positive real number whose logarithm is uniform on [log low, log high]."""

    low: float
    high: float


@dataclass(frozen=True)
class IntRange:
    """A whole number, uniform on low … high, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class LogIntRange:
    """A positive whole number on low … high, both included, uniform in the logarithm."""

    low: int
    high: int


@dataclass(frozen=True)
class Normal:
    """A real number from the normal distribution. A library without one draws u uniform on (0, 1) and asks `at`."""

    mean: float
    deviation: float

    def at(self, u: float) -> float:
        """The u-quantile."""
        from statistics import NormalDist

        return NormalDist(self.mean, self.deviation).inv_cdf(u)


@dataclass(frozen=True)
class Subsets:
    """Any subset of these items, as a list in their order. A sampler draws one truth value per item."""

    items: tuple[Any, ...]


Domain = Choice | Uniform | LogUniform | IntRange | LogIntRange | Normal | Subsets

_PAIRS: dict[str, Any] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int": IntRange,
    "log_int": LogIntRange,
    "normal": Normal,
}
DOMAIN_NAMES = ("choice", *_PAIRS, "subsets_of")


@dataclass(frozen=True)
class Factor:
    """One dotted path of the trial (or a preset group) with its domain.

    Attributes:
        when: Path to the value, or to the values, at which the factor is active; empty: always.
        place: Where it is written, for messages.
    """

    path: str
    domain: Domain
    when: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True)
class Space:
    """Factors in an order in which each follows those that its condition reads, and the constraints.

    Attributes:
        factors: By position; draw them in this order.
        require: All must hold at a point.
    """

    factors: tuple[Factor, ...]
    require: tuple[Expression, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The factors' paths, in order."""
        return tuple(factor.path for factor in self.factors)

    def without(self, paths: Sequence[str]) -> Space:
        """This space less the factors at (or below, or above) `paths`."""
        kept = tuple(factor for factor in self.factors if not any(overlap(factor.path, path) for path in paths))
        return Space(factors=kept, require=self.require)


Resolve = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a point (path to value, perhaps partial) to the whole trial as plain data, defaults filled in."""


def parse_space(raw: Any, *, require: Sequence[Any] = (), source: str | None = None, place: str) -> Space:
    """A space from the mapping of a search-space file.

    Args:
        raw: Path to domain.
        place: Dotted path of `raw` in its file, e.g. ``tune.space``.

    Raises:
        ConfigError: Unknown path (with the nearest), unknown or empty domain, limits out of order, a cycle of
            conditions, a constraint that is no expression.
    """
    if not isinstance(raw, Mapping):
        problem = f"= {show(raw)} is {describe(raw)}; give path: domain"
        raise ConfigError(problem, path=place, source=source)
    if not raw:
        raise ConfigError("is empty; give at least one path with its domain", path=place, source=source)
    factors = [_parse_factor(path, written, source, f"{place}.{path}") for path, written in raw.items()]
    for number, factor in enumerate(factors):
        for other in factors[:number]:
            if overlap(factor.path, other.path):
                problem = f"overlaps with '{other.path}'; give each value once"
                raise ConfigError(problem, path=factor.place, source=source)
    expressions = parse_require(require, source=source, place=f"{place.rpartition('.')[0]}.require")
    return Space(factors=_in_order(factors, source), require=expressions)


def parse_require(raw: Sequence[Any], *, source: str | None, place: str) -> tuple[Expression, ...]:
    """The constraints of a list `require`.

    Raises:
        ConfigError: One of them is no expression.
    """
    return tuple(
        parse_expression(text, source=source, place=f"{place.lstrip('.')}.{number}") for number, text in enumerate(raw)
    )


def active(factor: Factor, point: Mapping[str, Any], resolve: Resolve) -> bool:
    """Whether the factor's condition is met, given the values drawn before it."""
    if not factor.when:
        return True
    plain = resolve(point)
    return all(_matches(value_at(plain, path), wanted) for path, wanted in factor.when.items())


def first_broken(require: Sequence[Expression], plain: Mapping[str, Any]) -> str | None:
    """The text of the first constraint that a whole trial (plain data, defaults filled in) breaks, or None."""
    return next((expression.text for expression in require if not expression.holds(plain)), None)


def levels(domain: Domain) -> tuple[Any, ...] | None:
    """All values of a finite domain in order; None where there is no end of them."""
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, (IntRange, LogIntRange)):
        return tuple(range(domain.low, domain.high + 1)) if domain.high - domain.low < MOST_POINTS else None
    if isinstance(domain, Subsets):
        if len(domain.items) > 14:
            return None
        masks = range(1 << len(domain.items))
        return tuple([item for bit, item in enumerate(domain.items) if mask >> bit & 1] for mask in masks)
    return None


def enumerate_grid(
    space: Space, *, resolve: Resolve, source: str | None = None
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Every point of a finite space: all combinations of the levels of the factors that are active in it.

    Yields:
        The point, and the constraint that it breaks (None: it may be drawn).

    Raises:
        ConfigError: A domain is not finite, or the product of the levels exceeds `MOST_POINTS`.
    """
    table: dict[str, tuple[Any, ...]] = {}
    product = 1
    for factor in space.factors:
        values = levels(factor.domain)
        if values is None:
            problem = "is a range, and a grid cannot try all of its values; write a list (a search takes ranges)"
            raise ConfigError(problem, path=factor.place, source=source)
        table[factor.path] = values
        product *= len(values)
        if product > MOST_POINTS:
            problem = f"makes the grid larger than {MOST_POINTS:,} points; use kind: search or fewer levels"
            raise ConfigError(problem, path=factor.place, source=source)

    def walk(number: int, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if number == len(space.factors):
            yield point
            return
        factor = space.factors[number]
        if not active(factor, point, resolve):
            yield from walk(number + 1, point)
            return
        for value in table[factor.path]:
            yield from walk(number + 1, {**point, factor.path: value})

    for point in walk(0, {}):
        yield point, (first_broken(space.require, resolve(point)) if space.require else None)


def _matches(value: Any, wanted: Any) -> bool:
    options = wanted if isinstance(wanted, (list, tuple)) and not isinstance(value, list) else [wanted]
    return any(value == option and isinstance(value, bool) is isinstance(option, bool) for option in options)


def _parse_factor(path: str, written: Any, source: str | None, place: str) -> Factor:
    if path not in paths.GROUPS:
        paths.require_trial_path(path, place=place, source=source)
    if path in ("seed", "schema_version"):
        raise ConfigError("cannot be a factor; give seeds in replicates.seeds", path=place, source=source)
    when: Mapping[str, Any] = {}
    if isinstance(written, Mapping) and "when" in written:
        when = _parse_when(written["when"], source, f"{place}.when")
        written = {key: value for key, value in written.items() if key != "when"}
    domain = _parse_domain(written, source, place)
    if isinstance(domain, (Uniform, LogUniform, Normal)) and _is_whole(path):
        problem = "takes whole numbers; write {int: [low, high]} or {log_int: [low, high]}"
        raise ConfigError(problem, path=place, source=source)
    return Factor(path=path, domain=domain, when=when, place=place)


def _parse_when(raw: Any, source: str | None, place: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping) or not raw:
        problem = f"= {show(raw)} is not a condition; write path: value, e.g. {{model.mixer.kind: resolvent_apply}}"
        raise ConfigError(problem, path=place, source=source)
    for path in raw:
        paths.require_trial_path(path, place=f"{place}.{path}", source=source)
        if paths.components_at(path):
            problem = "is a component; a condition reads one of its fields"
            raise ConfigError(problem, path=f"{place}.{path}", source=source)
    return dict(raw)


def _parse_domain(written: Any, source: str | None, place: str) -> Domain:
    if isinstance(written, (list, tuple)):
        return Choice(_distinct(written, source, place))
    if not isinstance(written, Mapping):
        problem = f"= {show(written)} is not a domain; give a list, or a mapping with one of {', '.join(DOMAIN_NAMES)}"
        raise ConfigError(problem, path=place, source=source)
    if len(written) != 1:
        problem = f"= {show(written)} must have exactly one of {', '.join(DOMAIN_NAMES)}"
        raise ConfigError(problem, path=place, source=source)
    ((name, value),) = written.items()
    place = f"{place}.{name}"
    if name not in DOMAIN_NAMES:
        raise ConfigError(f"is not a domain; {did_you_mean(name, DOMAIN_NAMES)}", path=place, source=source)
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"= {show(value)} is {describe(value)}; it must be a list", path=place, source=source)
    if name in ("choice", "subsets_of"):
        items = _distinct(value, source, place)
        return Choice(items) if name == "choice" else Subsets(items)
    return _parse_pair(name, value, source, place)


def _parse_pair(name: str, value: Sequence[Any], source: str | None, place: str) -> Domain:
    whole = name in ("int", "log_int")
    wanted = "two whole numbers" if whole else "two numbers"
    fits = (int,) if whole else (int, float)
    if len(value) != 2 or any(isinstance(entry, bool) or not isinstance(entry, fits) for entry in value):
        hint = "; write numbers without quotes" if any(isinstance(entry, str) for entry in value) else ""
        raise ConfigError(f"= {show(value)} is not {wanted}{hint}", path=place, source=source)
    low, high = value
    if not all(abs(entry) < float("inf") for entry in value):
        raise ConfigError(f"= {show(value)} is not finite", path=place, source=source)
    if name == "normal":
        if high <= 0:
            problem = f"= {show(value)} has the standard deviation {show(high)}; it must be above 0"
            raise ConfigError(problem, path=place, source=source)
    elif low >= high:
        raise ConfigError(
            f"= {show(value)} is empty; the first limit must be below the second", path=place, source=source
        )
    if name.startswith("log_") and low <= 0:
        raise ConfigError(
            f"= {show(value)} has a limit of 0 or below; the limits of a logarithmic domain must be above 0",
            path=place,
            source=source,
        )
    domain: Domain = _PAIRS[name](low, high) if whole else _PAIRS[name](float(low), float(high))
    return domain


def _distinct(values: Sequence[Any], source: str | None, place: str) -> tuple[Any, ...]:
    if not values:
        raise ConfigError("is empty; give at least one value", path=place, source=source)
    for number, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:number]):
            raise ConfigError(f"contains {show(value)} twice; keep one", path=place, source=source)
    return tuple(values)


def _is_whole(path: str) -> bool:
    """Whether the field at `path` takes whole numbers alone."""
    if path == paths.MAX_STEPS:
        return True
    parent, _, name = path.rpartition(".")
    if not parent or paths.components_at(path):
        return False
    annotations = [
        paths.annotations_of(holder)[name]
        for holder in paths.classes_of(paths.components_at(parent))
        if name in paths.annotations_of(holder)
    ]
    return all({int} == _leaf_types(annotation) for annotation in annotations)


def _leaf_types(annotation: Any) -> set[Any]:
    import types

    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _leaf_types(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return {leaf for part in typing.get_args(annotation) for leaf in _leaf_types(part)} - {type(None)}
    return {annotation}


def _in_order(factors: Sequence[Factor], source: str | None) -> tuple[Factor, ...]:
    """Factors behind those that their conditions read; otherwise as written."""
    placed: list[Factor] = []
    waiting = list(factors)
    while waiting:
        ready = next((factor for factor in waiting if not _reads_any(factor, waiting)), None)
        if ready is None:
            names = ", ".join(factor.path for factor in waiting)
            raise ConfigError(
                f"the conditions of {names} depend on each other in a circle; remove one of them",
                path=waiting[0].place,
                source=source,
            )
        waiting.remove(ready)
        placed.append(ready)
    return tuple(placed)


def _reads_any(factor: Factor, others: Sequence[Factor]) -> bool:
    return any(overlap(path, other.path) for path in factor.when for other in others)
