"""From a sweep to its source of trials, and to the cells that the planner costs.

The only side effects are decisions in the journal: the same sweep with the same journal gives the same proposals.
Nothing here starts Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from stackwise_ray.config.space.analysis_rules import metrics_read
from stackwise_ray.config.space.designs import Arm, Design, arm_resolve, tuned
from stackwise_ray.config.space.domains import enumerate_grid
from stackwise_ray.config.space.metric_names import on_whole_splits
from stackwise_ray.config.space.resolver import Resolver
from stackwise_ray.config.space.seeds import first_seeds, replicate_seeds, tuning_seeds, with_seed
from stackwise_ray.config.space.sweep_config import AdaptiveSeeds, Search, SearchDesign, SweepConfig
from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.config.trial.editing import edit
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.records import Role, TrialRecord
from stackwise_ray.core.untuned_rates import ArmRate, untuned_rate
from stackwise_ray.planning.demand import Demand
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import Cell, PlanRow, SweepPlan, plan_cells
from stackwise_ray.trials.adaptive_seeds import AdaptiveSource, AnytimeVerdicts
from stackwise_ray.trials.detectable_effects import EffectSizes, detectable
from stackwise_ray.trials.finished_trials import KnownTrials
from stackwise_ray.trials.samplers import SAMPLERS
from stackwise_ray.trials.sources import FixedSource, Proposal, SearchedSource, TrialSource, TunedSource, TuningResult
from stackwise_ray.trials.tuning import tuning_points


class Decisions(Protocol):
    """What a source asks of the journal."""

    def decisions(self, kind: str) -> dict[str, Any]:
        """What was settled, by key."""

    def put_decision(self, kind: str, key: str, payload: Any, *, replace: bool = False) -> object:
        """Store what is settled now."""


def source_for(
    sweep: SweepConfig, design: Design, journal: Decisions, verdicts: AnytimeVerdicts | None = None
) -> TrialSource:
    """The trials of a sweep, in the order in which they should run.

    Args:
        design: What the sweep expands to.
        verdicts: Needed for adaptive replicates alone.

    Raises:
        ConfigError: A sampler is not installed, or a grid has more points than trials.
    """
    if isinstance(sweep.design, SearchDesign):
        return _search_source(sweep, design, journal)
    first = _first_trials(sweep, design, journal)
    if not isinstance(sweep.replicates.seeds, AdaptiveSeeds):
        return first
    assert verdicts is not None, "the command hands them in"
    comparison, undecided = design.questions.comparisons[0], verdicts.undecided
    return AdaptiveSource(
        first,
        lambda trials, arm: undecided(trials, arm, comparison),
        arms=comparison.family,
        baseline=comparison.baseline,
        least=sweep.replicates.seeds.min,
        most=sweep.replicates.seeds.max,
    )


def _first_trials(sweep: SweepConfig, design: Design, journal: Decisions) -> TrialSource:
    """Every arm on the seeds that it is trained on whatever comes out, after its tuning where there is one."""
    arms = design.arms
    if sweep.tune is None:
        proposals = [p for place, arm in enumerate(arms) for p in _replicates(arm, {}, sweep, place)]
        return FixedSource(sorted(proposals, key=lambda proposal: proposal.key))
    by_name = {arm.name: (place, arm) for place, arm in enumerate(arms)}

    def freeze(arm: str, tuning: TuningResult) -> None:
        journal.put_decision("tuning", arm, tuning.to_dict(), replace=True)  # --retry-failed may change the best

    return TunedSource(
        {arm.name: _tuning_trials(arm, sweep, design) for arm in arms},
        lambda name, values: _replicates(by_name[name][1], values, sweep, by_name[name][0]),
        freeze,
        goal=design.questions.first_goal,
        n_replicates=len(first_seeds(sweep)),
    )


def plan_sweep(
    sweep: SweepConfig,
    design: Design,
    corpora: PreparedCorpora,
    *,
    max_concurrent: int | None = None,
    address: str | None = None,
    verdicts: AnytimeVerdicts | None = None,
    sizes: EffectSizes | None = None,
    directory: Path | None = None,
    progress: ProgressCallback | None = None,
) -> SweepPlan:
    """Every cell of a sweep with its cost, counted on the meta device. What this machine lacks is a note, no error.

    Args:
        design: What the sweep expands to.
        address: The cluster on which it is to run; None: none was named.
        verdicts: As in `source_for`.
        sizes: Computes the effects that the comparisons can detect; None: the plan has no note about them.
        directory: The sweep's folder, whose ended trials are no longer to run; None: all trials are to run.
        progress: Called with how many cells are planned.

    Raises:
        ConfigError: A sampler is not installed, `limits.flops` is below what is planned, or
            no verdict is possible within the seeds that there may be.
    """
    resources = sweep.resources
    demand = Demand.of(resources, max_concurrent)
    slots, elsewhere = demand.slots_here(address)
    known = KnownTrials.read(directory)
    notes = [*design.notes, *([] if elsewhere is None else [elsewhere])]
    rates = [ArmRate(rate=arm.trial.training.lr, parameters=arm.parameters) for arm in design.arms]
    untuned = untuned_rate(rates, tuned=() if sweep.tune is None else sweep.tune.space)
    notes += [] if untuned is None else [untuned]
    notes += [] if sizes is None else detectable(sweep, design.questions, sizes, known.records())
    if isinstance(sweep.design, SearchDesign):
        notes.append(_search_costs(sweep))
    notes += [f"excluded as asked: {arm.name} ({arm.reason})" for arm in design.excluded]
    possible, rule = _seeds_possible(sweep, design, verdicts)
    cells = list(_cells(sweep, design, corpora, possible))
    _check_splits(sweep, cells)
    plan = plan_cells(
        sweep.name,
        cells,
        slots=slots,
        threads=resources.cpus_per_trial,
        gpus=resources.gpus_per_trial,
        notes=[*notes, *rule],
        progress=progress,
    )
    peaks = () if resources.gpus_per_trial else (row.peak_bytes for row in plan.rows)
    too_large = None if address else demand.memory_here(peaks)
    refused = tuple(
        PlanRow(arm=arm.name, role="replicate", trials=0, budget={}, refused=arm.reason) for arm in design.refused
    )
    notes = [*plan.notes, *([] if too_large is None else [too_large])]
    plan = replace(plan, rows=(*plan.rows, *refused), notes=tuple(notes), seeds_possible=possible)
    _check_flops(sweep, plan)
    if not known.trials:
        return plan
    return plan.with_done(known.ended(source_for(sweep, design, known, verdicts), corpora.fingerprint))


def _seeds_possible(
    sweep: SweepConfig, design: Design, verdicts: AnytimeVerdicts | None
) -> tuple[int | None, list[str]]:
    """First number of seeds at which adaptive replicates can decide anything, and their rule in words."""
    seeds = sweep.replicates.seeds
    if not isinstance(seeds, AdaptiveSeeds):
        return None, []
    assert verdicts is not None, "the command hands them in"
    comparison = design.questions.comparisons[0]
    possible = verdicts.seeds_possible(comparison)
    level = f"level {comparison.alpha:g} / {len(comparison.family)} = {comparison.level:.3g}"
    if seeds.max < possible:
        problem = f"= {seeds.max}: no verdict is possible before {possible} seeds at {level}; raise it to {possible}"
        raise ConfigError(f"{problem} or more", path="replicates.seeds.max", source=sweep.source)
    question = {"non_inferior": " (non-inferiority)"}.get(comparison.hypothesis, "")
    rule = f"adaptive replicates: {seeds.min} to {seeds.max} seeds, until {comparison.metric} is decided{question}"
    return possible, [f"{rule} at any time at {level}; seeds_possible = {possible}: no arm can be decided before"]


def _check_flops(sweep: SweepConfig, plan: SweepPlan) -> None:
    """`limits.flops` against the plan; of a search, whose points differ, against one trial: the rest while it runs."""
    most, needed = sweep.limits.flops, plan.known_flops
    if isinstance(sweep.design, SearchDesign):
        needed = min((row.flops for row in plan.rows if row.flops is not None), default=0)
    if most is not None and needed > most:
        raise ConfigError(
            f"= {most:g} is below the {needed:.4g} training FLOPs planned; raise it or plan fewer",
            path="limits.flops",
            source=sweep.source,
        )


def unreported(sweep: SweepConfig, trials: Sequence[TrialRecord]) -> Iterator[str]:
    """Metrics that the sweep asks for and that no finished trial reported."""
    finished = [record for record in trials if record.status == "finished" and record.role != "tuning"]
    wanted = [objective.metric for objective in sweep.objective] + [step.metric for step in sweep.comparisons]
    for metric in dict.fromkeys(wanted):
        if finished and not any(metric in record.metrics for record in finished):
            yield f"no trial reported {metric}"


# ------------------------------------------------------------------------------------------ replicates and tuning


def _replicates(arm: Arm, values: Mapping[str, Any], sweep: SweepConfig, place: int = 0) -> list[Proposal]:
    """One arm's replicates; their key orders them by block first, then by the arm's place in the file."""
    trial = tuned(arm, values) if values else arm.trial
    parameters = {**arm.parameters, **values}
    return [
        Proposal(
            arm=arm.name,
            seed=seed,
            role="replicate",
            trial=with_seed(trial, seed),
            parameters=parameters,
            key=(block, place),
        )
        for block, seed in enumerate(first_seeds(sweep))
    ]


def _tuning_trials(arm: Arm, sweep: SweepConfig, design: Design) -> list[Proposal]:
    """Tuning trials of one arm: every arm gets the same points on the same seed, which no replicate uses."""
    assert sweep.tune is not None
    space = design.tuning_space(arm)
    if not space.factors:  # the arm sets everything itself
        return []
    points = tuning_points(space, sweep.tune.trials_per_arm, arm_resolve(arm), root_seed=sweep.seed)
    (seed,) = tuning_seeds(sweep, 1)
    return [
        Proposal(
            arm=arm.name,
            seed=seed,
            role="tuning",
            trial=with_seed(_shortened(tuned(arm, point), sweep.tune.budget_share), seed),
            parameters=point,
        )
        for point in points
    ]


def _shortened(trial: TrialConfig, share: float) -> TrialConfig:
    """The trial with a share of its budget, evaluated once, at the end."""
    budget = {unit: value for unit, value in asdict(trial.training.budget).items() if value is not None}
    ((unit, value),) = budget.items()
    scaled = max(1, round(value * share)) if unit == "steps" else value * share
    return edit(trial, {"training.budget": asdict(Budget(**{unit: scaled})), "training.evaluations": 1})


# ---------------------------------------------------------------------------------------------------------- search


def _search_source(sweep: SweepConfig, design: Design, journal: Decisions) -> TrialSource:
    search = _search(sweep)
    resolver = Resolver(sweep)
    (seed,) = tuning_seeds(sweep, 1)

    def propose(number: int, point: Mapping[str, Any]) -> Proposal:
        trial = with_seed(resolver.trial(point, place="search.space"), seed)
        return Proposal(
            arm=f"point-{number}", seed=seed, role="search", trial=trial, parameters=dict(point), key=number
        )

    def replicates(proposal: Proposal) -> list[Proposal]:
        arm = Arm(name=proposal.arm, parameters=proposal.parameters, trial=with_seed(proposal.trial, 0))
        return _replicates(arm, {}, sweep)

    goals = design.questions.goals
    resolve = resolver.resolve("search.space")
    source: TrialSource
    if SAMPLERS.get(sweep.sampler).make is None:
        source = FixedSource(propose(number, point) for number, point in enumerate(_grid_points(sweep, design)))
    else:
        from stackwise_ray.trials.search import OptunaSource

        source = OptunaSource(
            design.search_space,
            sampler=sweep.sampler,
            trials=search.trials,
            resolve=resolve,
            propose=propose,
            goals=goals,
            known=journal.decisions("search"),
            record=lambda key, values: journal.put_decision("search", key, dict(values)),
            root_seed=sweep.seed,
        )
    return SearchedSource(
        source,
        replicates,
        winners=search.winners,
        n_replicates=len(replicate_seeds(sweep)),
        goal=goals[0],
    )


def _grid_points(sweep: SweepConfig, design: Design) -> list[dict[str, Any]]:
    """The valid points of a search on a grid.

    Raises:
        ConfigError: A domain is a range of values without a list, or there are more points than `search.trials`.
    """
    search, resolver = _search(sweep), Resolver(sweep)
    resolve = resolver.resolve("search.space")
    grid = enumerate_grid(design.search_space, resolve=resolve, source=sweep.source)
    points = [point for point, broken in grid if broken is None and _valid(resolver, point)]
    if len(points) > search.trials:
        raise ConfigError(
            f"= {search.trials} is less than the grid's {len(points)} points; write {len(points)} or more, or choose "
            "another search.sampler",
            path="search.trials",
            source=sweep.source,
        )
    return points


def _valid(resolver: Resolver, point: Mapping[str, Any]) -> bool:
    try:
        resolver.trial(point, place="search.space")
    except ConfigError:  # e.g. heads that do not divide the width: such a cell is no part of the grid
        return False
    return True


def _search(sweep: SweepConfig) -> Search:
    assert sweep.search is not None, "checked when the file was loaded"
    return sweep.search


# -------------------------------------------------------------------------------------------------------- planning


def _cells(sweep: SweepConfig, design: Design, corpora: PreparedCorpora, possible: int | None) -> Iterator[Cell]:
    seeds = len(replicate_seeds(sweep))
    least = None if possible is None else max(possible, len(first_seeds(sweep)))
    if isinstance(sweep.design, SearchDesign):
        search = _search(sweep)
        resolver = Resolver(sweep)
        (middle,) = tuning_points(
            design.search_space, 1, resolver.resolve("search.space"), root_seed=sweep.seed, place="search.space"
        )
        trial = resolver.trial(middle, place="search.space")
        yield _cell("search", "search", trial, _search_trials(sweep, design), corpora)
        if search.winners:
            yield _cell("winners", "replicate", trial, search.winners * seeds, corpora)
        return
    for arm in design.arms:
        yield replace(_cell(arm.name, "replicate", arm.trial, seeds, corpora), trials_least=least)
        tuning = _tuning_trials(arm, sweep, design) if sweep.tune else []
        if tuning:
            yield _cell(arm.name, "tuning", tuning[0].trial, len(tuning), corpora)


def _check_splits(sweep: SweepConfig, cells: Sequence[Cell]) -> None:
    """Refuses a metric of the test split where a text has none.

    Raises:
        ConfigError: Names what asks for the metric, and the arm.
    """
    asked = [(place, read.metric) for place, read in metrics_read(sweep)]
    asked += [(sweep.place_of_objective(number, "metric"), goal.metric) for number, goal in enumerate(sweep.objective)]
    for place, metric in asked:
        if not (on_whole_splits(metric) and metric.startswith("test/")):
            continue
        for cell in cells:
            if cell.data.split_tokens is not None and "test" not in cell.data.split_tokens:
                raise ConfigError(
                    f"= {metric} is not reported by the arm {cell.arm}: its text has no test split; write "
                    f"{metric.replace('test/', 'validation/').replace('/loss', '/loss_full')}, or add test files",
                    path=place,
                    source=sweep.source,
                )


def _search_trials(sweep: SweepConfig, design: Design) -> int:
    """How many points a search will try; refuses a sampler that cannot work here, as the run would."""
    search = _search(sweep)
    make = SAMPLERS.get(sweep.sampler).make
    if make is None:
        return len(_grid_points(sweep, design))
    from stackwise_ray.trials.search import silence_optuna  # here: seconds, and only a search needs it

    silence_optuna()
    make(0)  # refuses one that cannot work here
    return search.trials


def _search_costs(sweep: SweepConfig) -> str:
    """Says for which point the plan counts the costs: nobody knows the points of a search before it runs."""
    rows = "search and winners" if _search(sweep).winners else "search"
    point = "the middle of every range in search.space, and the middle value of every list"
    return f"{rows}: planned for one point, {point}; other points may cost more or less"


def _cell(arm: str, role: Role, trial: TrialConfig, trials: int, corpora: PreparedCorpora) -> Cell:
    return Cell(arm=arm, role=role, trial=trial, trials=trials, data=corpora.facts(trial))
