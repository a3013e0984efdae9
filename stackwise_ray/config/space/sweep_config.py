"""The schema of a search-space file: question, base, design, replicates, resources, limits, declared analysis.

Frozen, keyword-only dataclasses that pydantic validates once (`config.loading.load_sweep`); the rules that span
several keys are in `config.space.sweep_rules`. What a design expands to is `config.space.designs`. Mappings of dotted
paths (overrides, arms, spaces) stay plain data here: they are parsed against the trial's schema where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from stackwise_ray.config.space.declared_steps import DeclaredStep, declared_steps
from stackwise_ray.config.space.metric_names import on_whole_splits
from stackwise_ray.config.trial import NonNegative, Positive, Strict
from stackwise_ray.config.trial.editing import plain_data
from stackwise_ray.config.trial.registered import OptionsByName
from stackwise_ray.core.analysis_step import DeclaredComparison
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.prompt import as_html, as_text
from stackwise_ray.core.registries import ANALYSES

SWEEP_SCHEMA_VERSION = 1
"""Raised when a key changes its meaning; a file of a newer version is refused."""
_MOST_NAMES = 8
"""Names of arms, factors or paths that a prompt shows."""
NOT_KEYS = ("source", "objective_from")
"""What a sweep knows of its file, and what no file may say."""

Above = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+=,~-]*$")]
"""A name that is also a folder or a file: letters, digits and _ . + = , ~ -"""


@dataclass(frozen=True, kw_only=True)
class Base(Strict):
    """What every arm starts from: a preset of each group, then overrides."""

    model: str | None = None  # None: every arm names its own
    data: str = "python_stdlib"  # real text on any machine
    training: str = "classical"
    optimizer: str = "adamw"
    overrides: dict[str, Any] = field(default_factory=dict)  # dotted path of the trial: value


# ---------------------------------------------------------------------------------------------------- the design


@dataclass(frozen=True, kw_only=True)
class ArmsDesign(Strict):
    """Named arms, each a mapping of preset groups and dotted overrides over the base."""

    kind: Literal["arms"] = "arms"
    arms: dict[str, dict[str, Any]]
    baseline: str | None = None  # the arm that comparisons are against
    require: tuple[str, ...] = ()  # constraints that every arm must meet


@dataclass(frozen=True, kw_only=True)
class GridDesign(Strict):
    """Every combination of the factors' levels."""

    kind: Literal["grid"] = "grid"
    factors: dict[str, Any]
    baseline: str | None = None  # name of a generated arm, e.g. "lr=0.001,n_layers=4"
    require: tuple[str, ...] = ()  # a combination that breaks one is not made


@dataclass(frozen=True, kw_only=True)
class OneAtATimeDesign(Strict):
    """The base, and for each level of each factor the base with that one value changed."""

    kind: Literal["one_at_a_time"] = "one_at_a_time"
    factors: dict[str, Any]
    baseline: str | None = None  # None: the unchanged base, whose name is "base"
    require: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FactorialDesign(Strict):
    """A full factorial: every factor has two levels or more, so that main effects and interactions are estimable."""

    kind: Literal["factorial"] = "factorial"
    factors: dict[str, Any]
    baseline: str | None = None
    require: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FractionalFactorialDesign(Strict):
    """A regular two-level fraction 2^(k−p): fewer runs, with the aliases that this costs stated."""

    kind: Literal["fractional_factorial"] = "fractional_factorial"
    factors: dict[str, Any]
    resolution: Annotated[int, Field(ge=3, le=5)] = 4  # 4: main effects clear of two-factor interactions
    baseline: str | None = None
    require: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class IsoflopDesign(Strict):
    """Every size at every budget of FLOPs; the tokens of each follow from its counted FLOPs per token."""

    kind: Literal["isoflop"] = "isoflop"
    flops: tuple[Above, ...]  # budgets: the column `budget` of every run
    sizes: dict[str, dict[str, Any]]  # like arms: a preset or overrides each; a list of model presets is short for it
    require: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LadderDesign(Strict):
    """Every size with tokens in proportion to its parameters, at every ratio."""

    kind: Literal["ladder"] = "ladder"
    tokens_per_parameter: tuple[Above, ...]  # non-embedding parameters; 20 is Chinchilla's optimum
    sizes: dict[str, dict[str, Any]]
    require: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchDesign(Strict):
    """Points drawn by a sampler (`search`); its winners are then trained as replicates."""

    kind: Literal["search"] = "search"


DesignConfig = Annotated[
    ArmsDesign
    | GridDesign
    | OneAtATimeDesign
    | FactorialDesign
    | FractionalFactorialDesign
    | IsoflopDesign
    | LadderDesign
    | SearchDesign,
    Field(discriminator="kind"),
]


_MOST_OF_GP = 200


