"""What a checkpoint brings back: scaler, random streams, counters, clocks; and when it is not bit-exact."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import CheckpointError
from stackwise_ray.data import prepare
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.checkpoints import Checkpoint
from stackwise_ray.training.state import capture, restore
from stackwise_ray.training.trial_folder import TrialResult
from tests.small_trials import TRIAL, with_model, with_training

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("module_cache")


def trial(**training: Any) -> TrialConfig:
    return with_training(TRIAL, **{"checkpoint_seconds": 0.0} | training)


def parts(asked: TrialConfig):
    assembly = assemble(asked, prepare(asked.data), CPU)
    return assembly, assembly.enter(assembly.plan.stages[0])


def checkpoint_of(assembly, tools) -> Checkpoint:
    state = capture(assembly, tools)
    tensors = {name: {k: v.detach().clone() for k, v in group.items()} for name, group in state.tensors.items()}
    return Checkpoint(step=3, tensors=tensors, state={"torch": json.loads(json.dumps(state.plain))})


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()


def test_every_random_stream_of_the_process_comes_back():
    assembly, tools = parts(trial())
    checkpoint = checkpoint_of(assembly, tools)
    after = draws()
    assert draws() != after
    restore(checkpoint, assembly, tools)
    assert draws() == after


def test_the_loss_scale_of_fp16_comes_back():
    assembly, tools = parts(trial(precision="fp16"))
    tools.scaler.load_state_dict(tools.scaler.state_dict() | {"scale": 1024.0, "_growth_tracker": 7})
    checkpoint = checkpoint_of(assembly, tools)
    assembly, tools = parts(trial(precision="fp16"))
    assert tools.scaler.get_scale() != 1024.0
    restore(checkpoint, assembly, tools)
    assert tools.scaler.state_dict()["scale"] == 1024.0
    assert tools.scaler.state_dict()["_growth_tracker"] == 7


@pytest.mark.parametrize("change", ["threads", "workers", "nothing"])
def test_another_number_of_threads_or_workers_is_not_bit_exact(change):
    assembly, tools = parts(trial())
    checkpoint = checkpoint_of(assembly, tools)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + (change == "threads"))
        assembly = replace(assembly, world_size=1 + (change == "workers"))
        assert restore(checkpoint, assembly, tools) is (change == "nothing")
    finally:
        torch.set_num_threads(threads)


def test_a_checkpoint_of_another_model_is_refused_by_name():
    checkpoint = checkpoint_of(*parts(with_model(trial(), d_model=32)))
    with pytest.raises(CheckpointError, match=r"of another model: \S*wte"):
        restore(checkpoint, *parts(trial()))


def attempt(directory: Path, number: int, reports: int | None = None) -> TrialResult | None:
    """One attempt, closed after some reports; its result where it came to its end."""
    generator = run_trial(trial(), directory, trial_id="t", attempt=number, keep_model=False)
    for _ in range(reports if reports is not None else 10**6):
        try:
            next(generator)
        except StopIteration as end:
            return end.value
        if reports is not None:
            time.sleep(0.2)  # time that this attempt takes and the next must count, too
    generator.close()
    return None


def test_a_continued_trial_counts_the_seconds_flops_and_memory_of_its_earlier_attempts(tmp_path):
    whole = attempt(tmp_path / "whole", 1)
    assert attempt(tmp_path / "t", 1, reports=5) is None
    continued = attempt(tmp_path / "t", 2)
    assert continued.metrics["time/total_s"] > 0.2 * 3  # the last checkpoint came after at least three of the pauses
    same = [name for name in whole.metrics if name.startswith(("flops/", "tokens/", "steps/", "memory/saved"))]
    assert len(same) > 6
    assert {name: continued.metrics[name] for name in same} == {name: whole.metrics[name] for name in same}
    assert continued.metrics["memory/peak_bytes"] == whole.metrics["memory/peak_bytes"]


def test_a_continued_trial_on_other_threads_says_that_it_is_not_bit_exact(tmp_path):
    attempt(tmp_path / "t", 1, reports=4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        attempt(tmp_path / "t", 2, reports=2)
        result = attempt(tmp_path / "t", 3)  # as the second attempt, but the first one's steps are in it
    finally:
        torch.set_num_threads(threads)
    assert result.environment["bit_exact"] is False
    assert "not bit-exact" in (tmp_path / "t" / "logs" / "train.log").read_text()
