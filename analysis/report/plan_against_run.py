"""What was planned beside what was measured: FLOPs, wall time and peak memory of every cell of a sweep.

Called by `sections.findings`, and by `summary` for the trials that have not begun. The cells and their FLOPs, which are
counted, are those of `plan.json`. Time and memory are predicted from what this machine was measured to do, so what
counts is what was predicted before a trial ran: the journal keeps that for every trial. What nobody calibrated has no
prediction, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.quantities import ABSENT, format_bytes, format_count, format_number, format_seconds

from ..render import Grid, format_range
from ..table.sweep_directory import Sweep
from .page import Table, arm_anchor, role_anchor, sourced

_NOT_PREDICTED = "not calibrated"
_NOT_RECORDED = "not recorded"
"""Of trials from before predictions were kept."""


def planned_table(sweep: Sweep) -> Table | None:
    """One row per cell with a finished trial, linked to its trials; None where the folder holds no plan.

    Raises:
        AnalysisError: `plan.json` is there and cannot be read.
    """
    rows, sources = [], []
    for row in _plan_rows(sweep.directory / "plan.json"):
        # A search has one row per role for all of its points, whose arms the plan could not know.
        trials = [t for t in sweep.trials if t.role == row["role"] and (sweep.search_trials or t.arm == row["arm"])]
        finished = [trial for trial in trials if trial.status == "finished"]
        if not finished:
            continue
        predicted = [sweep.predictions.get(trial.trial_id) for trial in finished]
        measured = [trial.metrics for trial in finished]
        replicated = row["role"] == "replicate"
        name = row["arm"] if replicated else f"{row['arm']} ({row['role']})"
        sources.append(arm_anchor(sweep, row["arm"]) if replicated else role_anchor(row["role"]))
        rows.append(
            (
                name,
                str(len(measured)),
                format_count(row["flops"]) if row["flops"] is not None else "open",
                _flops(row["flops"], [metrics["flops/total"] for metrics in measured if "flops/total" in metrics]),
                *_pair(predicted, "seconds", measured, "time/total_s", format_seconds),
                *_pair(predicted, "peak_bytes", measured, "memory/peak_bytes", format_bytes),
            )
        )
    columns = ("arm", "trials", "FLOPs planned", "measured", "time predicted", "measured", "peak predicted", "measured")
    return sourced(Grid(columns, tuple(rows), numeric=tuple(range(1, len(columns)))), sources) if rows else None


def planned_trials(sweep: Sweep) -> int:
    """How many trials the sweep has in all, at the least: as the journal lists them, else as its plan counts them.

    Raises:
        AnalysisError: `plan.json` is needed and cannot be read.
    """
    known = len(sweep.distinct_trials)
    if sweep.meta.get("trial_set"):
        return known
    rows = _plan_rows(sweep.directory / "plan.json")
    return max(known, sum(int(row.get("trials_least") or row["trials"]) for row in rows))


def _plan_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnalysisError(f"{path}: no plan can be read from it ({error}); run the sweep command again") from None
    return [row for row in rows if row["refused"] is None]


def _flops(planned: int | None, measured: list[float]) -> str:
    """Plan and run count alike, so anything but "the same" is a fault or a search over sizes."""
    if not measured:
        return ABSENT
    if planned is not None and all(value == planned for value in measured):
        return "the same, to the unit"
    return format_range(measured, format_count)


def _pair(
    predicted: Sequence[Mapping[str, float | None] | None],
    name: str,
    measured: Sequence[Mapping[str, float]],
    metric: str,
    form: Callable[[float], str],
) -> tuple[str, str]:
    """What was predicted of the trials, and the mean of what the same trials took with its share of the prediction.

    Where none of the trials that were measured had been predicted, the mean is over all that were measured.
    """
    known = [facts[name] if facts else None for facts in predicted]
    values = [value for value in known if value is not None]
    said = format_range(values, form) if values else _NOT_PREDICTED if any(predicted) else _NOT_RECORDED
    if values and len(values) < len(known):
        said += f" ({len(values)} of {len(known)} trials)"
    found = [metrics[metric] for metrics in measured if metric in metrics]
    if not found:
        return said, ABSENT
    both = [(p, m[metric]) for p, m in zip(known, measured, strict=True) if p is not None and metric in m]
    if not both:
        return said, form(sum(found) / len(found))
    taken, expected = sum(m for _, m in both), sum(p for p, _ in both)
    return said, f"{form(taken / len(both))} ({format_number(taken / expected, 2)} ×)"
