"""Load of the driver's machine over the sweep, read with MLflow's own monitors and named as MLflow names it.

MLflow's `SystemMetricsMonitor` cannot be used as it is: it asks the server before every sample and gives up for good
at the first that does not answer. This module uses its collectors, and the samples are delivered like everything else.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Any

from stackwise_ray.tracking.feed import Point

SAMPLES_KEPT = 360
"""Most samples that wait for a store that is away: one hour at the default interval. Older ones are dropped."""


class SystemMetrics:
    """Samples CPU, memory, disk, network and GPUs; imports parts of MLflow when made.

    Args:
        interval_s: Seconds between two samples.
        started_ms: Unix time from which steps are counted, in seconds (the parent run's start, so that a continued
            sweep continues the axis).
    """

    def __init__(self, interval_s: float, started_ms: int) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]
        self._monitors: list[Any] = []
        for kind in kinds:
            with contextlib.suppress(ImportError, RuntimeError):  # no GPU, or no library to ask it: MLflow's own rule
                self._monitors.append(kind())
        self._interval_s = interval_s
        self._started_ms = started_ms
        self._due = time.monotonic() + interval_s
        self._waiting: deque[list[Point]] = deque(maxlen=SAMPLES_KEPT)
        self._monitors[0].collect_metrics()  # CPU load is that since the call before: the first says nothing
        self._monitors[0].clear_metrics()

    def sample_if_due(self) -> None:
        """Takes a sample where the interval has passed."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._interval_s
        time_ms = round(time.time() * 1000)
        step = max(0, (time_ms - self._started_ms) // 1000)
        points: list[Point] = []
        for monitor in self._monitors:
            monitor.collect_metrics()
            for name, value in monitor.aggregate_metrics().items():
                points.append(Point(name=f"system/{name}", value=float(value), step=step, time_ms=time_ms))
            monitor.clear_metrics()
        self._waiting.append(points)

    def waiting(self) -> list[Point]:
        """Samples that have not been delivered."""
        return [point for sample in self._waiting for point in sample]

    def delivered(self) -> None:
        """Forgets the samples that `waiting` returned."""
        self._waiting.clear()
