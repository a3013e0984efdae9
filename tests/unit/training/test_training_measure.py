"""Peak memory is that of training steps, also where a GPU's allocator knows one peak for everything."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import torch

from stackwise_ray.training.checkpoint_writer import CheckpointWriter
from stackwise_ray.training.evaluation import Evaluator
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.step import TrainingStep
from tests.small_trials import TRIAL, run, with_training


class Allocator:
    """One peak since the last reset, as CUDA's allocator has it."""

    def __init__(self) -> None:
        self.held, self.peak = 1000, 1000

    def reset(self, device: torch.device | None = None) -> None:
        self.peak = self.held

    def use(self, size: int) -> None:
        """Something takes memory and gives it back."""
        self.peak = max(self.peak, self.held + size)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    """The allocator of the device that everything of this test trains on."""
    made = Allocator()
    monkeypatch.setattr("stackwise_ray.training.measure.reset_device_peak", made.reset)
    monkeypatch.setattr("stackwise_ray.training.measure.device_peak_bytes", lambda device: made.peak)
    return made


def test_what_a_gpu_holds_between_two_steps_is_not_their_peak(allocator):
    meter = Meter(torch.nn.Linear(2, 2), torch.device("cuda"), Alone())
    allocator.use(9999)  # the model is built
    assert meter.device_peak() is None
    for sizes, peak in (((50,), 1050), ((70, 40), 1070), ((60,), 1070)):
        for size in sizes:
            meter.begin_steps()
            allocator.use(size)
        assert meter.device_peak() == peak
        meter.end_steps()
        allocator.use(5000)  # an evaluation
    assert meter.device_peak() == meter.to_plain()["peak_bytes"] == 1070


@pytest.mark.usefixtures("module_cache")
def test_evaluation_and_checkpoints_of_a_trial_are_not_in_its_peak_memory(allocator, monkeypatch, tmp_path):
    take, validate, write = TrainingStep.take, Evaluator.validate, CheckpointWriter.write

    def taking(self: TrainingStep, **arguments: Any) -> Any:
        allocator.use(10**9 + arguments["step"])
        return take(self, **arguments)

    def validating(self: Evaluator, *arguments: Any) -> Generator[None, None, dict[str, float]]:
        allocator.use(10**12)
        return (yield from validate(self, *arguments))

    def writing(self: CheckpointWriter, *arguments: Any, **options: Any) -> None:
        allocator.use(10**12)
        write(self, *arguments, **options)

    monkeypatch.setattr(TrainingStep, "take", taking)
    monkeypatch.setattr(Evaluator, "validate", validating)
    monkeypatch.setattr(CheckpointWriter, "write", writing)
    growing = with_training(TRIAL, regime="depth_time", checkpoint_seconds=0.0, evaluations=3)
    _, result = run(growing, tmp_path)
    assert result.metrics["memory/peak_bytes"] == 1000 + 10**9 + result.metrics["steps/total"] - 1
