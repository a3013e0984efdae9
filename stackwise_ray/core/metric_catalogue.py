"""Every metric that somebody reports: its path, unit, direction, label and digits, said once.

Whatever shows, compares, validates or stores a metric asks here. A task, a component or a plugin registers its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What there is to know about one metric.

    Attributes:
        path: Its name everywhere, e.g. ``validation/loss``.
        unit: What it is measured in, and of what, e.g. "nats per predicted token, on the fixed windows".
        direction: Which way is better; None where neither is (a count, a learning rate).
        label: What an axis or a table calls it; the path where it is empty.
        digits: Significant digits, where it is shown as a plain number.
        reported_by: Who measures it, and when, e.g. "every trial, at the end".
    """

    path: str
    unit: str
    direction: Direction | None = None
    label: str = ""
    digits: int = 4
    reported_by: str = "every trial"


_KNOWN: dict[str, Metric] = {}


def register_metrics(*metrics: Metric) -> None:
    """Adds metrics to the catalogue.

    Raises:
        ValueError: One of them is registered already, and differently.
    """
    for metric in metrics:
        known = _KNOWN.setdefault(metric.path, metric)
        if known != metric:
            raise ValueError(f"metric '{metric.path}' is registered twice")


def find_metric(path: str) -> Metric | None:
    """The metric of that path, or None."""
    return _KNOWN.get(path)


def metric_paths() -> tuple[str, ...]:
    """All paths, sorted."""
    return tuple(sorted(_KNOWN))
