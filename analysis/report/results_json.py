"""The report's numbers for programs: `results/<arm>_results.json` and what every declared step records.

Called by `compose` and `verification`. Comparisons record `comparisons/comparison_<a>_vs_<b>.json`, other steps
`analyses/<kind>.json`. Keys are the metric paths of the one table; files of arms and steps that are gone are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..plain_json import write_json
from .page import file_name
from .summary import ON_THE_WAY, Summary


def write_results(summary: Summary, folder: Path) -> list[Path]:
    """Write one file per arm and those of the declared steps under `folder`, and return their paths."""
    written = []
    if not summary.sweep.is_search:
        curves = summary.curves[summary.curves["metric"].isin(ON_THE_WAY)]
        for arm in summary.sweep.arms:
            path = folder / "results" / f"{file_name(arm)}_results.json"
            written.append(write_json(path, _arm(summary, arm, curves)))
    records: dict[str, list[Mapping[str, Any]]] = {}
    for answer in summary.answers:
        for name, record in answer.records():
            records.setdefault(name, []).append(record)
    for name, listed in records.items():
        written.append(write_json(folder / name, {name.partition("/")[0]: listed}))
    for pattern in ("results/*_results.json", "comparisons/comparison_*_vs_*.json", "analyses/*.json"):
        for path in set(folder.glob(pattern)) - set(written):
            path.unlink()
    return written


def _arm(summary: Summary, arm: str, curves: Any) -> dict[str, Any]:
    """Configuration, every run with its final metrics and its curve, and the means of the table."""
    sweep = summary.sweep
    trials = [trial for trial in sweep.trials if trial.arm == arm and trial.role == "replicate"]
    runs = []
    for trial in trials:
        mine = curves[(curves["trial_id"] == trial.trial_id) & (curves["arm"] == arm) & (curves["seed"] == trial.seed)]
        runs.append(
            {
                "trial_id": trial.trial_id,
                "seed": trial.seed,
                "status": trial.status,
                "reason": trial.reason,
                "attempts": trial.attempts,
                "metrics": dict(trial.metrics),
                "environment": dict(trial.environment),
                "curves": {
                    metric: part[["step", "tokens", "flops", "seconds", "value"]].to_dict("list")
                    for metric, part in mine.groupby("metric")
                },
            }
        )
    found = next(item for item in summary.arms if item.arm == arm)
    tuning = sweep.tuning.get(arm)
    config = dict(trials[0].config) if trials else {}
    return {
        "arm": arm,
        "sweep": sweep.name,
        "config": config,
        "parameters": dict(trials[0].parameters) if trials else {},
        "means": {"metric": summary.metric, **asdict(found)},
        "tuning": asdict(tuning) if tuning else None,
        "runs": runs,
    }
