"""What was planned beside what was measured, in the report of a sweep."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import summary_table
from analysis.report.compose import compose
from analysis.report.page import to_markdown
from analysis.report.pictures import Pictures
from analysis.report.plan_against_run import planned_table
from analysis.table.sweep_directory import read_sweep
from stackwise_ray.core.quantities import format_bytes


def text_of(folder: Path) -> str:
    return to_markdown(compose(summary_table(folder), Pictures()), folder / "report")


def plan_file(folder: Path, *rows: dict) -> None:
    cell = {"role": "replicate", "refused": None, "trials": 3}
    (folder / "plan.json").write_text(json.dumps({"rows": [cell | row for row in rows]}), encoding="utf-8")


def predict(folder: Path, arm: str, **by_seed: dict) -> None:
    """Predictions of the replicates of an arm: `seed0={"seconds": 3.0}` and so on."""
    with sqlite3.connect(folder / "journal.sqlite") as journal:
        for trial in read_sweep(folder).trials:
            facts = by_seed.get(f"seed{trial.seed}")
            if trial.arm == arm and trial.role == "replicate" and facts is not None:
                row = ("prediction", trial.trial_id, json.dumps({"seconds": None, "peak_bytes": None} | facts))
                journal.execute("INSERT INTO decisions (kind, key, payload, time) VALUES (?, ?, ?, 0)", row)


def planned_cells(folder: Path, arm: str) -> list[str]:
    section = text_of(folder).split("## Plan against run")[1].split("\n## ")[0]
    line = next(line for line in section.splitlines() if line.startswith(f"| {arm} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_was_planned_stands_beside_what_was_measured(make_ablation):
    folder = make_ablation()
    measured = {
        name: next(t.metrics[name] for t in read_sweep(folder).trials if t.arm == "attention" and t.role == "replicate")
        for name in ("flops/total", "memory/peak_bytes")
    }
    plan_file(
        folder,
        {"arm": "attention", "flops": measured["flops/total"], "peak_bytes": 7.0, "seconds": 7.0},
        {"arm": "llama", "flops": measured["flops/total"] + 1},
        {"arm": "nowhere", "flops": 1},
    )
    facts = {"peak_bytes": 2 * measured["memory/peak_bytes"]}
    predict(folder, "attention", seed0=facts, seed1=facts, seed2=facts)
    cells = planned_cells(folder, "attention")
    assert cells[3] == "the same, to the unit"
    assert cells[4:6] == ["not calibrated", "not measured"]
    assert cells[7].endswith("(0.50 ×)")
    assert "to the unit" not in planned_cells(folder, "llama")[3]
    assert planned_cells(folder, "llama")[6] == "not recorded"
    assert "nowhere" not in text_of(folder)


def test_what_counts_is_what_was_predicted_before_each_trial_ran(make_ablation):
    folder = make_ablation()
    plan_file(folder, {"arm": "attention", "flops": 1, "peak_bytes": 9.0e7})  # of the last command: learned since
    peak = 9.0e7
    predict(folder, "attention", seed0={}, seed1={"peak_bytes": peak / 3}, seed2={"peak_bytes": peak})
    cells = planned_cells(folder, "attention")
    low, high = format_bytes(peak / 3), format_bytes(peak)
    assert cells[6] == f"{low} – {high} (2 of 3 trials)"
    assert cells[7] == f"{high} (1.50 ×)"


def test_a_trial_without_a_time_is_no_part_of_the_share_of_what_was_predicted(tmp_path):
    """Two trials were predicted, at 10 and at 40 seconds; that of 10 took 20, and the other has no time on record."""
    journal = JournalBuilder(tmp_path / "s")
    names = [
        journal.trial("a", seed, final_metrics(2.0) | time) for seed, time in enumerate([{"time/total_s": 20.0}, {}])
    ]
    for name, seconds in zip(names, (10.0, 40.0), strict=True):
        journal.decision("prediction", name, {"seconds": seconds, "peak_bytes": None})
    journal.meta(sweep={"name": "s"})
    folder = journal.close()
    plan_file(folder, {"arm": "a", "flops": 1})
    (row,) = planned_table(read_sweep(folder)).grid.rows
    assert row[5].endswith("(2.00 ×)")


def test_what_was_measured_is_of_the_trials_that_were_predicted(tmp_path):
    """Of two trials that took 5 and 30 seconds, the first was predicted, at 10."""
    journal = JournalBuilder(tmp_path / "s")
    names = [
        journal.trial("a", seed, final_metrics(2.0) | {"time/total_s": time}) for seed, time in ((0, 5.0), (1, 30.0))
    ]
    journal.decision("prediction", names[0], {"seconds": 10.0, "peak_bytes": None})
    journal.meta(sweep={"name": "s"})
    folder = journal.close()
    plan_file(folder, {"arm": "a", "flops": 1})
    (row,) = planned_table(read_sweep(folder)).grid.rows
    assert row[4:6] == ("10 s (1 of 2 trials)", "5 s (0.50 ×)")


def test_a_folder_without_a_plan_has_no_such_section(ablation):
    assert "## Plan against run" not in text_of(ablation)


def test_one_trial_that_differs_from_its_plan_is_not_the_same(make_ablation):
    folder = make_ablation()
    attention = [t for t in read_sweep(folder).trials if t.arm == "attention" and t.role == "replicate"]
    planned = attention[0].metrics["flops/total"]
    plan_file(folder, {"arm": "attention", "flops": planned})
    assert planned_cells(folder, "attention")[1:4:2] == ["3", "the same, to the unit"]
    with sqlite3.connect(folder / "journal.sqlite") as journal:
        metrics = {**attention[1].metrics, "flops/total": planned + 1}
        journal.execute(
            "UPDATE trials SET metrics = ? WHERE trial_id = ?", (json.dumps(metrics), attention[1].trial_id)
        )
    assert "the same" not in planned_cells(folder, "attention")[3]


def test_tuning_trials_stand_in_their_own_row(make_ablation):
    folder = make_ablation()
    plan_file(folder, {"arm": "attention", "flops": 1}, {"arm": "attention", "role": "tuning", "flops": 1})
    assert [planned_cells(folder, arm)[1] for arm in ("attention", "attention (tuning)")] == ["3", "3"]
    whole, tuning = (planned_cells(folder, arm)[3] for arm in ("attention", "attention (tuning)"))
    assert whole != tuning
    assert "–" not in tuning


def test_perplexities_are_averaged_as_losses(make_ablation):
    folder = make_ablation()
    losses = [
        t.metrics["validation/loss"] for t in read_sweep(folder).trials if t.arm == "attention" and t.role != "tuning"
    ]
    section = text_of(folder).split("## Perplexities")[1]
    row = next(line for line in section.splitlines() if line.startswith("| attention |"))
    assert f"{math.exp(sum(losses) / len(losses)):.2f}" in row
