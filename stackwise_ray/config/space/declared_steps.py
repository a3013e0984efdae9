"""The `analysis:` entries of a search-space file: each a mapping of one key, a name in `core.registries.ANALYSES`.

The schema holds them as they are written (`SweepConfig.analysis`), `SweepConfig.steps` one by one;
`config.space.analysis_rules` checks them. The options of a step and the rules about it are with the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stackwise_ray.config.trial.validation import validate
from stackwise_ray.core.analysis_step import AnalysisStep, DeclaredComparison, MetricRead, PlannedSweep
from stackwise_ray.core.errors import ConfigError, PluginError
from stackwise_ray.core.plugins import at_fault, origin
from stackwise_ray.core.registries import ANALYSES

T = TypeVar("T")

COMPARE = "compare"
"""Our own paired comparison: its options bound what every comparison may say."""


@dataclass(frozen=True, kw_only=True)
class DeclaredStep:
    """One entry of the declared analysis.

    Nothing else calls a step's methods before the sweep has run: what a plugin's step does wrong in them becomes one
    message here.

    Attributes:
        number: Its place in the list.
        kind: Its key, a name in `core.registries.ANALYSES`.
        options: What stands under the key, as the step's own options.
    """

    number: int
    kind: str
    options: Any

    @property
    def step(self) -> AnalysisStep:
        """What answers it."""
        step: AnalysisStep = ANALYSES.get(self.kind)
        return step

    def place(self, key: str | None = None) -> str:
        """The dotted path of the entry in its file, or of a key below it."""
        return ".".join(filter(None, (f"analysis.{self.number}.{self.kind}", key)))

    def reads(self) -> tuple[MetricRead, ...]:
        """The metrics that it compares between arms.

        Raises:
            ConfigError: The step cannot say so, or what it gives are no `MetricRead` of text.
        """
        found = self._asked("reads", lambda: tuple(self.step.reads(self.options)))
        wrong = next((read for read in found if not _is_read(read)), None)
        if wrong is not None:
            raise self._mistake(f"its `reads` gives {wrong!r}; return a tuple of MetricRead, each of text")
        return found

    def refuses_search(self) -> str | None:
        """Why a search cannot be asked this; None: it can.

        Raises:
            ConfigError: The step cannot say so, or what it gives is no text.
        """
        found = self._asked("refuses_search", lambda: self.step.refuses_search)
        if found is not None and not isinstance(found, str):
            raise self._mistake(f"its `refuses_search` is {found!r}; give the reason as text, or None")
        return found

    def comparison(self) -> DeclaredComparison | None:
        """The paired comparison that it declares; None: none.

        Raises:
            ConfigError: The step cannot say so, or what it gives is no comparison, or one that ours could not be.
        """
        found = self._asked("comparison", lambda: self.step.comparison(self.options))
        if found is None or ANALYSES.ours(self.kind):  # whose options are validated
            return found
        lacking = self._asked("comparison", lambda: [name for name in _OF_A_COMPARISON if not hasattr(found, name)])
        if lacking:
            raise self._mistake(f"its `comparison` gives a {type(found).__name__}, and that lacks {', '.join(lacking)}")
        said = self._asked("comparison", lambda: {name: getattr(found, name) for name in _OF_A_COMPARISON})
        try:
            comparison: DeclaredComparison = validate(ANALYSES.get(COMPARE).options, said)
        except ConfigError as error:
            raise self._mistake(f"its `comparison` has {error}") from None
        return comparison

    def check(self, planned: PlannedSweep) -> None:
        """Ask the step whether the sweep as planned can answer it.

        Raises:
            ConfigError: As the step says, its place filled in.
        """
        self._asked("check", lambda: self.step.check(self.options, planned))

    def _mistake(self, problem: str) -> PluginError:
        return PluginError(f"{origin(ANALYSES, self.kind)}: {problem}", path=self.place())

    def _asked(self, method: str, ask: Callable[[], T]) -> T:
        try:
            with at_fault(ANALYSES, self.kind, f"its `{method}`"):
                return ask()
        except ConfigError as error:
            raise type(error)(error.problem, path=self.place(error.path)) from None


_OF_A_COMPARISON = tuple(name for name in vars(DeclaredComparison) if not name.startswith("_"))


def _is_read(read: object) -> bool:
    if not isinstance(read, MetricRead):
        return False
    return isinstance(read.metric, str) and isinstance(read.instead, str) and isinstance(read.key, str | None)


def declared_steps(analysis: Sequence[Mapping[str, Any]]) -> tuple[DeclaredStep, ...]:
    """The entries of a validated `analysis:`, each a mapping of one name to its options, one by one."""
    return tuple(
        DeclaredStep(number=number, kind=kind, options=options)
        for number, entry in enumerate(analysis)
        for kind, options in entry.items()
    )
