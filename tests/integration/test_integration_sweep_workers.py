"""Trials of several workers in a sweep, and what is left when one of its processes dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.seeds import with_seed
from stackwise_ray.running.single import train
from tests.integration.sweep_processes import SweepProcess, trains, trials, wait_until
from tests.integration.test_integration_sweep import write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ONE_TRIAL = ("replicates.seeds=1", "design.arms={base: {}}", "analysis=[]")


def assert_same_training(sweep: Path, file: Path) -> None:
    """As one worker trains the trial of the file, which needs no Ray."""
    (record,) = trials(sweep)
    (arm,) = expand(load_sweep(file, ONE_TRIAL)).arms
    alone = train(with_seed(arm.trial, record.seed), sweep.parent / "alone")
    assert record.metrics["validation/loss"] == pytest.approx(alone.metrics["validation/loss"], rel=1e-5)
    assert record.metrics["flops/total"] == alone.metrics["flops/total"]


def test_a_trial_with_two_workers_leaves_a_checkpoint_on_ctrl_c_and_ends_with_the_loss_of_one(
    tmp_path: Path,
) -> None:
    seldom = "training.checkpoint_seconds=1000"  # so that a checkpoint is that of the interruption
    words = (*ONE_TRIAL, "resources.workers=2", seldom)
    file = write(tmp_path, steps=600)
    double = SweepProcess(file, tmp_path, *words)
    wait_until(lambda: trains(tmp_path / "small"), double)
    double.interrupt()
    assert double.wait(90) == 130, double.text()
    assert not double.leftovers()
    (log,) = tmp_path.glob("small/trials/*/logs/train.log")
    assert "a checkpoint is there" in log.read_text()
    again = SweepProcess(file, tmp_path, *words)
    assert again.wait() == 0, again.text()
    assert not again.leftovers()
    assert "continues after step" in log.read_text()
    assert_same_training(tmp_path / "small", file)


def test_a_trial_of_which_one_worker_is_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path,
) -> None:
    """In shards, whose checkpoints all workers gather; death and restart are the same for whole models."""
    words = (*ONE_TRIAL, "resources.workers=2", "base.overrides.training.parallel=sharded")
    file = write(tmp_path, steps=300)
    double = SweepProcess(file, tmp_path, *words)
    wait_until(lambda: list(tmp_path.glob("small/trials/*/checkpoints/step_*")), double)
    double.train_workers()[-1].kill()
    assert double.wait(timeout=400) == 0, double.text()  # Ray Train starts twice
    assert not double.leftovers()
    (record,) = trials(tmp_path / "small")
    assert record.attempts == 2
    assert "continues after step" in next(tmp_path.glob("small/trials/*/logs/train.log")).read_text()
    assert_same_training(tmp_path / "small", file)


def test_a_dead_raylet_ends_the_command_within_a_minute_and_the_next_one_continues(tmp_path: Path) -> None:
    file = write(tmp_path, steps=400)
    sweep = SweepProcess(file, tmp_path, *ONE_TRIAL)
    wait_until(lambda: any(record.status == "running" for record in trials(tmp_path / "small")), sweep)
    sweep.raylet().kill()
    began = time.monotonic()
    assert sweep.wait(60) == 1
    assert time.monotonic() - began < 60
    assert "raylet" in sweep.text()
    assert "run the same command again" in sweep.text()
    assert not sweep.leftovers()
    again = SweepProcess(file, tmp_path, *ONE_TRIAL)
    assert again.wait() == 0, again.text()
    assert {record.status for record in trials(tmp_path / "small")} == {"finished"}
