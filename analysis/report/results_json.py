"""The report's numbers for programs: `results/<arm>_results.json` and `comparisons/comparison_<a>_vs_<b>.json`.

Called by `report`. Keys are the metric paths of the one table; files of arms that are gone are removed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..paired.comparison import Comparison
from ..plain_json import write_json
from ..table.runs import load_curves
from .summary import Summary

_RATIOS = (
    "throughput/tokens_per_s",
    "flops/total",
    "tokens/total",
    "memory/peak_bytes",
    "memory/saved_activation_bytes",
    "model/bytes",
    "model/params",
    "model/params_non_embedding",
)
_ON_THE_WAY = ("train/loss", "validation/loss", "validation/perplexity", "throughput/tokens_per_s")


def write_results(summary: Summary, folder: Path) -> list[Path]:
    """Write a file an arm and a file a pair under `folder`, and return their paths."""
    written = []
    if not summary.sweep.is_search:
        curves = load_curves(summary.sweep.directory, _ON_THE_WAY)
        for arm in summary.sweep.arms:
            path = folder / "results" / f"{file_name(arm)}_results.json"
            written.append(write_json(path, _arm(summary, arm, curves)))
    pairs: dict[Path, list[dict[str, Any]]] = {}
    for comparison in summary.comparisons:
        for result in comparison.arms:
            name = f"comparison_{file_name(result.arm)}_vs_{file_name(comparison.baseline)}.json"
            pairs.setdefault(folder / "comparisons" / name, []).append(_pair(summary, comparison, result.arm))
    for anytime in summary.sequential:
        facts = anytime.to_dict()
        for key in ("verdicts", "blocks", "sentence"):  # those of all arms together
            del facts[key]
        for arm, verdict in anytime.verdicts.items():
            name = f"comparison_{file_name(arm)}_vs_{file_name(anytime.baseline)}.json"
            found = {**facts, "arm": arm, "seeds": anytime.blocks[arm], "result": verdict.to_dict()}
            pairs.setdefault(folder / "comparisons" / name, []).append(found)
    written += [write_json(path, {"comparisons": content}) for path, content in pairs.items()]
    for pattern in ("results/*_results.json", "comparisons/comparison_*_vs_*.json"):
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


def _pair(summary: Summary, comparison: Comparison, arm: str) -> dict[str, Any]:
    """One verdict with all its numbers, and what the arm costs as a multiple of the baseline."""
    runs = summary.sweep.runs
    ratios = {}
    for metric in _RATIOS:
        if metric in runs.columns:
            ours = runs.loc[runs["arm"] == arm, metric].mean()
            theirs = runs.loc[runs["arm"] == comparison.baseline, metric].mean()
            if ours == ours and theirs == theirs and theirs != 0:  # both were measured
                ratios[metric] = float(ours / theirs)
    settings = {
        name: getattr(comparison, name)
        for name in (
            "metric",
            "baseline",
            "direction",
            "test",
            "correction",
            "alpha",
            "margin",
            "equal",
            "tolerance",
            "budgets",
            "block",
        )
    }
    return {
        **settings,
        "family": comparison.family,
        "arm": arm,
        "result": comparison[arm].to_dict(),
        "baseline_values": dict(comparison.baseline_values),
        "ratios": ratios,
        "notes": list(comparison.notes),
    }


def file_name(text: str) -> str:
    """`text` with everything that a file name should not hold replaced by "_".

    >>> file_name("lr=3e-4/wide")
    'lr=3e-4_wide'
    """
    kept = "".join(c if c.isalnum() or c in "-_.=+," else "_" for c in text).lstrip(".")
    return kept or "_"
