"""The sweep command with real Ray, real MLflow and real processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.sweep_processes import BASE, SweepProcess, results, trials

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


WITH_A_FAILURE = (
    "design.arms={base: {}, wide: {model.d_ff: 320}, broken: {training.lr: 1.0e+30, training.gradient_clip: null}}"
)


def test_a_sweep_leaves_what_the_readme_promises_names_a_failure_and_trains_later_only_what_is_missing(
    tmp_path: Path,
) -> None:
    file, directory = write(tmp_path), tmp_path / "small"
    first = SweepProcess(file, tmp_path, WITH_A_FAILURE, "replicates.seeds=1", "--max-concurrent", "1")
    assert first.wait() == 1, first.text()
    assert not first.leftovers()
    assert_a_whole_folder(directory, first.text())
    before = results(directory)
    assert {key: row[1] for key, row in before.items()} == {
        ("base", 0): "finished",
        ("wide", 0): "finished",
        ("broken", 0): "failed",
    }
    (broken,) = [record for record in trials(directory) if record.status == "failed"]
    reason = str(broken.reason)
    assert "step" in reason
    assert "learning rate" in reason or "lr" in reason
    assert reason.split(",")[0] in first.text()

    began = time.monotonic()
    second = SweepProcess(file, tmp_path, WITH_A_FAILURE, "replicates.seeds=1")
    assert second.wait() == 1, second.text()  # it has a failed trial still
    assert time.monotonic() - began < 30
    assert "3 of 3 trials were there already" in second.text()
    assert results(directory) == before
    assert all(record.attempts == 1 for record in trials(directory))

    more = SweepProcess(file, tmp_path, WITH_A_FAILURE, "replicates.seeds=2", "--retry-failed", "--max-concurrent", "1")
    assert more.wait() == 1, more.text()
    assert "changed since the last run" in more.text()
    records = trials(directory)
    attempts = {(record.arm, record.seed): record.attempts for record in records}
    assert attempts == {(arm, seed): 1 for arm in ("base", "wide", "broken") for seed in (0, 1)} | {("broken", 0): 2}
    after = results(directory)
    assert {key: after[key] for key in before} == before
    models = [record.arm for record in records if (directory / "trials" / record.trial_id / "model").is_dir()]
    assert sorted(models) == ["base", "wide"]  # of each arm's two seeds that of the better

    decisions = "SELECT key, time FROM decisions WHERE kind = 'prediction'"
    predicted = sqlite3.connect(directory / "journal.sqlite").execute(decisions).fetchall()
    assert {key for key, _ in predicted} == {record.trial_id for record in records}
    ended = {record.trial_id: record.ended_at or 0.0 for record in records}
    assert all(when < ended[key] for key, when in predicted)  # of before the trial, not learned from it
    section = (directory / "report/report.md").read_text().split("## Plan against run")[1].split("\n## ")[0]
    assert "not recorded" not in section

    runs = sqlite3.connect(directory / "mlflow.db").execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    assert runs == 7  # the sweep and its six trials, after three commands


def assert_a_whole_folder(directory: Path, text: str) -> None:
    """What the README says that a sweep leaves."""
    for name in ("sweep.yaml", "plan.json", "journal.sqlite", "mlflow.db", "report/report.md", "report/report.html"):
        assert (directory / name).is_file(), name
    assert (directory / "report/figures/training_curves.png").is_file()
    finished = [record for record in trials(directory) if record.status == "finished"]
    for record in finished:
        folder = directory / "trials" / record.trial_id
        for name in ("config.yaml", "outputs/metrics.json", "metadata/environment.json", "metadata/data.json"):
            assert (folder / name).is_file(), name
        assert not list((folder / "checkpoints").glob("*"))
        assert (folder / "model").is_dir()  # the best of one
    plan = json.loads((directory / "plan.json").read_text())
    planned = {row["arm"]: row["flops"] for row in plan["rows"]}
    assert all(record.metrics["flops/total"] == planned[record.arm] for record in finished)  # to the unit
    assert "mlflow ui" in text
    assert "report/report.html" in text


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
    sweep = SweepProcess(write(tmp_path), tmp_path, *words)
    assert sweep.wait(60) == 2, sweep.text()
    assert message in sweep.text()
    assert "Traceback" not in sweep.text()
    assert not (tmp_path / "small").exists()


def test_a_file_where_the_output_folder_should_be_is_refused_and_untouched(tmp_path: Path) -> None:
    blocking = tmp_path / "out"
    blocking.write_text("mine")
    command = [sys.executable, "-m", "stackwise_ray.sweep", str(write(tmp_path)), "--output", str(blocking)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "file where a folder should be" in done.stderr
    assert blocking.read_text() == "mine"
