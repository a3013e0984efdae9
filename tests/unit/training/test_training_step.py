"""What a step leaves on the device, so that a GPU need not be waited for, and what is made of it later."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stackwise_ray.config.trial import ModelConfig, TrialConfig
from stackwise_ray.core.errors import TrialError
from stackwise_ray.data import prepare
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.parallel.parallelism import Replicated
from stackwise_ray.training.pending import PendingSteps
from stackwise_ray.training.progress import TrainingProgress
from stackwise_ray.training.step import StepValues, TrainingStep
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import TRIAL, with_training

CPU = torch.device("cpu")


class Reads(TorchDispatchMode):
    """Counts the numbers that Python reads out of tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


def started(trial: TrialConfig) -> TrainingStep:
    assembly = assemble(trial, prepare(trial.data), CPU)
    return TrainingStep(assembly, assembly.enter(assembly.plan.stages[0]), Alone())


@pytest.mark.usefixtures("module_cache")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_step_reads_no_number_out_of_a_tensor(precision: str) -> None:
    assert_reads_nothing(with_training(precision=precision, spectral_norm=True, accumulation=2))


@pytest.mark.usefixtures("module_cache")
@pytest.mark.parametrize("model", mostly_slow(MODELS))
def test_nor_does_a_family_in_its_passes(model: ModelConfig) -> None:
    assert_reads_nothing(replace(TRIAL, model=model))


def assert_reads_nothing(trial: TrialConfig) -> None:
    step = started(trial)
    for number in range(2):
        with Reads() as reads:
            step.take(step=number, first_sequence=8 * number, n_sequences=8, lr=1e-3)
        assert reads.count == 0


def values(loss: float, norm: float, scales: tuple[float, float]) -> StepValues:
    before, after = (torch.tensor(scale) for scale in scales)
    return StepValues(
        loss=torch.tensor(loss, dtype=torch.float64),
        gradient_norm=torch.tensor(norm),
        loss_positions=10,
        scales=(before, after),
    )


def test_a_step_whose_scale_fell_is_counted_as_skipped_and_its_gradient_is_not_reported() -> None:
    pending, progress = PendingSteps(CPU), TrainingProgress()
    pending.add(step=0, lr=0.1, values=values(0.1, 2.0, (8.0, 8.0)))
    pending.add(step=1, lr=0.2, values=values(0.3, math.inf, (8.0, 4.0)))
    pending.take_in(progress)
    assert progress.skipped_steps == 1
    assert progress.latest == {"train/lr": 0.2, "train/grad_norm": 2.0}
    assert progress.since_report.mean == (0.1 * 10 + 0.3 * 10) / 20
    assert not pending


def test_a_step_after_which_the_scale_grew_is_an_update() -> None:
    pending, progress = PendingSteps(CPU), TrainingProgress()
    pending.add(step=0, lr=0.1, values=values(0.1, 2.0, (8.0, 16.0)))
    pending.take_in(progress)
    assert progress.skipped_steps == 0
    assert progress.latest["train/grad_norm"] == 2.0


def test_a_loss_scale_that_has_collapsed_is_told_with_the_scale_of_that_very_step() -> None:
    pending = PendingSteps(CPU)
    for step, scale in enumerate((2.0, 1.0, 0.5)):
        pending.add(step=step, lr=0.1, values=values(0.1, math.inf, (scale, scale / 2)))
    with pytest.raises(TrialError, match=r"at step 1 even at the least loss scale 0\.5: loss = 0\.1, lr = 0\.1"):
        pending.take_in(TrainingProgress())


def test_nothing_is_waited_for_where_no_step_is_pending() -> None:
    progress = TrainingProgress()
    PendingSteps(CPU).take_in(progress)
    assert progress == TrainingProgress()


class Begins(Alone):
    """Notes how many sums begin while a backward pass is at work, and how many at another time."""

    def __init__(self) -> None:
        self.inside, self.begun = 0, {0: 0, 1: 0, 2: 0}

    def begin_sum(self, bucket: Sequence[torch.Tensor]) -> Callable[[], None]:
        self.begun[self.inside] += 1
        return super().begin_sum(bucket)


@pytest.mark.usefixtures("module_cache")
@pytest.mark.parametrize("instruments", [False, True])
def test_sums_of_gradients_begin_in_the_last_pass_of_a_step_unless_instruments_watch_it(
    instruments: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = with_training(accumulation=2)
    assembly = replace(assemble(trial, prepare(trial.data), CPU), parallelism=Replicated())
    noted = Begins()
    step = TrainingStep(assembly, assembly.enter(assembly.plan.stages[0]), noted)
    backward, passes = step._backward, iter((1, 2))

    def watched(*arguments: Any, **options: Any) -> torch.Tensor:
        noted.inside = next(passes)
        try:
            return backward(*arguments, **options)
        finally:
            noted.inside = 0

    monkeypatch.setattr(step, "_backward", watched)
    passing = contextlib.nullcontext() if instruments else None
    step.take(step=0, first_sequence=0, n_sequences=8, lr=1e-3, passes=passing)
    buckets = 1  # of a model this small; the loss is summed after the passes
    assert noted.begun == ({0: buckets + 1, 1: 0, 2: 0} if instruments else {0: 1, 1: 0, 2: buckets})
