"""Trials of several workers in a sweep, and what is left when one of its processes dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stackwise_ray.core.records import TrialRecord
from tests.integration.sweep_processes import SweepProcess, trials, wait_until
from tests.integration.test_integration_sweep import write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ONE_TRIAL = ("replicates.seeds=1", "design.arms={base: {}}", "analysis=[]")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> TrialRecord:
    """The trial as one worker trains it."""
    folder = tmp_path_factory.mktemp("one")
    sweep = SweepProcess(write(folder, steps=40), folder, *ONE_TRIAL)
    assert sweep.wait() == 0, sweep.text()
    (record,) = trials(folder / "small")
    return record


def assert_same_training(record: TrialRecord, alone: TrialRecord) -> None:
    assert record.metrics["validation/loss"] == pytest.approx(alone.metrics["validation/loss"], rel=1e-5)
    assert record.metrics["flops/total"] == alone.metrics["flops/total"]


def test_a_trial_with_two_workers_gives_the_same_loss_as_with_one(tmp_path: Path, alone: TrialRecord) -> None:
    double = SweepProcess(write(tmp_path, steps=40), tmp_path, *ONE_TRIAL, "resources.workers=2")
    assert double.wait() == 0, double.text()
    assert not double.leftovers()
    (record,) = trials(tmp_path / "small")
    assert_same_training(record, alone)


def test_a_trial_of_which_one_worker_is_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, alone: TrialRecord
) -> None:
    """In shards, whose checkpoints all workers gather; death and restart are the same for whole models."""
    words = (*ONE_TRIAL, "resources.workers=2", "base.overrides.training.parallel=sharded")
    double = SweepProcess(write(tmp_path, steps=40), tmp_path, *words)
    wait_until(lambda: list(tmp_path.glob("small/trials/*/checkpoints/step_*")), double)
    double.train_workers()[-1].kill()
    assert double.wait(timeout=400) == 0, double.text()  # Ray Train starts twice
    assert not double.leftovers()
    (record,) = trials(tmp_path / "small")
    assert record.attempts == 2
    assert "continues after step" in next(tmp_path.glob("small/trials/*/logs/train.log")).read_text()
    assert_same_training(record, alone)


def test_a_dead_raylet_ends_the_command_within_a_minute_and_the_next_one_continues(tmp_path: Path) -> None:
    file = write(tmp_path, steps=400)
    sweep = SweepProcess(file, tmp_path)
    wait_until(lambda: any(record.status == "running" for record in trials(tmp_path / "small")), sweep)
    sweep.raylet().kill()
    began = time.monotonic()
    assert sweep.wait(60) == 1
    assert time.monotonic() - began < 60
    assert "raylet" in sweep.text()
    assert "run the same command again" in sweep.text()
    assert not sweep.leftovers()
    again = SweepProcess(file, tmp_path)
    assert again.wait() == 0, again.text()
    assert {record.status for record in trials(tmp_path / "small")} == {"finished"}
