"""The sweep command with real Ray, real MLflow and real processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.sweep_processes import BASE, SweepProcess, results, trains, trials, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWEEP = f"""{BASE}
    training.budget: {{{{steps: {{steps}}}}}}
name: small
question: Is a wider channel mixer better at equal FLOPs?
design:
  kind: arms
  arms:
    base: {{{{}}}}
    wide: {{wide}}
  baseline: base
replicates: {{{{seeds: 2}}}}
limits: {{{{trial_minutes: 5}}}}
tracking: {{{{keep_models: best}}}}
analysis:
  - compare: {{{{metric: validation/loss, baseline: base, equal: null}}}}
"""


def write(folder: Path, *, steps: int = 20, wide: str = "{model.d_ff: 320}") -> Path:
    file = folder / "small.yaml"
    file.write_text(SWEEP.format(steps=steps, wide=wide))
    return file


def test_a_sweep_leaves_what_the_readme_promises_and_later_runs_train_only_what_is_missing(tmp_path: Path) -> None:
    file = write(tmp_path)
    first = SweepProcess(file, tmp_path)
    assert first.wait() == 0, first.text()
    assert not first.leftovers()
    directory = tmp_path / "small"
    for name in ("sweep.yaml", "plan.json", "journal.sqlite", "mlflow.db", "report/report.md", "report/report.html"):
        assert (directory / name).is_file(), name
    assert (directory / "report/figures/training_curves.png").is_file()
    records = trials(directory)
    assert {(record.arm, record.seed, record.status) for record in records} == {
        (arm, seed, "finished") for arm in ("base", "wide") for seed in (0, 1)
    }
    for record in records:
        folder = directory / "trials" / record.trial_id
        for name in ("config.yaml", "outputs/metrics.json", "metadata/environment.json", "metadata/data.json"):
            assert (folder / name).is_file(), name
        assert not list((folder / "checkpoints").glob("*"))
    assert (
        sum((directory / "trials" / record.trial_id / "model").is_dir() for record in records) == 2
    )  # best of each arm
    assert "mlflow ui" in first.text()
    assert "report/report.html" in first.text()

    plan = json.loads((directory / "plan.json").read_text())
    planned = {row["arm"]: row["flops"] for row in plan["rows"]}
    assert {record.arm: record.metrics["flops/total"] for record in records} == planned  # to the unit

    before = results(directory)
    began = time.monotonic()
    second = SweepProcess(file, tmp_path)
    assert second.wait() == 0, second.text()
    assert time.monotonic() - began < 30
    assert "4 of 4 trials were there already" in second.text()
    assert results(directory) == before
    assert all(record.attempts == 1 for record in trials(directory))

    more = SweepProcess(file, tmp_path, "replicates.seeds=3")
    assert more.wait() == 0, more.text()
    assert "changed since the last run" in more.text()
    records = trials(directory)
    assert len(records) == 6
    assert all(record.attempts == 1 for record in records)
    assert {trial_id: row for trial_id, row in results(directory).items() if trial_id in before} == before

    decisions = "SELECT key, time FROM decisions WHERE kind = 'prediction'"
    predicted = sqlite3.connect(directory / "journal.sqlite").execute(decisions).fetchall()
    assert {key for key, _ in predicted} == {record.trial_id for record in records}
    ended = {record.trial_id: record.ended_at or 0.0 for record in records}
    assert all(when < ended[key] for key, when in predicted)  # of before the trial, not learned from it
    section = (directory / "report/report.md").read_text().split("## Plan against run")[1].split("\n## ")[0]
    assert "not recorded" not in section

    runs = sqlite3.connect(directory / "mlflow.db").execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    assert runs == 7  # the sweep and its six trials, after three commands


def test_a_trial_that_fails_is_named_with_its_reason_and_the_others_finish(tmp_path: Path) -> None:
    file = write(tmp_path, wide="{training.lr: 1.0e+30, training.gradient_clip: null}")
    sweep = SweepProcess(file, tmp_path, "replicates.seeds=1")
    assert sweep.wait() == 1, sweep.text()
    records = {(record.arm, record.seed): record for record in trials(tmp_path / "small")}
    assert records["base", 0].status == "finished"
    assert records["wide", 0].status == "failed"
    reason = str(records["wide", 0].reason)
    assert "step" in reason
    assert "learning rate" in reason or "lr" in reason
    assert reason.split(",")[0] in sweep.text()
    retried = SweepProcess(file, tmp_path, "--retry-failed", "replicates.seeds=1")
    assert retried.wait() == 1, retried.text()
    attempts = {(record.arm, record.seed): record.attempts for record in trials(tmp_path / "small")}
    assert attempts == {("base", 0): 1, ("wide", 0): 2}


def trial_logs(sweep: Path) -> list[str]:
    """What the trials have written that have begun to train."""
    logs = [path.read_text() for path in sweep.glob("trials/*/logs/train.log")]
    return [log for log in logs if "attempt 1 begins" in log]


def test_a_second_command_on_a_running_sweep_is_refused_with_its_owner_and_ctrl_c_leaves_it_resumable(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, steps=1500)
    seldom = "training.checkpoint_seconds=1000"  # so that a checkpoint is that of the interruption
    words = ("replicates.seeds=1", "design.arms={base: {}}", "analysis=[]", seldom)
    first = SweepProcess(file, tmp_path, *words)
    wait_until(lambda: trains(tmp_path / "small"), first)
    second = SweepProcess(file, tmp_path)
    assert second.wait(60) == 2
    assert str(first.process.pid) in second.text()
    assert "Traceback" not in second.text()
    first.interrupt()
    assert first.wait(60) == 130, first.text()
    assert "continues" in first.text()
    assert not first.leftovers()
    assert {record.status for record in trials(tmp_path / "small")} <= {"interrupted", "finished", "pending"}
    begun = trial_logs(tmp_path / "small")
    assert all("a checkpoint is there" in log for log in begun), first.text()
    third = SweepProcess(file, tmp_path, *words)
    assert third.wait() == 0, third.text()
    assert sum("continues after step" in log for log in trial_logs(tmp_path / "small")) == len(begun)
    assert {record.status for record in trials(tmp_path / "small")} == {"finished"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainig.lr=1"], "did you mean 'training'"),
        (["training.lr='3e-4'"], "text"),
        (["training.budget={steps: 3, flops: 1e9}"], "exactly one"),
        (["objective=[{metric: validation/los}]"], "validation/loss"),
        (["schema_version=99"], "newer"),
        (["design={kind: grid, factors: {training.lr: []}}", "analysis=[]"], "empty"),
        (["base.model=decoder/gpt2_family/tinny"], "decoder/gpt2_family/tiny"),
    ],
)
def test_a_mistake_is_one_message_with_the_fix_and_exit_code_2(tmp_path: Path, words: list[str], message: str) -> None:
    command = [sys.executable, "-m", "stackwise_ray.sweep", str(write(tmp_path)), *words, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "small").exists()


def test_a_file_where_the_output_folder_should_be_is_refused_and_untouched(tmp_path: Path) -> None:
    blocking = tmp_path / "out"
    blocking.write_text("mine")
    command = [sys.executable, "-m", "stackwise_ray.sweep", str(write(tmp_path)), "--output", str(blocking)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "file where a folder should be" in done.stderr
    assert blocking.read_text() == "mine"
