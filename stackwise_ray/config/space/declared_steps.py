"""The `analysis:` entries of a search-space file: each a mapping of one key, a name in `core.registries.ANALYSES`.

`config.loading` reads them with `read_steps`; `config.space.sweep_rules` calls `check_steps`. The options of a step
and the rules about it are with the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stackwise_ray.config.trial.validation import Origin, describe, show, validate
from stackwise_ray.core.analysis_step import AnalysisStep, PlannedSweep
from stackwise_ray.core.errors import ConfigError, did_you_mean
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


def read_steps(listed: Any, *, source: str | None) -> tuple[DeclaredStep, ...]:
    """The declared analysis as validated options.

    Args:
        listed: What stands under `analysis:`.

    Raises:
        ConfigError: An entry does not hold exactly one key, names no analysis, or has an option that it must not have.
    """
    if not isinstance(listed, (list, tuple)):
        raise ConfigError(
            f"= {show(listed)} is {describe(listed)} where a list is wanted", path="analysis", source=source
        )
    return tuple(_read(entry, f"analysis.{number}", source) for number, entry in enumerate(listed))


def _read(entry: Any, place: str, source: str | None) -> DeclaredStep:
    names = ANALYSES.names()
    if not isinstance(entry, Mapping):
        problem = f"= {show(entry)} is {describe(entry)} where a mapping is wanted; write one of {', '.join(names)}"
        raise ConfigError(problem, path=place, source=source)
    for key in entry:
        if key not in names:
            problem = f"is an unknown analysis; {did_you_mean(str(key), names)}"
            raise ConfigError(problem, path=f"{place}.{key}", source=source)
    if len(entry) != 1:
        raise ConfigError(f"must hold exactly one of {', '.join(names)}", path=place, source=source)
    ((kind, plain),) = entry.items()

    def locate(path: str) -> Origin:
        return Origin(source, f"{place}.{kind}.{path}" if path else f"{place}.{kind}")

    options = validate(ANALYSES.get(kind).options, plain, source=source, locate=locate)
    return DeclaredStep(kind=kind, options=options)


def check_steps(steps: tuple[DeclaredStep, ...], planned: PlannedSweep, *, source: str | None) -> None:
    """Every declared step is asked whether the sweep as planned can answer it.

    Raises:
        ConfigError: As the first step that refuses says, its place filled in.
    """
    for number, declared in enumerate(steps):
        try:
            declared.step.check(declared.options, planned)
        except ConfigError as error:
            place = ".".join(filter(None, (f"analysis.{number}.{declared.kind}", error.path)))
            raise ConfigError(error.problem, path=place, source=source) from None
