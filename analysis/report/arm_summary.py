"""One arm of a sweep in short: what it reached and what it cost, as means over its finished runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stackwise_ray.core.quantities import ABSENT

from ..paired.intervals import Interval, t_interval
from ..table.sweep_directory import Sweep


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its finished runs; None: no run recorded it.

    Attributes:
        n: Finished runs.
        trials: Their trial ids.
        mean: Mean of the sweep's first metric, with its own (unpaired) interval in `interval`.
        tokens_per_s: Training tokens per second.
        flops: Training FLOPs of a run.
        peak_bytes: Peak memory.
        params: Parameters without embeddings; `params_total` with them.
        tuned: Values that tuning chose.
        point: The point of the search that the arm trains; empty for other arms.
        tuning_flops: Training FLOPs of all tuning trials.
    """

    arm: str
    n: int
    trials: tuple[str, ...]
    mean: float | None
    interval: Interval | None
    tokens_per_s: float | None
    flops: float | None
    peak_bytes: float | None
    params: float | None
    params_total: float | None
    tuned: Mapping[str, Any]
    point: Mapping[str, Any]
    tuning_flops: float | None


def summarise_arm(sweep: Sweep, arm: str, metric: str) -> ArmSummary:
    """What the finished runs of an arm recorded."""
    runs = sweep.runs[sweep.runs["arm"] == arm] if "arm" in sweep.runs.columns else sweep.runs
    tuning = sweep.tuning.get(arm)

    def mean(column: str) -> float | None:
        if column not in runs.columns or runs[column].notna().sum() == 0:
            return None
        return float(runs[column].mean())

    values: Any = runs[metric].dropna().to_numpy(float) if metric in runs.columns else []
    return ArmSummary(
        arm=arm,
        n=len(runs),
        trials=tuple(runs["trial_id"]) if len(runs) else (),
        mean=mean(metric),
        interval=t_interval(values),
        tokens_per_s=mean("throughput/tokens_per_s"),
        flops=mean("flops"),
        peak_bytes=mean("memory/peak_bytes"),
        params=mean("params"),
        params_total=mean("params_total"),
        tuned=tuning.values if tuning else {},
        point=sweep.parameters_of(arm),
        tuning_flops=tuning.flops if tuning else None,
    )


def point_text(parameters: Mapping[str, Any]) -> str:
    """The values of a point under their paths, short.

    >>> point_text({"training.lr": 0.0012345, "model.n_layers": 2})
    'training.lr = 0.00123, model.n_layers = 2'
    """
    return ", ".join(f"{path} = {short_value(value)}" for path, value in parameters.items())


def short_value(value: Any) -> str:
    """A value of a setting, numbers with three digits.

    >>> short_value(0.0012345), short_value(["potential"]), short_value(None)
    ('0.00123', 'potential', 'none')
    """
    if isinstance(value, float):
        return ABSENT if math.isnan(value) else f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(short_value, value)) or "none"
    return "none" if value is None else str(value)
