"""Which arms no other arm beats on both loss and budget. Called by `curves` and `report_sections`."""

from __future__ import annotations

from collections.abc import Mapping

from stackwise_ray.core.metric_catalogue import Direction, badness

TOLERANCE = 0.01
"""Budgets within this share of each other count as equal, as they do in `compare`."""


def pareto_front(points: Mapping[str, tuple[float, float]], *, direction: Direction = "minimize") -> list[str]:
    """Names of the points (budget, value) on the Pareto front, the cheapest first.

    A point is off the front where another has a better value for a budget no larger (within `TOLERANCE`), or the same
    value for a smaller budget. It is a front of means: whether a difference is more than noise is for `compare`.

    >>> pareto_front({"a": (1.0, 2.0), "b": (2.0, 1.0), "c": (2.0, 3.0)})
    ['a', 'b']
    """
    sign = badness(direction)

    def beats(other: tuple[float, float], own: tuple[float, float]) -> bool:
        cheaper = other[0] * (1 + TOLERANCE) < own[0]
        affordable = other[0] <= own[0] * (1 + TOLERANCE)
        gain = sign * (own[1] - other[1])
        return (gain > 0 and affordable) or (gain == 0 and cheaper)

    front = [name for name, own in points.items() if not any(beats(other, own) for other in points.values())]
    return sorted(front, key=lambda name: points[name])
