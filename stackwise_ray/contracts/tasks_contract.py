"""What every evaluation task promises: what it states of itself, metrics of its own, and a way to its data."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

from stackwise_ray.contracts import require
from stackwise_ray.core.metric_catalogue import find_metric
from stackwise_ray.core.registries import TASKS
from stackwise_ray.core.trial_metrics import TRIAL_METRICS
from stackwise_ray.tasks.task import Kind

_MAY_BE_EMPTY = {"references", "n_items", "folder", "hub"}
_OF_TRIALS = {metric.path.partition("/")[0] for metric in TRIAL_METRICS}


def it_says_who_it_is(name: str) -> None:
    """It is registered under its own name and states everything: kind, paper, licence, split, items, floor, context."""
    facts = TASKS.get(name).facts
    require(facts.name == name, f"its name is {facts.name!r}, and it is '{name}'")
    require(facts.kind in get_args(Kind), f"its kind is {facts.kind!r}; choose one of {', '.join(get_args(Kind))}")
    for part in (facts, facts.source):
        for field in fields(part):
            stated = getattr(part, field.name)
            require(stated or (field.name in _MAY_BE_EMPTY and stated != 0), f"it states no {field.name}")


def its_metrics_are_its_own(name: str) -> None:
    """Its metrics' paths begin with its name, and they are in the catalogue with a unit and a direction."""
    facts = TASKS.get(name).facts
    require(name not in _OF_TRIALS, f"metrics below {name}/ are those of trials")
    for metric in facts.metrics:
        require(metric.path.startswith(f"{name}/"), f"its metric {metric.path} is not below {name}/")
        require(find_metric(metric.path) == metric, f"its metric {metric.path} is not in the catalogue as it states it")
        require(metric.unit and metric.direction, f"its metric {metric.path} states no unit or no direction")
        require(name in metric.reported_by, f"its metric {metric.path} is not said to be reported by the task")
    strangers = {reference.metric for reference in facts.references} - {metric.path for metric in facts.metrics}
    require(not strangers, f"it has references for {', '.join(sorted(strangers))}, which it does not measure")


def it_says_where_its_data_are(name: str) -> None:
    """Its data are here, or it says where they were looked for and what would bring them."""
    found = TASKS.get(name)().where(None)
    require(found.place or found.missing, "its data are not here, and it does not say what would bring them")


CHECKS = (it_says_who_it_is, its_metrics_are_its_own, it_says_where_its_data_are)
