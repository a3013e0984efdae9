"""What ends a sweep or a trial from outside: the sweep's time, a worker that hangs. Real Ray, real signals."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.integration.sweep_processes import SweepProcess, trials, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWEEP = """
name: limited
base:
  model: decoder/gpt2_family/tiny
  data: markov
  training: classical
  overrides:
    training.budget: {{wall_seconds: {seconds}}}
    training.batch_tokens: 256
    training.evaluations: 1
    training.checkpoint_seconds: 0.5
    training.report_seconds: 0.2
    data.seq_len: 64
    data.validation_tokens: 2048
    data.final_evaluation: fixed
    model.n_layers: 2
design: {{kind: arms, arms: {{only: {{}}}}}}
replicates: {{seeds: {seeds}}}
limits: {limits}
tracking: {{keep_models: none}}
"""


def write(folder: Path, *, seconds: float, seeds: int, limits: str) -> Path:
    file = folder / "limited.yaml"
    file.write_text(SWEEP.format(seconds=seconds, seeds=seeds, limits=limits))
    return file


def test_a_sweep_whose_time_is_up_says_so_and_continues_with_more(tmp_path: Path) -> None:
    file = write(tmp_path, seconds=10, seeds=2, limits="{wall_hours: 0.004}")  # 14 s, of which the workers' start is 6
    sweep = SweepProcess(file, tmp_path)
    assert sweep.wait() == 1, sweep.text()
    assert "limits.wall_hours is used up; the same command continues" in sweep.text()
    assert not sweep.leftovers()
    before = trials(tmp_path / "limited")
    assert {record.status for record in before} <= {"interrupted", "finished"}
    assert "interrupted" in {record.status for record in before}
    again = SweepProcess(file, tmp_path, "limits.wall_hours=1")
    assert again.wait() == 0, again.text()
    after = trials(tmp_path / "limited")
    assert {record.status for record in after} == {"finished"}
    assert {record.metrics["progress"] for record in after} == {1.0}


def test_a_worker_that_stands_still_is_ended_and_its_trial_is_finished_by_another(tmp_path: Path) -> None:
    # 30 s for an attempt of 8 s and the start of its worker, which takes as long again on a loaded machine.
    file = write(tmp_path, seconds=8, seeds=1, limits="{trial_minutes: 0.5}")
    sweep = SweepProcess(file, tmp_path)
    wait_until(lambda: any((tmp_path / "limited" / "trials").glob("*/checkpoints/step_*")), sweep)
    (record,) = trials(tmp_path / "limited")
    worker = max(sweep.workers(), key=lambda process: process.cpu_percent(0.5))
    worker.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert sweep.wait() == 0, sweep.text()
    assert time.monotonic() - began > 15
    assert not sweep.leftovers()
    (record,) = trials(tmp_path / "limited")
    assert (record.status, record.attempts) == ("finished", 2)