@dataclass(frozen=True, kw_only=True)
class Search(Strict):
    """How `design.kind: search` draws points."""

    sampler: str | None = None  # a registered sampler; None: `SweepConfig.sampler` chooses
    trials: Positive = 40  # points drawn in all; a point drawn twice is one trial
    space: dict[str, Any]
    require: tuple[str, ...] = ()  # a point that breaks one is never drawn
    winners: Count = 1  # best points that are then trained on every replicate seed; 0: none


@dataclass(frozen=True, kw_only=True)
class Tune(Strict):
    """Equal tuning of every arm before the replicates; its FLOPs are in a column of their own.

    All arms try the same points, spread evenly over the space (`trials.tuning`).
    """

    space: dict[str, Any]
    trials_per_arm: Positive = 3
    budget_share: Annotated[float, Field(gt=0, le=1)] = 0.2  # of a replicate's budget, for each trial
    require: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AdaptiveSeeds(Strict):
    """Seeds 0 … `min` − 1 for every arm; then one more at a time, up to `max`, for arms whose verdict is open.

    The verdict is that of the first declared comparison, valid at any time, at level alpha / (arms less the baseline).
    """

    min: Positive
    max: Positive
    until: Literal["decided"] = "decided"


@dataclass(frozen=True, kw_only=True)
class Replicates(Strict):
    """The seeds on which every arm is trained; the same seed gives every arm the same streams."""

    seeds: Positive | tuple[int, ...] | AdaptiveSeeds = 3  # a number n: 0 … n−1; 3 is the least that shows a spread
    block: Literal["seed"] = "seed"


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry(Strict):
    """What a search or a tuning stage optimises, and the report leads with."""

    metric: str = "validation/loss"
    direction: Direction | None = None  # None: what the metric's record says


@dataclass(frozen=True, kw_only=True)
class Scheduler(Strict):
    """Early stopping of unpromising trials; only for `design.kind: search`."""

    kind: str  # a registered rule: asha, median
    metric: str | None = None  # None: the first objective's
    grace: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of its budget that every trial gets
    reduction: Annotated[float, Field(gt=1)] | None = None  # asha: of the trials at a rung, one in this many goes on

    @property
    def options(self) -> dict[str, Any]:
        """What the file gives beyond the keys that every rule has."""
        return {} if self.reduction is None else {"reduction": self.reduction}


@dataclass(frozen=True, kw_only=True)
class Resources(Strict):
    """What one trial occupies, and how many run at once.

    A trial of several workers occupies its CPUs and GPUs once per worker.
    """

    cpus_per_trial: Positive = 1  # CPUs per worker, its threads of torch; recorded with the trial
    gpus_per_trial: NonNegative = 0.0  # GPUs per worker: 1; a fraction (of one worker) shares a device; 0: the CPU
    workers: Positive = 1  # processes of a trial; above 1 it runs data-parallel
    max_concurrent: Literal["auto"] | Positive = "auto"  # auto: as many as the machine's CPUs and GPUs hold


@dataclass(frozen=True, kw_only=True)
class Limits(Strict):
    """Bounds beyond which a sweep does not go; None: none."""

    trials: Positive | None = None  # trials of all roles that the plan may contain
    trial_minutes: Above | None = None  # an attempt that takes longer is ended and tried once more
    wall_hours: Above | None = None  # hours of the whole sweep; what is unfinished then continues later
    flops: Above | None = None  # planned training FLOPs of all trials together


