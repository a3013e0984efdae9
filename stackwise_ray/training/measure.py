"""The loop's instruments: FLOPs once per batch shape, memory on the first steps, nothing on all others.

A counter sees every operation, which slows a step down, and changes no number: so a real step of each new shape is
counted and the count reused for its like.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from stackwise_ray.metrics.flops import FlopCounter, optimizer_flops
from stackwise_ray.metrics.memory import (
    LiveTensorPeak,
    SavedActivations,
    device_peak_bytes,
    in_shards,
    reset_device_peak,
    tensors_of,
)
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.progress import Flops
from stackwise_ray.training.stabilisers import capping_flops

_MEMORY_STEPS = 2
"""Steps of a stage whose memory is measured: from the second on the optimizer's state is there before it begins."""


class Meter:
    """Measures one run on one worker.

    Args:
        count: Whether evaluation is counted; a foreign model may run operations that have no FLOP rule.

    Attributes:
        peak_bytes: Most bytes of a training step, in live tensors (CPU) or of the allocator (GPU); None before a
            measurement. Evaluation, checkpoints and what happens between two stages are not in it.
        saved_bytes: Bytes saved for the backward pass in the current stage.
    """

    def __init__(
        self, model: torch.nn.Module, device: torch.device, collectives: Collectives, *, count: bool = True
    ) -> None:
        self._model, self._device, self._collectives, self._count = model, device, collectives, count
        self._steps: dict[str, Flops] = {}
        self._evaluations: dict[int, int] = {}
        self.evaluation_flops = 0  # counted by this worker since the last call of `take_evaluation_flops`
        self.peak_bytes: int | None = None
        self.saved_bytes: int | None = None
        self._in_steps = False

    def enter_stage(self) -> None:
        """Forgets what was measured of the model as it was in another stage."""
        self.forget_evaluations()
        self.saved_bytes = None

    def begin_steps(self) -> None:
        """A training step comes: a GPU's peak counts from here to `end_steps`."""
        if not self._in_steps:
            reset_device_peak(self._device)
            self._in_steps = True

    def end_steps(self) -> None:
        """What comes is no training step, and its memory does not count."""
        self.peak_bytes, self._in_steps = self.device_peak(), False

    def forget_evaluations(self) -> None:
        """Forgets what was counted of evaluation, as other blocks are active from now on."""
        self._evaluations.clear()

    def knows(self, stage: int, n_sequences: int, stage_step: int, form: str = "") -> bool:
        """Whether a step of this shape needs no instrument any more.

        Args:
            form: What else its FLOPs depend on (`models.component.begin_step`).
        """
        return _key(stage, n_sequences, form) in self._steps and stage_step >= _MEMORY_STEPS

    def flops_of(self, stage: int, n_sequences: int, form: str = "") -> Flops:
        """What a step of `n_sequences` global sequences costs, all workers together."""
        return self._steps[_key(stage, n_sequences, form)]

    @contextlib.contextmanager
    def step(
        self,
        stage: int,
        n_sequences: int,
        stage_step: int,
        optimizer: torch.optim.Optimizer,
        capped: Sequence[torch.Tensor] = (),
        form: str = "",
    ) -> Iterator[contextlib.AbstractContextManager[object]]:
        """Around a step that is not yet known; the value given is to be put around its forward and backward passes.

        Args:
            capped: Matrices whose spectral norm the step caps, as a part of the update.
            form: As in `knows`.
        """
        counter = FlopCounter()
        saved = SavedActivations(self._model) if stage_step == 0 or self.saved_bytes is None else None
        self.begin_steps()
        stack = contextlib.ExitStack()
        live = None
        with stack:
            if self._device.type == "cpu":
                live = stack.enter_context(self._live(optimizer))
            yield _inside(saved or contextlib.nullcontext(), counter)
        if live is not None:
            self.peak_bytes = max(self.peak_bytes or 0, live.peak_bytes)
        if saved is not None:
            self.saved_bytes = saved.bytes
        key = _key(stage, n_sequences, form)
        if key not in self._steps:
            count = counter.count
            parts = (count.forward, count.backward, count.recomputed)
            forward, backward, recomputed = (self._collectives.sum_number(part) for part in parts)
            self._steps[key] = Flops(
                forward=forward,
                backward=backward,
                recomputed=recomputed,
                optimizer=optimizer_flops(self._model) + capping_flops(capped),
            )

    def _live(self, optimizer: torch.optim.Optimizer) -> LiveTensorPeak:
        return LiveTensorPeak(tensors_of(self._model, optimizer), shrinking=in_shards(self._model))

    @contextlib.contextmanager
    def evaluation(self, n_windows: int, *, alike: bool = True) -> Iterator[None]:
        """Around the forward pass of an evaluation batch.

        Args:
            alike: Whether passes over as many windows cost the same; else each is counted.
        """
        if not self._count:
            yield
            return
        if not alike:
            with FlopCounter() as counter:
                yield
            self.evaluation_flops += counter.count.forward
            return
        if n_windows in self._evaluations:
            yield
        else:
            with FlopCounter() as counter:
                yield
            self._evaluations[n_windows] = counter.count.forward
        self.evaluation_flops += self._evaluations[n_windows]

    def take_evaluation_flops(self) -> int:
        """FLOPs of evaluation since the last call, all workers together."""
        spent, self.evaluation_flops = self._collectives.sum_number(self.evaluation_flops), 0
        return spent

    def device_peak(self) -> int | None:
        """Peak memory of the training steps so far: the allocator's on a GPU, the measured steps' on a CPU."""
        on_device = device_peak_bytes(self._device) if self._in_steps else None
        return self.peak_bytes if on_device is None else max(on_device, self.peak_bytes or 0)

    def to_plain(self) -> dict[str, Any]:
        """JSON data for a checkpoint, so that a continued run counts nothing again."""
        return {
            "steps": {key: asdict(value) for key, value in self._steps.items()},
            "peak_bytes": self.device_peak(),
            "saved_bytes": self.saved_bytes,
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Takes over what `to_plain` gave."""
        self._steps = {key: Flops(**value) for key, value in plain["steps"].items()}
        self.peak_bytes, self.saved_bytes = plain["peak_bytes"], plain["saved_bytes"]


@contextlib.contextmanager
def _inside(*contexts: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def _key(stage: int, n_sequences: int, form: str) -> str:
    return f"{stage}/{n_sequences}/{form}" if form else f"{stage}/{n_sequences}"
