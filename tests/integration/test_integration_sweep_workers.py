"""Trials of two workers in a sweep: Ctrl-C, and a worker that dies.

Only Ray counts the two GPUs that each trial asks for. One sweep goes through all of it in two commands; its trials run
one after the other, as each takes both CPUs.
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
from tests.integration.sweep_processes import SweepProcess, trains, trials, wait_until
from tests.integration.test_integration_sweep import write
from tests.integration.test_integration_watching import foreign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS_START_S = 240.0
"""Two workers of a trial begin to train within this, also where the machine does other work."""
TWO_GPUS = {"STACKWISE_GPUS": "2"}
SELDOM = "training.checkpoint_seconds: 1000"  # so that a checkpoint is that of the interruption
STEPS = {"whole": 250, "shards": 100}
ARMS = [
    f"whole: {{training.device: cpu, {SELDOM}}}",
    f"shards: {{training.device: cpu, training.parallel: sharded, training.budget: {{steps: {STEPS['shards']}}}}}",
]
WORDS = ("replicates.seeds=1", "analysis=[]", "resources.workers=2", "resources.gpus_per_trial=1")


@dataclass
class Story:
    """The sweep when both commands have ended.

    Attributes:
        interrupted: What the first command has printed.
        alone: Metrics of each arm's trial on one worker, which needs no Ray.
    """

    file: Path
    interrupted: str
    alone: Mapping[str, Mapping[str, float]]

    def trial(self, arm: str) -> TrialRecord:
        return next(record for record in trials(self.file.with_suffix("")) if record.arm == arm)

    def log(self, arm: str) -> str:
        return (self.file.with_suffix("") / "trials" / self.trial(arm).trial_id / "logs" / "train.log").read_text()


def leaves_checkpoints(directory: Path, arm: str) -> bool:
    return any(
        any((directory / "trials" / record.trial_id / "checkpoints").glob("step_*"))
        for record in trials(directory)
        if record.arm == arm
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("workers")
    file = write(folder, steps=STEPS["whole"])
    directory = file.with_suffix("")
    words = (*WORDS, f"design.arms={{{', '.join(ARMS)}}}", "design.baseline=whole")

    first = SweepProcess(file, folder, *words, env=TWO_GPUS)
    wait_until(lambda: trains(directory), first, WORKERS_START_S)
    first.interrupt()
    assert first.wait(90) == 130, first.text()
    assert not first.leftovers()

    second = SweepProcess(file, folder, *words, env=TWO_GPUS)
    wait_until(lambda: leaves_checkpoints(directory, "shards"), second, 2 * WORKERS_START_S)
    second.train_workers()[-1].kill()
    assert second.wait(600) == 0, second.text()
    assert not second.leftovers()
    alone = {}
    for record in trials(directory):
        changes = ("training.device=cpu", f"training.budget={{steps: {STEPS[record.arm]}}}")
        base = expand(load_sweep(file, [f"base.overrides.{change}" for change in changes])).arms[0]
        alone[record.arm] = train(with_seed(base.trial, record.seed), folder / "alone" / record.arm).metrics
    return Story(file=file, interrupted=first.text(), alone=alone)


def assert_same_training(record: TrialRecord, story: Story) -> None:
    alone = story.alone[record.arm]
    assert record.metrics["validation/loss"] == pytest.approx(alone["validation/loss"], rel=1e-5)
    assert record.metrics["flops/total"] == alone["flops/total"]


def test_on_ctrl_c_two_workers_leave_a_checkpoint_and_end_later_with_the_loss_of_one(story: Story) -> None:
    assert "continues" in story.interrupted
    assert foreign(story.interrupted) == []
    assert "1 starting 2 workers" in story.interrupted or "waiting for resources" in story.interrupted
    log = story.log("whole")
    assert "a checkpoint is there" in log
    assert "continues after step" in log
    record = story.trial("whole")
    assert (record.status, record.attempts) == ("finished", 2)
    assert_same_training(record, story)


def test_a_trial_of_which_one_worker_is_killed_goes_on_from_its_last_checkpoint(story: Story) -> None:
    """In shards, whose checkpoints all workers gather; death and restart are the same for whole models."""
    record = story.trial("shards")
    assert (record.status, record.attempts) == ("finished", 2)
    assert "continues after step" in story.log("shards")
    assert_same_training(record, story)


def test_workers_on_the_cpu_hold_the_gpus_that_their_trial_asks_for(story: Story) -> None:
    for arm in ("whole", "shards"):
        environment = story.trial(arm).environment
        assert environment["variables"]["STACKWISE_GPUS"] == "2"
        assert environment["workers"] == 2
