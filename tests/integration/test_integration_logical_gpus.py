"""Placement by GPUs on a machine without one: real Ray counts two, the trials train on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.logical_gpu_trials import NAME
from tests.integration.sweep_processes import SweepProcess, trials
from tests.integration.test_integration_sweep import write
from tests.integration.test_integration_sweep_workers import ONE_TRIAL, assert_same_training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TWO_GPUS = {"STACKWISE_GPUS": "2"}
TWO_WORKERS = (*ONE_TRIAL, "resources.workers=2", "resources.gpus_per_trial=1")


def placed(folder: Path, worker: str, *, gpus: float, n_trials: int, at_once: int) -> dict[str, Any]:
    """What the trials of `logical_gpu_trials` tell."""
    words = [sys.executable, "-m", NAME, str(folder), worker, str(gpus), str(n_trials), str(at_once)]
    environment = {**os.environ, **TWO_GPUS, "PYTHONPATH": str(Path(__file__).parents[2])}  # for Ray's processes, too
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("gpus", [1.0, 0.5])
def test_two_trials_at_once_train_on_two_gpus_also_where_each_asks_for_half_of_one(tmp_path: Path, gpus: float) -> None:
    told = placed(tmp_path, "together", gpus=gpus, n_trials=2, at_once=2)
    assert told["gpus"] == 2
    assert [trial["status"] for trial in told["trials"]] == ["finished", "finished"]
    assert sorted(trial["environment"]["gpu"] for trial in told["trials"]) == [[0], [1]]
    assert {trial["environment"]["gpus"] for trial in told["trials"]} == {gpus}


def test_a_process_that_lost_its_device_takes_no_further_trial_and_its_own_is_tried_once_more(
    tmp_path: Path,
) -> None:
    told = placed(tmp_path, "lost_once", gpus=1.0, n_trials=3, at_once=1)
    assert told["slots"] == 1
    assert [trial["status"] for trial in told["trials"]] == ["finished"] * 3
    assert sorted(trial["attempts"] for trial in told["trials"]) == [1, 1, 2]
    lost = int((tmp_path / "lost").read_text())
    assert lost not in {trial["environment"]["pid"] for trial in told["trials"]}


def test_a_trial_of_two_workers_on_the_cpu_holds_two_gpus_and_trains_as_one_worker_does(tmp_path: Path) -> None:
    file = write(tmp_path, steps=20)
    sweep = SweepProcess(file, tmp_path, *TWO_WORKERS, "base.overrides.training.device=cpu", env=TWO_GPUS)
    assert sweep.wait(timeout=400) == 0, sweep.text()
    assert not sweep.leftovers()
    (record,) = trials(tmp_path / "small")
    assert record.environment["variables"]["STACKWISE_GPUS"] == "2"
    assert record.environment["workers"] == 2
    assert_same_training(tmp_path / "small", file)


@pytest.mark.skipif(torch.cuda.is_available(), reason="nccl starts where there is a GPU")
def test_workers_whose_start_fails_give_their_resources_back_and_the_trial_fails_with_the_reason(
    tmp_path: Path,
) -> None:
    """The device is `auto`, so two workers that were given GPUs add up by nccl, which finds none here."""
    sweep = SweepProcess(write(tmp_path), tmp_path, *TWO_WORKERS, env=TWO_GPUS)
    assert sweep.wait(timeout=500) == 1, sweep.text()  # Ray Train starts three times
    assert not sweep.leftovers()
    (record,) = trials(tmp_path / "small")
    assert record.status == "failed"
    assert record.attempts == 3
    assert record.reason is not None
    assert "its worker died 3 times" in record.reason


def test_a_trial_that_asks_for_more_gpus_than_are_counted_is_refused(tmp_path: Path) -> None:
    sweep = SweepProcess(write(tmp_path), tmp_path, "resources.gpus_per_trial=1", env={"STACKWISE_GPUS": "0"})
    assert sweep.wait() == 2
    assert "asks for 1 worker(s) with 1 CPUs and 1 GPUs per trial, but this machine has 0 GPUs" in sweep.text()
    assert not (tmp_path / "small").exists()


STRANDED = """
import time
import ray
from ray.util.placement_group import placement_group
from stackwise_ray.distributed.session import ray_session
from stackwise_ray.distributed.worker_groups import remove_stranded_groups
from stackwise_ray.planning.demand import Demand

@ray.remote(num_cpus=0)
class Controller:
    def reserve(self):
        return placement_group([{"GPU": 1}, {"GPU": 1}]).wait(60)

def free(expected):
    end = time.monotonic() + 20
    while (found := ray.available_resources().get("GPU", 0)) != expected and time.monotonic() < end:
        time.sleep(0.1)
    return found

with ray_session(Demand(gpus=1)):
    own = placement_group([{"CPU": 0.5}])  # of the driver, as Tune's are
    controller = Controller.remote()
    assert ray.get(controller.reserve.remote()) and own.wait(60)
    alive = remove_stranded_groups()
    ray.kill(controller)
    time.sleep(3)  # Ray does nothing in this time
    held = free(0)
    print(alive, held, remove_stranded_groups(), free(2), own.wait(1))
"""


def test_what_a_dead_actor_has_reserved_stays_taken_until_its_group_is_removed() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", STRANDED], env={**os.environ, **TWO_GPUS}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].split() == ["0", "0", "1", "2.0", "True"]
