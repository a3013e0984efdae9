"""From a sweep to its arms, and to the spaces of tuning and search.

`expand` is pure: the same sweep gives the same arms in the same order, on every machine. A combination that breaks a
constraint is not made; one that contradicts itself (7 heads over width 512) is refused with its reason in a
generated design, and is an error in a list of named arms, where somebody wrote it by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackwise_ray.config.identity import canonical_json
from stackwise_ray.config.space import naming
from stackwise_ray.config.space.comparisons import resolve_questions
from stackwise_ray.config.space.domains import (
    Factor,
    Resolve,
    Space,
    active,
    first_broken,
    levels,
    parse_require,
    parse_space,
)
from stackwise_ray.config.space.generators import Points, points_of
from stackwise_ray.config.space.resolver import Resolver
from stackwise_ray.config.space.sized_arms import Written, sized_arms
from stackwise_ray.config.space.sweep_config import (
    ArmsDesign,
    IsoflopDesign,
    LadderDesign,
    OneAtATimeDesign,
    Search,
    SearchDesign,
    SweepConfig,
    Tune,
)
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import edit, from_plain, to_plain
from stackwise_ray.config.trial.flag_answers import flatten
from stackwise_ray.config.trial.paths import GROUPS
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.core.comparison_records import Questions
from stackwise_ray.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of a design.

    Attributes:
        parameters: What the arm sets over the base: dotted path (or preset group) to value, components flattened.
        trial: The resolved trial, with seed 0.
    """

    name: str
    parameters: Mapping[str, Any]
    trial: TrialConfig


@dataclass(frozen=True, kw_only=True)
class RefusedArm:
    """A combination that is not run, with the reason."""

    name: str
    parameters: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The combinations of a design.

    Attributes:
        arms: In the order of the file; none for `kind: search`.
        refused: Combinations that contradict themselves.
        excluded: Combinations that a `require` rules out, as asked.
        notes: What a reader of the plan should know, e.g. the aliases of a fraction.
    """

    arms: tuple[Arm, ...]
    refused: tuple[RefusedArm, ...] = ()
    excluded: tuple[RefusedArm, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Design(Cells):
    """What a sweep's design expands to, handed to whoever needs arms, spaces or what is asked of them.

    Attributes:
        questions: What the sweep optimises and compares, with nothing left open.
        search: The space of `kind: search`; None: the design has none.
        tuning: The space of the tuning stage, before an arm takes its own values out of it; None: no tuning.
    """

    questions: Questions
    search: Space | None = None
    tuning: Space | None = None

    @property
    def search_space(self) -> Space:
        """The space of a design that is a search."""
        assert self.search is not None, "checked when the file was loaded"
        return self.search

    def tuning_space(self, arm: Arm) -> Space:
        """What of an arm is tuned: the space without what that arm itself sets (its own value stands)."""
        assert self.tuning is not None, "asked of a sweep that is tuned"
        return self.tuning.without([path for path in arm.parameters if path not in GROUPS])


def expand(sweep: SweepConfig) -> Design:
    """The arms and the spaces of a sweep, expanded once: who loads a sweep and then runs it gets what was checked.

    Raises:
        ConfigError: Two arms are the same trial, an arm contradicts itself, nothing is left to run, a wrong type, a
            space that does not parse.
    """
    kept = vars(sweep)  # as a cached property is kept, which the schema cannot have: it knows no designs
    if _EXPANDED not in kept:
        kept[_EXPANDED] = _expand(sweep)
    design: Design = kept[_EXPANDED]
    return design


_EXPANDED = "_expanded"


def _expand(sweep: SweepConfig) -> Design:
    cells = _cells(sweep)
    units = {arm.trial.training.budget.unit for arm in cells.arms}
    return Design(
        **vars(cells),
        questions=resolve_questions(sweep, [arm.name for arm in cells.arms], units.pop() if len(units) == 1 else None),
        search=None if sweep.search is None else _space(sweep, sweep.search, "search.space"),
        tuning=None if sweep.tune is None else _space(sweep, sweep.tune, "tune.space"),
    )


def _space(sweep: SweepConfig, written: Search | Tune, place: str) -> Space:
    return parse_space(written.space, require=written.require, source=sweep.source, place=place)


def _cells(sweep: SweepConfig) -> Cells:
    design = sweep.design
    resolver = Resolver(sweep)
    if isinstance(design, SearchDesign):
        return Cells(arms=())
    if isinstance(design, ArmsDesign):
        rows = [Written(name, f"design.arms.{name}", changes) for name, changes in design.arms.items()]
        return _named_arms(sweep, rows, design.require, resolver)
    if isinstance(design, IsoflopDesign | LadderDesign):
        return _named_arms(sweep, sized_arms(design, resolver), design.require, resolver)
    space = parse_space(design.factors, require=design.require, source=sweep.source, place="design.factors")
    points, notes = points_of(design, space, resolver.resolve("design.factors"), sweep.source)
    expanded = _build(points, space, resolver, sweep)
    if not expanded.arms:
        reasons = "; ".join(dict.fromkeys(cell.reason for cell in (*expanded.refused, *expanded.excluded)))
        problem = f"excludes every arm: {reasons[:300]}"
        raise ConfigError(problem, path="design.factors", source=sweep.source)
    return dataclasses.replace(expanded, notes=notes)


def arm_resolve(arm: Arm) -> Resolve:
    """A function from a tuning point to the arm's whole trial as plain data."""
    return lambda point: to_plain(edit(arm.trial, point))


