"""The points of a search: the metric over each parameter that was searched, and the winner's runs on fresh seeds.

Called by `report.pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.metric_catalogue import metric_axis

from .figures import COLOURS, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stackwise_ray.core.records import TrialRecord

MOST_PATHS = 4
"""Parameters that are drawn, in the order of the search's space."""
_BEYOND = 0.25
"""How far outside the finished runs a stopped one is drawn at most, as a share of their range."""


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """One run: the values that it was given, what it reached, and whether it was stopped early."""

    values: Mapping[str, Any]
    reached: float
    stopped: bool


def points_of(trials: Iterable[TrialRecord], metric: str) -> list[SearchPoint]:
    """The runs that have a finite value of the metric."""
    return [
        SearchPoint(values=trial.parameters, reached=trial.metrics[metric], stopped=trial.status == "stopped")
        for trial in trials
        if math.isfinite(trial.metrics.get(metric, math.nan))
    ]


def drawn_paths(points: Sequence[SearchPoint]) -> list[str]:
    """The first few parameters that have more than one value."""
    found: dict[str, set[str]] = {}
    for point in points:
        for path, value in point.values.items():
            found.setdefault(path, set()).add(str(value))
    return [path for path, values in found.items() if len(values) > 1][:MOST_PATHS]


def is_logarithmic(domain: Any) -> bool:
    """Whether a domain of the search is even on a logarithmic scale."""
    return isinstance(domain, Mapping) and any(str(kind).startswith("log") for kind in domain)


def points_panel(
    axes: Axes,
    *,
    path: str,
    metric: str,
    points: Sequence[SearchPoint],
    again: Sequence[SearchPoint],
    logarithmic: bool,
) -> None:
    """The metric over one parameter; values that are no numbers are side by side.

    Runs that were stopped early, whose loss then may be far away, are drawn at the edge where they lie outside.
    """
    values = [point.values[path] for point in (*points, *again) if path in point.values]
    plain = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    names = [] if plain else list(dict.fromkeys(str(value) for value in values))

    def place(point: SearchPoint) -> float:
        value = point.values[path]
        return float(value) if plain else float(names.index(str(value)))

    kept = [point.reached for point in (*points, *again) if not point.stopped]
    low, high = (min(kept), max(kept)) if kept else (-math.inf, math.inf)
    for stopped, face in ((True, "white"), (False, COLOURS[1])):
        chosen = [point for point in points if path in point.values and point.stopped is stopped]
        axes.plot(
            [place(point) for point in chosen],
            [min(max(point.reached, low - _BEYOND * (high - low)), high + _BEYOND * (high - low)) for point in chosen],
            "o",
            color=COLOURS[1],
            markerfacecolor=face,
            markersize=5.5,
        )
    winners = [point for point in again if path in point.values]
    axes.plot(
        [place(point) for point in winners],
        [point.reached for point in winners],
        "x",
        color=COLOURS[2],
        markersize=7,
        markeredgewidth=1.8,
    )
    if names:
        axes.set_xticks(range(len(names)), names)
        axes.margins(x=0.2)
    elif logarithmic and min(values) > 0:
        log_axis(axes.xaxis)
    axes.set(title=path, xlabel=path, ylabel=metric_axis(metric))
