"""What an `analysis:` step of a search space says about itself before anything runs: options, metrics, what it needs.

A step is one module of `analysis.steps`, or of a plugin, registered in `core.registries.ANALYSES` under its YAML key.
`config` validates its options and asks the methods here; what it computes and how that is reported is added by
`analysis.report.reported_steps`. A step sees the sweep as plain values (`PlannedSweep`): it then needs no schema, and
its check is tested with a few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from stackwise_ray.core.comparison_records import Correction, Hypothesis, Side, Test
from stackwise_ray.core.metric import Direction


class StepOptions:
    """Base of the options of a step, a frozen keyword-only dataclass: unknown keys and wrong types are errors."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, kw_only=True)
class PlannedArm:
    """An arm of a sweep that has not run.

    Attributes:
        config: The trial as plain data, defaults included.
        budget_unit: flops, tokens, steps or wall_seconds.
        budget: The amount, in that unit.
    """

    name: str
    config: Mapping[str, Any]
    budget_unit: str
    budget: float


@dataclass(frozen=True, kw_only=True)
class PlannedSweep:
    """A sweep that has not run, as a step's check sees it.

    Attributes:
        arms: Empty for a search, which draws them.
        baseline: The arm that the design names as baseline; None: it names none.
        seeds: Replicates that every arm gets, whatever comes out.
        adaptive: Whether seeds are added until the verdicts decide.
    """

    arms: tuple[PlannedArm, ...]
    baseline: str | None
    seeds: int
    adaptive: bool


@dataclass(frozen=True, kw_only=True)
class MetricRead:
    """A metric that a step compares between arms: every arm must report it, and mean the same by it.

    Attributes:
        key: The option that names it; None: it is always this one.
        instead: What to ask where arms fill in masks of their own, so that their losses are of different questions.
    """

    metric: str
    key: str | None = None
    instead: str


class DeclaredComparison(Protocol):
    """The options of a step that compares arms with a baseline or a target; None: the sweep fills it in."""

    @property
    def metric(self) -> str: ...
    @property
    def baseline(self) -> str | None: ...
    @property
    def direction(self) -> Direction | None: ...
    @property
    def correction(self) -> Correction: ...
    @property
    def margin(self) -> float | None: ...
    @property
    def target(self) -> float | None: ...
    @property
    def hypothesis(self) -> Hypothesis: ...
    @property
    def side(self) -> Side: ...
    @property
    def test(self) -> Test: ...
    @property
    def equal(self) -> str | None: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def alpha(self) -> float: ...


class AnalysisStep:
    """A kind of declared analysis.

    Attributes:
        options: A frozen keyword-only dataclass, based on `StepOptions`; what is under the YAML key.
        refuses_search: Why a search cannot be asked this, and what to do instead; None: it can.
    """

    options: ClassVar[type]
    refuses_search: ClassVar[str | None] = None

    def reads(self, options: Any) -> tuple[MetricRead, ...]:
        """The metrics that it compares between arms."""
        return ()

    def comparison(self, options: Any) -> DeclaredComparison | None:
        """The paired comparison that it declares, which objectives and adaptive seeds follow; None: none."""
        return None

    def check(self, options: Any, planned: PlannedSweep) -> None:
        """Refuse what the sweep as planned cannot answer.

        Raises:
            ConfigError: Why, and what to write instead; its path is relative to the step, e.g. "baseline".
        """
