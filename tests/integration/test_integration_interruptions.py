"""What ends a sweep from outside: its time, Ctrl-C, the death of Ray's scheduler, a worker that hangs.

One sweep goes through all of them, one command after the other. Real Ray, real signals.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from stackwise_ray.core.records import TrialRecord
from tests.integration.sweep_processes import (
    BASE,
    SweepProcess,
    results,
    results_alone,
    trains,
    trial_logs,
    trials,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SELDOM = BASE.replace("checkpoint_seconds: 0.2", "checkpoint_seconds: 1000")  # its checkpoint is that of Ctrl-C
SWEEP = f"""{SELDOM}
    training.budget: {{steps: 500}}
    data.final_evaluation: fixed
name: interrupted
design: {{kind: arms, arms: {{only: {{}}}}}}
replicates: {{seeds: 1}}
tracking: {{keep_models: none}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "interrupted.yaml").write_text(SWEEP)
    return tmp_path / "interrupted.yaml"


def only_trial(file: Path) -> TrialRecord:
    (record,) = trials(file.with_suffix(""))
    return record


def test_each_end_from_outside_leaves_a_sweep_that_the_same_command_continues_to_the_same_numbers(file: Path) -> None:
    its_time_is_up(file)
    it_is_refused_to_a_second_command_and_gets_ctrl_c(file)
    its_raylet_dies(file)
    its_worker_hangs(file)
    assert only_trial(file).status == "finished"
    assert results(file.with_suffix("")) == results_alone(file, file.parent / "alone")


def its_time_is_up(file: Path) -> None:
    sweep = SweepProcess(file, file.parent, "limits.wall_hours=0.002")  # 7 s, about as long as workers take to start
    assert sweep.wait() == 1, sweep.text()
    assert "limits.wall_hours is used up; the same command continues" in sweep.text()
    assert not sweep.leftovers()
    assert only_trial(file).status == "interrupted"


def it_is_refused_to_a_second_command_and_gets_ctrl_c(file: Path) -> None:
    sweep = SweepProcess(file, file.parent)
    wait_until(lambda: only_trial(file).attempts == 2, sweep)
    second = SweepProcess(file, file.parent)  # while the first one's worker starts
    assert second.wait(60) == 2
    assert str(sweep.process.pid) in second.text()
    assert "Traceback" not in second.text()
    wait_until(lambda: trains(file.with_suffix(""), attempt=2), sweep)
    sweep.interrupt()
    assert sweep.wait(60) == 130, sweep.text()
    assert "continues" in sweep.text()
    assert not sweep.leftovers()
    assert only_trial(file).status == "interrupted"
    (log,) = trial_logs(file.with_suffix(""))
    assert "a checkpoint is there" in log, sweep.text()


def its_raylet_dies(file: Path) -> None:
    sweep = SweepProcess(file, file.parent)
    wait_until(lambda: only_trial(file).status == "running", sweep)
    sweep.raylet().kill()
    began = time.monotonic()
    assert sweep.wait(60) == 1
    assert time.monotonic() - began < 60
    assert "raylet" in sweep.text()
    assert "run the same command again" in sweep.text()
    assert not sweep.leftovers()


def its_worker_hangs(file: Path) -> None:
    # 30 s for an attempt of 8 s and the start of its worker, which takes as long again on a loaded machine.
    sweep = SweepProcess(file, file.parent, "limits.trial_minutes=0.5")
    wait_until(lambda: trains(file.with_suffix(""), attempt=4), sweep)
    (log,) = trial_logs(file.with_suffix(""))
    assert "continues after step" in log
    worker = max(sweep.workers(), key=lambda process: process.cpu_percent(0.5))
    worker.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert sweep.wait() == 0, sweep.text()
    assert time.monotonic() - began > 15
    assert not sweep.leftovers()
    assert only_trial(file).attempts == 5
