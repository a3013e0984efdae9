"""The rules that span several keys of a search-space file; `load_sweep` calls `check_sweep` before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stackwise_ray.config.space.analysis_rules import (
    ANALYSIS_RULES,
    check_analysis,
    check_masks,
    check_optimised,
    check_reported,
    metrics_read,
)
from stackwise_ray.config.space.designs import Design, arm_resolve, draw, expand
from stackwise_ray.config.space.domains import Choice, Factor, Normal, Resolve, Space, Subsets, first_broken
from stackwise_ray.config.space.metric_names import on_whole_splits, require_metric
from stackwise_ray.config.space.resolver import Resolver
from stackwise_ray.config.space.seeds import replicate_seeds
from stackwise_ray.config.space.sweep_config import (
    AdaptiveSeeds,
    ArmsDesign,
    IsoflopDesign,
    LadderDesign,
    SearchDesign,
    SweepConfig,
)
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import edit, to_plain
from stackwise_ray.config.trial.paths import BUDGET, GROUPS, MAX_STEPS, overlap
from stackwise_ray.config.trial.rules import unknown_names
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.records import Role
from stackwise_ray.core.registries import SAMPLERS, SCHEDULERS

MOST_SEEDS = 10_000
"""More replicates of an arm than anybody means; refused before they are listed."""


def check_sweep(sweep: SweepConfig) -> Design:
    """Refuse a sweep that cannot be run as written, and expand it on the way.

    Raises:
        ConfigError: With file, path, value and fix.
    """
    for rule in _RULES:
        rule(sweep)
    design = expand(sweep)
    _check_baseline(sweep, design)
    check_masks(sweep, design)
    check_reported(sweep, design)
    check_analysis(sweep, design)
    _check_workers(sweep, design)
    for arm in design.arms:
        _check_device(sweep, arm.name, arm.trial)
    _check_spaces(sweep, design)
    _check_number(sweep, design)
    return design


def _refuse(sweep: SweepConfig, path: str, problem: str) -> ConfigError:
    return ConfigError(problem, path=path, source=sweep.source)


def _check_search(sweep: SweepConfig) -> None:
    searching = isinstance(sweep.design, SearchDesign)
    if searching and sweep.search is None:
        raise _refuse(sweep, "search", "is required with design.kind: search; give sampler, trials and space")
    if not searching and sweep.search is not None:
        raise _refuse(
            sweep,
            "search",
            f"has no effect with design.kind: {sweep.design.kind}; remove it, or write design.kind: search",
        )
    if sweep.search is not None:
        try:
            SAMPLERS.get(sweep.sampler)
        except ConfigError as error:
            raise error.at(path="search.sampler", source=sweep.source) from None
    if sweep.search is not None and sweep.search.winners > sweep.search.trials:
        problem = f"= {sweep.search.winners} is more than the {sweep.search.trials} trials of the search; lower it"
        raise _refuse(sweep, "search.winners", problem)
    if searching and sweep.tune is not None:
        raise _refuse(
            sweep, "tune", "does not go with design.kind: search, which tunes already; move its paths to search.space"
        )
    if searching and sweep.base.model is None and "model" not in (sweep.search.space if sweep.search else {}):
        raise _refuse(sweep, "base.model", "is required; name a model preset")


def _check_scheduler(sweep: SweepConfig) -> None:
    if sweep.scheduler is None:
        return
    try:
        rule = SCHEDULERS.get(sweep.scheduler.kind)
    except ConfigError as error:
        raise error.at(path="scheduler.kind", source=sweep.source) from None
    for option in sweep.scheduler.options.keys() - rule.options:
        problem = f"has no effect with scheduler.kind: {sweep.scheduler.kind}; leave it out"
        raise _refuse(sweep, f"scheduler.{option}", problem)
    if not isinstance(sweep.design, SearchDesign):
        problem = (
            f"= {sweep.scheduler.kind}: trials are stopped early in design.kind: search alone, and this is "
            f"{sweep.design.kind}"
        )
        raise _refuse(sweep, "scheduler.kind", f"{problem}; write scheduler: null")
    for declared in sweep.steps:
        problem = (
            f"= {sweep.scheduler.kind}: runs that are stopped early cannot be analysed, and {declared.place()} "
            "analyses them"
        )
        raise _refuse(sweep, "scheduler.kind", f"{problem}; write scheduler: null")


def _check_replicates(sweep: SweepConfig) -> None:
    seeds, most = sweep.replicates.seeds, "replicates.seeds"
    if isinstance(seeds, AdaptiveSeeds):
        if seeds.max <= seeds.min:
            problem = f"= {seeds.max} is not above min = {seeds.min}; raise it, or write seeds: {seeds.min}"
            raise _refuse(sweep, "replicates.seeds.max", problem)
        seeds, most = seeds.max, "replicates.seeds.max"
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise _refuse(sweep, most, f"= {seeds:,} is more than {MOST_SEEDS:,} replicates per arm; lower it")
    seeds = replicate_seeds(sweep)
    if not seeds:
        raise _refuse(sweep, "replicates.seeds", "= [] contains no seed; give a number of seeds, or list them")
    for number, seed in enumerate(seeds):
        if seed < 0:
            raise _refuse(sweep, "replicates.seeds", f"= {list(seeds)} contains {seed}; seeds are 0 or above")
        if seed in seeds[:number]:
            raise _refuse(sweep, "replicates.seeds", f"= {list(seeds)} contains {seed} twice; name each seed once")


def _check_metrics(sweep: SweepConfig) -> None:
    if not sweep.objective:
        raise _refuse(sweep, "objective", "is empty; give at least one metric")
    for number, goal in enumerate(sweep.objective):
        require_metric(goal.metric, place=sweep.place_of_objective(number, "metric"), source=sweep.source)
        if goal.metric in [other.metric for other in sweep.objective[:number]]:
            problem = f"= {goal.metric} is in the list already; name each metric once"
            raise _refuse(sweep, f"objective.{number}.metric", problem)
    if sweep.scheduler is not None and sweep.scheduler.metric is not None:
        require_metric(sweep.scheduler.metric, place="scheduler.metric", source=sweep.source)
    for place, read in metrics_read(sweep):
        require_metric(read.metric, place=place, source=sweep.source)
    for declared in sweep.steps:
        comparison = declared.comparison()
        if comparison is not None:
            require_metric(comparison.metric, place=declared.place("metric"), source=sweep.source)


def _check_directions(sweep: SweepConfig) -> None:
    """One metric has one direction in a file."""
    written: dict[str, tuple[str, str]] = {}
    places = [
        (sweep.place_of_objective(number, "direction"), entry.metric, entry.direction)
        for number, entry in enumerate(sweep.objective)
    ]
    for declared in sweep.steps:
        comparison = declared.comparison()
        if comparison is not None:
            places.append((declared.place("direction"), comparison.metric, comparison.direction))
    for place, metric, direction in places:
        if direction is None:
            continue
        first, before = written.setdefault(metric, (place, direction))
        if before != direction:
            problem = (
                f"= {direction}, but {first} = {before} for the same metric {metric}; write the same direction in both"
            )
            raise _refuse(sweep, place, problem)


def _check_short_trials(sweep: SweepConfig) -> None:
    """Tuning and search trials score the fixed windows alone, so a whole-split metric cannot choose among them."""
    if sweep.tune is None and sweep.search is None:
        return
    for number, goal in enumerate(sweep.objective):
        if on_whole_splits(goal.metric):
            problem = (
                f"= {goal.metric} is measured on whole splits, and only replicates score those; write "
                "validation/loss, by which tuning and search can choose"
            )
            raise _refuse(sweep, sweep.place_of_objective(number, "metric"), problem)


def _check_objectives(sweep: SweepConfig) -> None:
    several = len(sweep.objective) > 1
    sampler = sweep.sampler if sweep.search else None
    if several and sampler is not None and not SAMPLERS.get(sampler).several_objectives:
        raise _refuse(sweep, "objective", f"has {len(sweep.objective)} entries; the sampler {sampler} takes one")
    if several and sweep.scheduler is not None:
        raise _refuse(
            sweep, "scheduler.kind", "can follow one objective only; give one objective, or write scheduler: null"
        )


def _check_fixed_paths(sweep: SweepConfig) -> None:
    """Seeds come from replicates, and a tuning stage keeps the arm's size and its share of the budget."""
    places: list[tuple[str, Iterable[str]]] = [("base.overrides", sweep.base.overrides)]
    if isinstance(sweep.design, ArmsDesign):
        places += [(f"design.arms.{name}", changes) for name, changes in sweep.design.arms.items()]
    if isinstance(sweep.design, IsoflopDesign | LadderDesign):
        places += [(f"design.sizes.{name}", changes) for name, changes in sweep.design.sizes.items()]
    for place, paths in places:
        if "seed" in paths:
            raise _refuse(sweep, f"{place}.seed", "cannot be set here; give replicates.seeds")
        for path in paths if isinstance(sweep.design, IsoflopDesign | LadderDesign) else ():
            if overlap(path, BUDGET) or path == MAX_STEPS:
                raise _refuse(sweep, f"{place}.{path}", f"is set by design.kind: {sweep.design.kind} itself; remove it")
    if sweep.tune is None:
        return
    for path in sweep.tune.space:
        if path in GROUPS or path.startswith((BUDGET, "training.max_steps", "data.")):
            raise _refuse(
                sweep,
                f"tune.space.{path}",
                "is part of what defines an arm and cannot be tuned; make it a factor or an arm",
            )