def tuned(arm: Arm, point: Mapping[str, Any]) -> TrialConfig:
    """The arm's trial with tuned values set, checked.

    Raises:
        ConfigError: A value contradicts the arm.
    """
    trial = edit(arm.trial, point)
    check_trial(trial)
    return trial


def draw(space: Space, suggest: Callable[[Factor], Any], resolve: Resolve) -> tuple[dict[str, Any], str | None]:
    """One point of a space, factor by factor.

    Args:
        suggest: Gives a value for a factor; called in order, for active factors alone.
        resolve: `Resolver.resolve` of a search, `arm_resolve` of a tuning stage.

    Returns:
        The point, and why it cannot be used: the constraint that it breaks, or the rule of `config.trial.rules` that it
        contradicts (None: it may be used; else draw again).
    """
    point: dict[str, Any] = {}
    for factor in space.factors:
        if active(factor, point, resolve):
            point[factor.path] = suggest(factor)
    plain = resolve(point)
    broken = first_broken(space.require, plain)
    return point, _contradiction(plain) if broken is None else broken


def _contradiction(plain: Mapping[str, Any]) -> str | None:
    try:
        check_trial(from_plain(plain))
    except ConfigError as error:
        return str(error)
    return None


def _named_arms(sweep: SweepConfig, rows: Iterable[Written], constraints: Sequence[str], resolver: Resolver) -> Cells:
    """Arms that somebody wrote, alone or as a size: each is a trial of its own, and must not contradict itself."""
    arms: list[Arm] = []
    refused: list[RefusedArm] = []
    known: dict[str, str] = {}
    require = parse_require(constraints, source=sweep.source, place="design.require")
    for name, place, changes in rows:
        trial = resolver.trial(changes, place=place)
        broken = first_broken(require, to_plain(trial))
        if broken is not None:
            refused.append(RefusedArm(name=name, parameters=flatten(changes), reason=f"breaks '{broken}'"))
            continue
        same = known.setdefault(canonical_json(trial), name)
        if same != name:
            problem = f"is the same trial as arm '{same}'; change or remove one of them"
            raise ConfigError(problem, path=place, source=sweep.source)
        arms.append(Arm(name=name, parameters=flatten(changes), trial=trial))
    if not arms:
        reasons = "; ".join(f"{arm.name} {arm.reason}" for arm in refused)
        raise ConfigError(f"excludes every arm: {reasons[:300]}", path="design.require", source=sweep.source)
    return Cells(arms=tuple(arms), refused=tuple(refused))


def _build(points: Points, space: Space, resolver: Resolver, sweep: SweepConfig) -> Cells:
    """Arms from points: named, built, checked, each trial once."""
    source = sweep.source
    keys = naming.short_keys(space.paths)
    labels = {factor.path: _labels(factor) for factor in space.factors}
    arms: dict[str, Arm] = {}
    refused: list[RefusedArm] = []
    excluded: list[RefusedArm] = []
    for point, broken in points:
        name = naming.point_name({path: _label(labels[path], value) for path, value in point.items()}, keys)
        parameters = flatten(point)
        if broken is not None:
            excluded.append(RefusedArm(name=name, parameters=parameters, reason=f"breaks '{broken}'"))
            continue
        draft = resolver.draft(point, place="design.factors")
        trial = draft.build()
        try:
            check_trial(trial, locate=draft.locate)
        except ConfigError as error:
            refused.append(RefusedArm(name=name, parameters=parameters, reason=str(error.at(source=source))))
            continue
        same = arms.setdefault(canonical_json(trial), Arm(name=name, parameters=parameters, trial=trial))
        # One at a time, a level that the base has already is the base; elsewhere somebody wrote a level twice.
        if same.name != name and not isinstance(sweep.design, OneAtATimeDesign):
            problem = f"'{name}' is the same trial as '{same.name}'; remove one of the levels"
            raise ConfigError(problem, path="design.factors", source=source)
    return Cells(arms=tuple(arms.values()), refused=tuple(refused), excluded=tuple(excluded))


def _labels(factor: Factor) -> list[tuple[Any, str]]:
    values = levels(factor.domain) or ()
    return list(zip(values, naming.level_labels(values), strict=True))


def _label(table: list[tuple[Any, str]], value: Any) -> str:
    return next(label for level, label in table if level == value and type(level) is type(value))
