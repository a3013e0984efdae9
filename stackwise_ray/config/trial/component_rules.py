"""What the components that a trial selects do not go with, as each of them declares it (`models.component`).

`rules.RULES` holds the rule; `flags.apply_flags` asks again once flags have edited the trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core import registries
from stackwise_ray.core.plugins import at_fault


def components_fit(trial: TrialConfig) -> tuple[str, str] | None:
    """Every component of the trial goes with the rest of it; both sides are named where one does not."""
    return next((found[:2] for found in component_problems(trial)), None)


def component_problems(trial: TrialConfig) -> Iterator[tuple[str, str, str]]:
    """(path of the field to change, what is wrong with it, name of the component) of all that does not fit."""
    for name, options in trial.model.components.items():
        component = registries.COMPONENTS.get(name)
        for conflict in component.conflicts:
            value = _value(trial, conflict.path)
            if value in conflict.values:
                shown = str(value).lower() if isinstance(value, bool) else value
                problem = (
                    f"= {shown} does not go with model.components.{name}: {conflict.reason}; leave one of them out"
                )
                yield conflict.path, problem, name
        with at_fault(registries.COMPONENTS, name, "its `refuse`"):
            found = component.refuse(trial, options)
        if found is not None:
            yield (*found, name)


def _value(trial: TrialConfig, path: str) -> Any:
    """The value at a dotted path; None where this trial has no such field."""
    value: Any = trial
    for field in path.split("."):
        value = value.get(field) if isinstance(value, Mapping) else getattr(value, field, None)
    return value