def _check_gpus(sweep: SweepConfig) -> None:
    """A worker trains on one GPU or on a share of one; workers that exchange gradients hold a whole one each."""
    gpus, workers = sweep.resources.gpus_per_trial, sweep.resources.workers
    if gpus > 1:
        problem = f"= {gpus:g} GPUs per worker, but a worker trains on one GPU"
        if gpus != int(gpus):
            fix = "write 1, or a fraction below 1 to share a GPU"
        elif workers == 1:
            fix = f"write gpus_per_trial: 1, workers: {gpus:g}"
        else:
            fix = f"write gpus_per_trial: 1; each of the {workers} workers then has its own"
        raise _refuse(sweep, "resources.gpus_per_trial", f"{problem}; {fix}")
    if 0 < gpus < 1 and workers > 1:
        problem = f"= {gpus:g}, but the {workers} workers of a trial cannot share a GPU (NCCL needs one GPU per worker)"
        raise _refuse(sweep, "resources.gpus_per_trial", f"{problem}; write gpus_per_trial: 1, or workers: 1")


_RULES: tuple[Callable[[SweepConfig], None], ...] = (
    _check_search,
    _check_replicates,
    _check_metrics,
    _check_directions,
    _check_short_trials,
    *ANALYSIS_RULES,
    _check_scheduler,
    _check_objectives,
    _check_fixed_paths,
    _check_gpus,
)


