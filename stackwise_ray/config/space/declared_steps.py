"""The `analysis:` entries of a search-space file: each a mapping of one key, a name in `core.registries.ANALYSES`.

The schema holds them as they are written (`SweepConfig.analysis`), `SweepConfig.steps` one by one;
`config.space.analysis_rules` calls `check_steps`. The options of a step and the rules about it are with the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackwise_ray.core.analysis_step import AnalysisStep, PlannedSweep
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import at_fault
from stackwise_ray.core.registries import ANALYSES


@dataclass(frozen=True, kw_only=True)
class DeclaredStep:
    """One entry of the declared analysis.

    Attributes:
        kind: Its key, a name in `core.registries.ANALYSES`.
        options: What stands under the key, as the step's own options.
    """

    kind: str
    options: Any

    @property
    def step(self) -> AnalysisStep:
        """What answers it."""
        step: AnalysisStep = ANALYSES.get(self.kind)
        return step


def declared_steps(analysis: Sequence[Mapping[str, Any]]) -> tuple[DeclaredStep, ...]:
    """The entries of a validated `analysis:`, each a mapping of one name to its options, one by one."""
    return tuple(DeclaredStep(kind=kind, options=options) for entry in analysis for kind, options in entry.items())


def check_steps(steps: tuple[DeclaredStep, ...], planned: PlannedSweep, *, source: str | None) -> None:
    """Every declared step is asked whether the sweep as planned can answer it.

    Raises:
        ConfigError: As the first step that refuses says, its place filled in.
    """
    for number, declared in enumerate(steps):
        try:
            with at_fault(ANALYSES, declared.kind, "its `check`"):
                declared.step.check(declared.options, planned)
        except ConfigError as error:
            place = ".".join(filter(None, (f"analysis.{number}.{declared.kind}", error.path)))
            raise ConfigError(error.problem, path=place, source=source) from None
