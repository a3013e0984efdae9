"""What was planned beside what was measured: FLOPs, wall time and peak memory of every cell of a sweep.

Called by `report`. The prediction is `plan.json`, written before the first trial; the rest is what the finished trials
recorded. A plan that nobody calibrated predicts no seconds and no bytes, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import AnalysisError
from .render import ABSENT, Grid, format_bytes, format_flops, format_seconds
from .sweep_directory import Sweep

_NOT_PREDICTED = "not calibrated"


def planned_grid(sweep: Sweep) -> Grid | None:
    """A row a cell with a finished trial; None where the folder holds no plan.

    Raises:
        AnalysisError: `plan.json` is there and cannot be read.
    """
    rows = []
    for row in _plan_rows(sweep.directory / "plan.json"):
        # A search has one row a role for all of its points, whose arms the plan could not know.
        trials = [t for t in sweep.trials if t.role == row["role"] and (sweep.search_trials or t.arm == row["arm"])]
        measured = [trial.metrics for trial in trials if trial.status == "finished"]
        if not measured:
            continue
        name = row["arm"] if row["role"] == "replicate" else f"{row['arm']} ({row['role']})"
        rows.append(
            (
                name,
                str(len(measured)),
                format_flops(row["flops"]) if row["flops"] is not None else "open",
                _flops(row["flops"], _values(measured, "flops/total")),
                *_pair(row["seconds"], _values(measured, "time/total_s"), format_seconds),
                *_pair(row["peak_bytes"], _values(measured, "memory/peak_bytes"), format_bytes),
            )
        )
    columns = ("arm", "trials", "FLOPs planned", "measured", "time predicted", "measured", "peak predicted", "measured")
    return Grid(columns, tuple(rows), numeric=tuple(range(1, len(columns)))) if rows else None


def _plan_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnalysisError(f"{path}: no plan can be read from it ({error}); run the sweep command again") from None
    return [row for row in rows if row["refused"] is None]


def _values(measured: Sequence[Mapping[str, float]], metric: str) -> list[float]:
    return [metrics[metric] for metrics in measured if metric in metrics]


def _flops(planned: int | None, measured: list[float]) -> str:
    """Plan and run count alike, so anything but "the same" is a fault or a search over sizes."""
    if not measured:
        return ABSENT
    if planned is not None and all(value == planned for value in measured):
        return "the same, to the unit"
    low, high = format_flops(min(measured)), format_flops(max(measured))
    return low if low == high else f"{low} – {high}"


def _pair(predicted: float | None, measured: list[float], form: Callable[[float], str]) -> tuple[str, str]:
    """The prediction, and the mean of what was measured with its share of the prediction."""
    if not measured:
        return _NOT_PREDICTED if predicted is None else form(predicted), ABSENT
    mean = sum(measured) / len(measured)
    if predicted is None:
        return _NOT_PREDICTED, form(mean)
    return form(predicted), f"{form(mean)} ({mean / predicted:.2f} ×)"
