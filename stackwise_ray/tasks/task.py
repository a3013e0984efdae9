"""What an evaluation task is: what it states before it runs, what it does with a model, and what it gives back.

A task is a subclass of `Task` with `facts`, registered in `core.registries.TASKS`. `tasks.evaluating` runs it. Loading
a task loads no torch: whatever scores a model is imported when a model is scored.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric import Metric

if TYPE_CHECKING:
    from stackwise_ray.training.scoring import TrainedModel

Kind = Literal["classification", "regression", "multiple_choice", "last_word", "perplexity", "generation"]


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """Where a task comes from, and where its data are looked for: `data.path`, then $STACKWISE_DATA, then the hub.

    Attributes:
        paper: Authors, year and title.
        dataset: What the data are.
        licence: Of the data, as their publisher says it.
        folder: Folder under $STACKWISE_DATA; None: not looked for there.
        hub: Dataset on the Hugging Face hub; None: it has none.
    """

    paper: str
    dataset: str
    licence: str
    folder: str | None = None
    hub: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published score.

    Attributes:
        metric: Path of the metric that it is of.
        model: Whose score it is, and how it was taken where that differs from here.
        source: Where it is published.
    """

    metric: str
    value: float
    model: str
    source: str
    split: str


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a task states.

    Attributes:
        name: Its name in `--tasks`, and the first part of its metrics' paths.
        title: What it is, for people.
        split: Which split is scored.
        n_items: How many items that split has; None where the user's data decide.
        item: What an item is, in the plural: "questions", "words with one <eos> per line".
        floor: What a model has to be better than, and how that is measured.
        context: What a context that is too short for an item cuts.
        references: Published scores, where there are any.
        version: Raised when the same model and data would be scored otherwise; kept results are then made again.
    """

    name: str
    title: str
    kind: Kind
    source: TaskSource
    metrics: tuple[Metric, ...]
    split: str
    n_items: int | None
    item: str
    floor: str
    context: str
    references: tuple[Reference, ...] = ()
    version: int = 1


@dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """Whether a task's data are on this machine.

    Attributes:
        place: Where they are; None: they are not here.
        missing: Where they were looked for and what would bring them; empty where they are here.
    """

    place: str | None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's data as one model reads them.

    Attributes:
        content: Whatever the task's `score` takes.
        fingerprint: Of everything in it that decides a score.
    """

    content: Any
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its standard error; None where none is defined."""

    value: float
    standard_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """What a task measured of one model.

    Attributes:
        metrics: By path; one that could not be measured is absent.
        floors: By metric path, measured on what was scored.
        n_items: How many items were scored.
        n_cut: Of these, how many the context cut.
        counts: What was counted on the way, by name (tokens, words, least context …).
        items: For each item its ``item`` (an id that is the same for every model) and what was measured of it; empty
            for a task whose score is not a mean over items.
    """

    metrics: Mapping[str, Estimate]
    floors: Mapping[str, float]
    n_items: int
    n_cut: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    items: Sequence[Mapping[str, Any]] = ()


class Task(ABC):
    """One evaluation task; one that is registered brings the metrics of its `facts` into the catalogue.

    Attributes:
        by_item: Whether its score is a mean over items, so that part of them can be scored (`--limit`).
    """

    facts: ClassVar[TaskFacts]
    by_item: ClassVar[bool] = True

    def check(self, trained: TrainedModel, limit: int | None) -> None:
        """Refuse a model or a limit that makes no sense here, before anything is read.

        Raises:
            ConfigError: With the reason.
        """
        if limit is not None and not self.by_item:
            raise ConfigError(
                f"= {limit}: {self.facts.name} is one {self.facts.kind} over the whole {self.facts.split} split; "
                "it has no items of which some could be left out; leave --limit out",
                path="--limit",
            )

    @abstractmethod
    def where(self, path: str | None) -> Whereabouts:
        """Whether the data are here; fetches nothing.

        Args:
            path: The user's `data.path`; what is not there is not looked for elsewhere.
        """

    @abstractmethod
    def prepare(self, trained: TrainedModel, path: str | None, progress: ProgressCallback | None) -> TaskData:
        """The data for this model; quick where they have been prepared before.

        Raises:
            ConfigError: They are not found: the message lists the places and says how to fetch them.
        """

    @abstractmethod
    def score(
        self, trained: TrainedModel, data: TaskData, limit: int | None, progress: ProgressCallback | None
    ) -> TaskScores:
        """Score a model.

        Args:
            limit: Score the first so many items alone; None: all.
        """


def item_means(items: Sequence[Mapping[str, Any]], paths: Iterable[str]) -> dict[str, Estimate]:
    """The mean over items of each metric, with its standard error (none for one item).

    Args:
        items: Each with a number under the last part of every path.

    >>> item_means([{"item": 0, "accuracy": 1.0}, {"item": 1, "accuracy": 0.0}], ["cola/accuracy"])
    {'cola/accuracy': Estimate(value=0.5, standard_error=0.5)}
    """
    found = {}
    for path in paths:
        values = [float(item[path.rpartition("/")[2]]) for item in items]
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        error = math.sqrt(squares / (len(values) - 1) / len(values)) if len(values) > 1 else None
        found[path] = Estimate(value=mean, standard_error=error)
    return found
