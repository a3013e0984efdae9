"""What every evaluation task promises: what it states of itself, metrics of its own, and a way to its data."""

from __future__ import annotations

from stackwise_ray.contracts import require
from stackwise_ray.core.metric_catalogue import find_metric
from stackwise_ray.core.registries import TASKS


def it_says_who_it_is(name: str) -> None:
    """It is registered under its own name, with a title, a split, a floor and the licence of its data."""
    facts = TASKS.get(name).facts
    require(facts.name == name, f"its name is {facts.name!r}, and it is '{name}'")
    for field, value in (
        ("title", facts.title),
        ("split", facts.split),
        ("floor", facts.floor),
        ("source.licence", facts.source.licence),
    ):
        require(value, f"it states no {field}")


def its_metrics_are_its_own(name: str) -> None:
    """It has metrics, their paths begin with its name, and they are in the catalogue."""
    facts = TASKS.get(name).facts
    require(facts.metrics, "it has no metric")
    for metric in facts.metrics:
        require(metric.path.startswith(f"{name}/"), f"its metric {metric.path} is not below {name}/")
        require(find_metric(metric.path) is not None, f"its metric {metric.path} is not in the catalogue")


def it_says_where_its_data_are(name: str) -> None:
    """Its data are here, or it says where they were looked for and what would bring them."""
    found = TASKS.get(name).where(None)
    require(found.place or found.missing, "its data are not here, and it does not say what would bring them")


CHECKS = (it_says_who_it_is, its_metrics_are_its_own, it_says_where_its_data_are)