def _check_baseline(sweep: SweepConfig, design: Design) -> None:
    names = [arm.name for arm in design.arms]
    named = getattr(sweep.design, "baseline", None)
    if named is not None and named not in names:
        raise _refuse(sweep, "design.baseline", f"= {named} is not an arm; {did_you_mean(named, names)}")


def _check_workers(sweep: SweepConfig, design: Design) -> None:
    fitted = next((arm.name for arm in design.arms if arm.trial.training.memory_bytes is not None), None)
    if fitted is not None and sweep.resources.workers > 1:
        problem = (
            f"= {sweep.resources.workers}, but the arm {fitted} has training.memory_bytes, which needs a single worker"
        )
        raise _refuse(sweep, "resources.workers", f"{problem}; write 1, or leave memory_bytes out")
    sharded = next((arm.name for arm in design.arms if arm.trial.training.parallel == "sharded"), None)
    if sharded is not None and sweep.resources.workers == 1:
        problem = f"= 1, but the arm {sharded} has training.parallel: sharded, which needs several workers"
        raise _refuse(sweep, "resources.workers", f"{problem}; write 2 or more, or training.parallel: replicated")


def _check_device(sweep: SweepConfig, name: str, trial: TrialConfig) -> None:
    """A trial that is given no GPU asks for nothing that only a GPU has."""
    if sweep.resources.gpus_per_trial:
        return
    problem = f"= 0 gives no GPU to the trials of {name}, but their"
    if trial.training.device == "cuda":
        fix = "write gpus_per_trial: 1, or training.device: auto (the CPU where there is no GPU)"
        raise _refuse(sweep, "resources.gpus_per_trial", f"{problem} training.device is cuda; {fix}")
    if trial.training.tf32:
        fix = "write gpus_per_trial: 1, or training.tf32: false"
        raise _refuse(sweep, "resources.gpus_per_trial", f"{problem} training.tf32 is true; {fix}")