@dataclass(frozen=True, kw_only=True)
class Tracking(Strict):
    """Where and how much is recorded."""

    experiment: Annotated[str, Field(min_length=1)] | None = None  # MLflow experiment; None: the sweep's name
    keep_models: Literal["all", "best", "none"] = "best"  # best: of each arm, by the first objective


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepConfig(Strict):
    """A whole search-space file, validated."""

    name: Name
    question: str = ""
    base: Base = field(default_factory=Base)
    design: DesignConfig
    search: Search | None = None  # only with design.kind: search
    replicates: Replicates = field(default_factory=Replicates)
    objective: tuple[ObjectiveEntry, ...] = (ObjectiveEntry(),)  # left out: `with_default_objective`
    tune: Tune | None = None  # None: one learning rate for all arms, not tuned
    scheduler: Scheduler | None = None
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    tracking: Tracking = field(default_factory=Tracking)
    analysis: tuple[Annotated[Mapping[str, Any], OptionsByName(ANALYSES)], ...] = ()  # one key per entry
    presets: tuple[str, ...] = ()  # folders of the user's presets; relative ones are taken from the file's folder
    seed: int = 0  # root of the search stream: samplers and tuning seeds
    schema_version: int = SWEEP_SCHEMA_VERSION
    source: str | None = None  # file that was read; not a key
    objective_from: str | None = field(default=None, compare=False)  # what it was derived from; None: written

    @property
    def steps(self) -> tuple[DeclaredStep, ...]:
        """The declared analysis, step by step."""
        return declared_steps(self.analysis)

    @property
    def comparisons(self) -> tuple[DeclaredComparison, ...]:
        """The declared comparisons, in order."""
        found = (declared.comparison() for declared in self.steps)
        return tuple(comparison for comparison in found if comparison is not None)

    @property
    def sampler(self) -> str:
        """The sampler of the search: as written, else the one that needs fewest trials (benchmarks/samplers.py).

        The Gaussian process takes one objective, learns nothing from trials that are stopped early, and knows no
        conditions; its cost grows with the cube of the trials. Where one of these matters: tpe.
        """
        assert self.search is not None, "a search is asked"
        search = self.search
        if search.sampler is not None:
            return search.sampler
        conditional = any(isinstance(domain, Mapping) and "when" in domain for domain in search.space.values())
        several = len(self.objective) > 1
        plain = not (conditional or several or self.scheduler is not None or search.trials > _MOST_OF_GP)
        return "gp" if plain else "tpe"

    @property
    def baseline(self) -> str | None:
        """The arm that comparisons are against, where nothing else is said."""
        named = getattr(self.design, "baseline", None)
        return "base" if named is None and isinstance(self.design, OneAtATimeDesign) else named

    def baseline_of(self, compare: DeclaredComparison) -> str | None:
        """The baseline of one comparison; none where it is with a target."""
        if compare.target is not None:
            return None
        return self.baseline if compare.baseline is None else compare.baseline

    def place_of_objective(self, number: int, key: str) -> str:
        """Dotted path of what gives a key of an objective: what the file says, also where it names no objective."""
        if self.objective_from is None:
            return f"objective.{number}.{key}"
        return self.objective_from if self.objective_from == "objective" else f"{self.objective_from}.{key}"

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.name

    def __repr__(self) -> str:
        return as_text(self._title, list(_summary(self)))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self._title, list(_summary(self)))

    @property
    def _title(self) -> str:
        return f"sweep {self.name}" if self.source is None else f"sweep {self.name} of {self.source}"


def with_default_objective(sweep: SweepConfig) -> SweepConfig:
    """The sweep of a file that names no objective: it optimises what it compares first, else validation/loss.

    Tuning and search cannot optimise what their short trials do not measure.
    """
    short = sweep.tune is not None or sweep.search is not None
    for declared in sweep.steps:
        compare = declared.comparison()
        if compare is None:
            continue
        if short and on_whole_splits(compare.metric):
            break
        entry = ObjectiveEntry(metric=compare.metric, direction=compare.direction)
        return replace(sweep, objective=(entry,), objective_from=declared.place())
    return replace(sweep, objective=(ObjectiveEntry(),), objective_from="objective")


def sweep_to_plain(sweep: SweepConfig) -> Mapping[str, Any]:
    """The sweep as JSON data that `load_sweep` reads back equal (`NOT_KEYS` left out)."""
    plain = plain_data(sweep)
    for name in NOT_KEYS:
        del plain[name]
    return plain  # type: ignore[no-any-return]


def _summary(sweep: SweepConfig) -> Iterator[tuple[str, str]]:
    """What is asked, of what, how often and at what limits: for a prompt and a notebook."""
    if sweep.question:
        yield "question", sweep.question
    base = sweep.base
    yield "base", f"model {base.model or 'of each arm'}, data {base.data}, training {base.training}"
    if base.overrides:
        yield "", _values(base.overrides)
    yield "design", _design(sweep)
    if sweep.search is not None:
        search = sweep.search
        yield (
            "search",
            f"{sweep.sampler}, {search.trials} trials over {_names(search.space)}; {search.winners} winners",
        )
    if sweep.tune is not None:
        yield "tune", f"{sweep.tune.trials_per_arm} trials per arm over {_names(sweep.tune.space)}"
    seeds = sweep.replicates.seeds
    if isinstance(seeds, int):
        yield "seeds", str(seeds)
    elif isinstance(seeds, tuple):
        yield "seeds", f"{len(seeds)}: {', '.join(map(str, seeds))}"
    else:
        yield "seeds", f"{seeds.min} to {seeds.max}, {seeds.until}"
    yield "objective", ", ".join(entry.metric for entry in sweep.objective)
    if sweep.steps:
        yield "analysis", ", ".join(dict.fromkeys(step.kind for step in sweep.steps))
    resources = sweep.resources
    yield "per trial", f"{resources.workers} × ({resources.cpus_per_trial} CPU, {resources.gpus_per_trial:g} GPU)"
    limits = {name: value for name, value in asdict(sweep.limits).items() if value is not None}
    if limits:
        yield "limits", _values(limits)


def _design(sweep: SweepConfig) -> str:
    design: Any = sweep.design
    named = getattr(design, "arms", None) or getattr(design, "sizes", None) or getattr(design, "factors", None)
    baseline = "" if sweep.baseline is None else f"; baseline {sweep.baseline}"
    return f"{design.kind}{f': {_names(named)}' if named else ''}{baseline}"


def _names(named: dict[str, Any]) -> str:
    shown = list(named)[:_MOST_NAMES]
    more = len(named) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{path}={value}" for path, value in values.items())
