"""A trial of two workers in a sweep: Ctrl-C, and a worker that dies.

Only Ray counts the two GPUs that the trial asks for. One trial goes through all of it in two commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.seeds import with_seed
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.running.single import train
from tests.integration.our_lines import foreign
from tests.integration.sweep_processes import SweepProcess, trains, trials, wait_until
from tests.integration.test_integration_sweep import write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS_START_S = 240.0
"""Two workers of a trial begin to train within this, also where the machine does other work."""
TWO_GPUS = {"STACKWISE_GPUS": "2"}
WORDS = ("replicates.seeds=1", "analysis=[]", "resources.workers=2", "resources.gpus_per_trial=1")
SELDOM = "training.checkpoint_seconds: 1000"  # so that a checkpoint is that of the interruption


@dataclass
class Story:
    """A sweep of one trial when its commands have ended.

    Attributes:
        trial: Its record, with what it was asked to do.
        first: What the first command has printed.
        log: What the trial has written.
        alone: Metrics of the same trial on one worker, which needs no Ray.
    """

    trial: TrialRecord
    first: str
    log: str
    alone: Mapping[str, float]


def words(arm: str) -> tuple[str, ...]:
    return (*WORDS, f"design.arms={{only: {{training.device: cpu, {arm}}}}}", "design.baseline=only")


def story_of(file: Path, first: str) -> Story:
    (record,) = trials(file.with_suffix(""))
    log = (file.with_suffix("") / "trials" / record.trial_id / "logs" / "train.log").read_text()
    base = expand(load_sweep(file, ["base.overrides.training.device=cpu"])).arms[0]
    alone = train(with_seed(base.trial, record.seed), file.parent / "alone").metrics
    return Story(trial=record, first=first, log=log, alone=alone)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Each worker holds the whole model. Ctrl-C ends the first command; in the second one a worker is killed."""
    folder = tmp_path_factory.mktemp("whole")
    file = write(folder, steps=250)
    directory = file.with_suffix("")
    first = SweepProcess(file, folder, *words(SELDOM), env=TWO_GPUS)
    wait_until(lambda: trains(directory), first, WORKERS_START_S)
    first.interrupt()
    assert first.wait(90) == 130, first.text()
    assert not first.leftovers()

    second = SweepProcess(file, folder, *words(SELDOM), env=TWO_GPUS)
    wait_until(lambda: trains(directory, attempt=2), second, WORKERS_START_S)
    second.train_workers()[-1].kill()
    assert second.wait(600) == 0, second.text()
    assert not second.leftovers()
    return story_of(file, first.text())


def assert_same_training(story: Story) -> None:
    assert story.trial.metrics["validation/loss"] == pytest.approx(story.alone["validation/loss"], rel=1e-5)
    assert story.trial.metrics["flops/total"] == story.alone["flops/total"]


def test_on_ctrl_c_two_workers_leave_a_checkpoint_and_end_later_with_the_loss_of_one(whole: Story) -> None:
    assert "continues" in whole.first
    assert foreign(whole.first) == []
    assert "1 starting 2 workers" in whole.first or "waiting for resources" in whole.first
    assert "a checkpoint is there" in whole.log
    assert "attempt 2 continues after step" in whole.log
    assert_same_training(whole)


def test_a_trial_of_which_one_worker_is_killed_goes_on_from_its_last_checkpoint(whole: Story) -> None:
    assert (whole.trial.status, whole.trial.attempts) == ("finished", 3)
    assert "attempt 3 continues after step" in whole.log


def test_workers_on_the_cpu_hold_the_gpus_that_their_trial_asks_for(whole: Story) -> None:
    assert whole.trial.environment["variables"]["STACKWISE_GPUS"] == "2"
    assert whole.trial.environment["workers"] == 2


@pytest.mark.exhaustive
def test_a_trial_in_shards_goes_on_from_the_checkpoint_that_all_its_workers_gathered(tmp_path: Path) -> None:
    """Death and restart are those of whole models; checkpoints of shards are tested without Ray, too."""
    file = write(tmp_path, steps=100)
    directory = file.with_suffix("")
    sweep = SweepProcess(file, tmp_path, *words("training.parallel: sharded"), env=TWO_GPUS)
    wait_until(lambda: any(directory.glob("trials/*/checkpoints/step_*")), sweep, WORKERS_START_S)
    sweep.train_workers()[-1].kill()
    assert sweep.wait(600) == 0, sweep.text()
    story = story_of(file, sweep.text())
    assert (story.trial.status, story.trial.attempts) == ("finished", 2)
    assert "attempt 2 continues after step" in story.log
    assert_same_training(story)
