"""What a sweep optimises and compares, fully resolved: once, written to the journal, and read from there.

`config.space.comparisons` makes these records from a search space, once, with its design; the driver writes them into
the journal's meta. The driver, the report, `analysis` and `verify` read them, and none of them decides again what a
file left open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness, good_direction, resolve_direction

Test = Literal["t", "sign_flip", "wilcoxon", "mixture_t"]
Correction = Literal["holm", "bonferroni", "benjamini_hochberg", "none"]
Hypothesis = Literal["different", "non_inferior"]
"""What a comparison sets out to show: a difference, or that an arm is not worse by the margin."""
Side = Literal["both", "better", "worse"]
"""Which differences a comparison looks for."""

NO_BUDGET = ("none", "None")
"""How a file, a command line or a caller may write, beside null and None, that no budget must be equal."""


def required_budget(equal: str | None) -> str | None:
    """The budget that must be equal in a comparison; None: none, however that was written.

    >>> required_budget("none"), required_budget(None), required_budget("flops")
    (None, None, 'flops')
    """
    return None if equal in NO_BUDGET else equal


def reference_name(baseline: str | None, target: float | None) -> str:
    """What a mean is compared with, in a sentence.

    Raises:
        AnalysisError: Neither is given.

    >>> reference_name("adam", None), reference_name(None, 3.28)
    ('adam', 'the target 3.28')
    """
    if target is not None:
        return f"the target {target:.12g}"
    if baseline is None:
        raise AnalysisError("there is neither a baseline nor a target to compare with")
    return baseline


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A metric and which way of it is better.

    Attributes:
        assumed: Whether the direction is unknown, so that lower counts as better.
    """

    metric: str
    direction: Direction
    assumed: bool = False

    @classmethod
    def of(cls, metric: str, written: Direction | None = None) -> Goal:
        """The goal on a metric; without a written direction, what its record says."""
        direction, assumed = resolve_direction(metric, written)
        return cls(metric=metric, direction=direction, assumed=assumed)

    @property
    def good(self) -> str:
        """Which way is better, as the end of a sentence."""
        return good_direction(self.direction, assumed=self.assumed)

    def badness(self, value: float) -> float:
        """A number of which the least is the best."""
        return badness(self.direction) * value


@dataclass(frozen=True, kw_only=True)
class ResolvedComparison:
    """A paired comparison of arms with a baseline, nothing left open.

    Attributes:
        assumed: Whether the direction is unknown, so that lower counts as better.
        baseline: None where a target is compared with, or where a file declares the comparison and names no baseline.
        target: The value that every arm's mean is compared with; None: a baseline is.
        hypothesis: "different", or "non_inferior" by the margin.
        side: Which differences are looked for; "both" where the hypothesis is non-inferiority, which has one side.
        margin: Differences within ± margin (in the metric's unit) count as equivalent, or the largest loss that is not
            inferior; None: not tested.
        equal: The budget that must agree in every pair, by its unit; None: none.
        tolerance: Largest relative difference of these budgets.
        alpha: Level of the whole family.
        test: "mixture_t" where seeds are added until it has decided.
        family: The arms that are compared with the baseline or the target, whether or not they finish.
        step: The key of the analysis that asks it, e.g. "compare".
        declared: Whether the file declares it; else it suggests itself by the design's baseline.
    """

    metric: str
    direction: Direction
    assumed: bool
    baseline: str | None
    target: float | None
    hypothesis: Hypothesis
    side: Side
    margin: float | None
    equal: str | None
    tolerance: float
    alpha: float
    correction: Correction
    test: Test
    family: tuple[str, ...]
    step: str
    declared: bool

    @property
    def goal(self) -> Goal:
        """The metric and which way of it is better."""
        return Goal(metric=self.metric, direction=self.direction, assumed=self.assumed)

    @property
    def reference(self) -> str:
        """What the arms are compared with, in a sentence.

        Raises:
            AnalysisError: Nothing is.
        """
        return reference_name(self.baseline, self.target)

    @property
    def level(self) -> float:
        """The level of one arm's verdict where all arms share alpha evenly."""
        return self.alpha / max(1, len(self.family))


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Everything that a sweep asks of its trials.

    Attributes:
        arms: All arms, those included that have not begun.
        baseline: The arm that comparisons are against where nothing else is said.
        goals: What is optimised; the report leads with the first.
        stopping: What early stopping decides by.
        comparisons: The declared ones, or the one that suggests itself.
    """

    arms: tuple[str, ...]
    baseline: str | None
    goals: tuple[Goal, ...]
    stopping: Goal
    comparisons: tuple[ResolvedComparison, ...]

    @property
    def first_goal(self) -> Goal:
        """What the report leads with, tuning and search optimise and the kept models are chosen by."""
        return self.goals[0]

    def goal_on(self, metric: str) -> Goal:
        """Which way of any metric is better here: as a comparison or an objective says, else as its record does."""
        stated: Iterable[Goal] = (*(comparison.goal for comparison in self.comparisons), *self.goals)
        return next((goal for goal in stated if goal.metric == metric), None) or Goal.of(metric)

    def to_plain(self) -> dict[str, Any]:
        """JSON data that `read_questions` reads back."""
        return asdict(self)


def read_questions(meta: Mapping[str, Any]) -> Questions:
    """What the journal's meta says that its sweep asks.

    Raises:
        AnalysisError: It does not say so, or in the form of another version; what is missing is not guessed.
    """
    plain = meta.get("questions")
    if plain is None:
        raise _of_another_version("the question of its sweep")
    try:
        return Questions(
            arms=tuple(plain["arms"]),
            baseline=plain["baseline"],
            goals=tuple(Goal(**goal) for goal in plain["goals"]),
            stopping=Goal(**plain["stopping"]),
            comparisons=tuple(
                ResolvedComparison(**{**comparison, "family": tuple(comparison["family"])})
                for comparison in plain["comparisons"]
            ),
        )
    except KeyError as error:
        raise _of_another_version(f"the entry {error} of the question of its sweep") from None
    except TypeError:  # a record has other fields
        raise _of_another_version("the question of its sweep in the form that this version reads") from None


def _of_another_version(lacking: str) -> AnalysisError:
    return AnalysisError(
        f"the journal does not contain {lacking}, so another version of stackwise_ray wrote it; run the same sweep "
        "command again with this version, which writes it (finished trials are kept), or run the sweep anew in another "
        "folder (--output)"
    )
