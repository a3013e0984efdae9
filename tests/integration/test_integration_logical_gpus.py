"""Placement by GPUs on a machine without one: real Ray counts two, the trials train on the CPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.logical_gpu_trials import NAME
from tests.integration.sweep_processes import SweepProcess
from tests.integration.test_integration_sweep import write
from tests.warm_processes import WarmProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `logical_gpu_trials` prints, and in which process a device was lost."""
    folder = tmp_path_factory.mktemp("placed")
    environment = {**os.environ, "STACKWISE_GPUS": "2", "PYTHONPATH": str(Path(__file__).parents[2])}  # Ray's, too
    printed = folder / "printed"
    code = WarmProcess(NAME, [str(folder)], output=printed, cwd=folder, env=environment).wait(400)
    assert code == 0, printed.read_text()
    answer = next(line for line in reversed(printed.read_text().splitlines()) if line.startswith("{"))
    return {**json.loads(answer), "lost": int((folder / "lost" / "lost").read_text())}


@pytest.mark.parametrize(("name", "gpus"), [("whole GPUs", 1.0), ("halves", 0.5)])
def test_two_trials_at_once_train_on_two_gpus_also_where_each_asks_for_half_of_one(
    told: dict[str, Any], name: str, gpus: float
) -> None:
    assert told[name]["gpus"] == 2
    trials = told[name]["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "finished"]
    assert sorted(trial["environment"]["gpu"] for trial in trials) == [[0], [1]]
    assert {trial["environment"]["gpus"] for trial in trials} == {gpus}


def test_a_process_that_lost_its_device_takes_no_further_trial_and_its_own_is_tried_once_more(
    told: dict[str, Any],
) -> None:
    trials = told["a lost device"]["trials"]
    assert told["a lost device"]["slots"] == 1
    assert [trial["status"] for trial in trials] == ["finished"] * 3
    assert sorted(trial["attempts"] for trial in trials) == [1, 1, 2]
    assert told["lost"] not in {trial["environment"]["pid"] for trial in trials}


def test_what_a_dead_actor_has_reserved_stays_taken_until_its_group_is_removed(told: dict[str, Any]) -> None:
    found = told["a stranded group"]
    assert found == {"alive": 0, "held": 0, "stranded": 1, "free": 2, "own": True}


def test_a_trial_that_asks_for_more_gpus_than_are_counted_is_refused(tmp_path: Path) -> None:
    sweep = SweepProcess(write(tmp_path), tmp_path, "resources.gpus_per_trial=1", env={"STACKWISE_GPUS": "0"})
    assert sweep.wait() == 2
    assert "asks for 1 worker(s) with 1 CPUs and 1 GPUs per trial, but this machine has 0 GPUs" in sweep.text()
    assert not (tmp_path / "small").exists()
