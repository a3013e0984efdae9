"""What every component that a flag selects promises: its own name, and options that all have a default."""

from __future__ import annotations

import dataclasses

from stackwise_ray.config.trial.paths import is_trial_path
from stackwise_ray.contracts import require
from stackwise_ray.core.metric_catalogue import find_metric
from stackwise_ray.core.registries import COMPONENTS


def it_says_who_it_is(name: str) -> None:
    """It is registered under its own name."""
    found = getattr(COMPONENTS.get(name), "name", None)
    require(found == name, f"its name is {found!r}, and it is '{name}'")


def its_options_have_defaults(name: str) -> None:
    """Its options are a frozen dataclass that can be made without any argument."""
    options = COMPONENTS.get(name).options
    frozen = dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    require(frozen, f"its options {options!r} are no frozen dataclass")
    require(options() == options(), "two sets of its default options differ")


def its_metrics_are_registered(name: str) -> None:
    """Its metrics are in the catalogue, begin with its name, and one of them shows that it did something."""
    component = COMPONENTS.get(name)
    for metric in component.metrics:
        require(metric.path.startswith(f"{name}/"), f"its metric '{metric.path}' does not begin with '{name}/'")
        require(find_metric(metric.path) == metric, f"its metric '{metric.path}' is not registered")
    paths = [metric.path for metric in component.metrics]
    require(component.observable in paths, f"its observable '{component.observable}' is none of its metrics")


def its_conflicts_name_fields(name: str) -> None:
    """What it does not go with are fields of a trial."""
    for conflict in COMPONENTS.get(name).conflicts:
        require(is_trial_path(conflict.path), f"it does not go with '{conflict.path}', which no trial has")


CHECKS = (it_says_who_it_is, its_options_have_defaults, its_metrics_are_registered, its_conflicts_name_fields)
