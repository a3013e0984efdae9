"""Which way is better: one answer for a metric, whatever objective of the sweep names it and whatever reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import summary_table, write_report

SPEEDS = {"slow": 50_000.0, "fast": 80_000.0}
BOTH = [
    {"metric": "validation/loss", "direction": "minimize"},
    {"metric": "throughput/tokens_per_s", "direction": "maximize"},
]


def write_speeds(folder: Path, *, seeds: Any = 6, objective: Any = BOTH) -> Path:
    """Two arms whose losses are alike and whose speeds are not; the faster one is compared with the slower."""
    builder = JournalBuilder(folder)
    for seed in range(6):
        for arm, speed in SPEEDS.items():
            builder.trial(arm, seed, final_metrics(2.0 + 0.01 * seed, speed=speed * (1 + 0.002 * (seed % 3))))
    builder.meta(
        arms=list(SPEEDS),
        sweep={
            "name": "speeds",
            "design": {"kind": "arms", "arms": {arm: {} for arm in SPEEDS}, "baseline": "slow"},
            "replicates": {"seeds": seeds, "block": "seed"},
            "objective": objective,
            "analysis": [{"compare": {"metric": "throughput/tokens_per_s", "correction": "holm", "test": "t"}}],
        },
    )
    return builder.close()


def test_the_faster_arm_is_better_where_the_second_objective_says_so(tmp_path: Path) -> None:
    folder = write_speeds(tmp_path / "s")
    summary = summary_table(folder)
    (found,) = summary.comparisons
    assert found["fast"].verdict == "better"
    assert "higher is better" in summary.verdict
    assert "fast is better" in write_report(folder).with_suffix(".md").read_text(encoding="utf-8")


def test_the_faster_arm_is_better_where_verdicts_decide_on_the_seeds(tmp_path: Path) -> None:
    summary = summary_table(write_speeds(tmp_path / "s", seeds={"min": 3, "max": 9, "until": "decided"}))
    (found,) = summary.sequential
    assert found["fast"].decision == "better"
    assert "higher is better" in summary.verdict