def _check_spaces(sweep: SweepConfig, design: Design) -> None:
    """Build the trials at their first and last values: a wrong type is found here."""
    if sweep.tune is not None:
        for arm in design.arms:
            space = design.tuning_space(arm)
            try:
                points = [edit(arm.trial, point) for point in _typical(space, arm_resolve(arm))]
            except ConfigError as error:
                if error.path is not None and error.path.startswith("tune."):
                    raise
                place = f"tune.space.{error.path}" if error.path else "tune.space"
                raise _refuse(sweep, place, f"{error.problem} (arm {arm.name})") from None
            _check_names(sweep, points, "tune.space")
            for point in points:
                _check_device(sweep, f"{arm.name} in tune.space", point)
            if space.factors:
                check_optimised(sweep, _allowed(space, points), f"tune.space (arm {arm.name})")
    if sweep.search is not None:
        space = design.search_space
        resolver = Resolver(sweep)
        drawn = _typical(space, resolver.resolve("search.space"))
        points = [resolver.draft(point, place="search.space").build() for point in drawn]
        _check_names(sweep, points, "search.space")
        for point in points:
            _check_device(sweep, "search.space", point)
        check_optimised(sweep, _allowed(space, points), "search.space")


def _check_names(sweep: SweepConfig, points: Sequence[TrialConfig], place: str) -> None:
    """Every name that a space offers is known, whatever stands beside it."""
    for point in points:
        found = unknown_names(point)
        if found is not None:
            raise _refuse(sweep, f"{place}.{found[0]}", found[1])


def _typical(space: Space, resolve: Resolve) -> list[dict[str, Any]]:
    """The points of all first and of all last values, and both with one factor changed, to each of its other values
    where they are listed and to its other end where not: what a condition hides at one end shows at the other.

    They are built for their types alone: that two of their values contradict each other says nothing about the others.
    """
    free = Space(space.factors)
    points = []
    for end, opposite in ((_first, _last), (_last, _first)):
        points.append(draw(free, end, resolve)[0])
        for changed in free.factors:
            listed = changed.domain.values if isinstance(changed.domain, Choice) else (opposite(changed),)
            for value in listed:
                points.append(draw(free, _but_one(end, changed, value), resolve)[0])
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _but_one(end: Callable[[Factor], Any], changed: Factor, value: Any) -> Callable[[Factor], Any]:
    return lambda factor: value if factor is changed else end(factor)


def _allowed(space: Space, points: Sequence[TrialConfig]) -> list[TrialConfig]:
    """The points that the space's own constraints leave."""
    return [point for point in points if first_broken(space.require, to_plain(point)) is None]


def _first(factor: Factor) -> Any:
    domain = factor.domain
    if isinstance(domain, Choice):
        return domain.values[0]
    if isinstance(domain, Subsets):
        return []
    return domain.at(0.001) if isinstance(domain, Normal) else domain.low


def _last(factor: Factor) -> Any:
    domain = factor.domain
    if isinstance(domain, Choice):
        return domain.values[-1]
    if isinstance(domain, Subsets):
        return list(domain.items)
    return domain.at(0.999) if isinstance(domain, Normal) else domain.high


def planned_trials(sweep: SweepConfig, design: Design) -> dict[Role, int]:
    """Trials of each role that the sweep comes to, before any is known to be finished."""
    seeds = len(replicate_seeds(sweep))
    planned: dict[Role, int] = {}
    if sweep.search is not None:
        planned["search"] = sweep.search.trials
    if sweep.tune is not None:
        tuned = [arm for arm in design.arms if design.tuning_space(arm).factors]
        planned["tuning"] = len(tuned) * sweep.tune.trials_per_arm
    planned["replicate"] = (len(design.arms) if sweep.search is None else sweep.search.winners) * seeds
    return planned


def _check_number(sweep: SweepConfig, design: Design) -> None:
    planned = planned_trials(sweep, design)
    total = sum(planned.values())
    if sweep.limits.trials is not None and total > sweep.limits.trials:
        parts = " + ".join(f"{count} {role}" for role, count in planned.items())
        problem = (
            f"= {sweep.limits.trials} is below the {total} trials planned ({parts}); raise the limit, or plan "
            "fewer trials"
        )
        raise _refuse(sweep, "limits.trials", problem)
