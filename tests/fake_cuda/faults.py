"""Faults that code for a GPU can have and that a CPU forgives: each is planted to see whether the device notices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from stackwise_ray.training import step as step_module
from stackwise_ray.training.step import TrainingStep

Fault = Callable[[], contextlib.AbstractContextManager[Any]]

_backward, _to_device = TrainingStep._backward, step_module.to_device


def _planted(change: Callable[[Tensor], Tensor]) -> Fault:
    """The loss of every micro-batch goes through `change` before it is added up."""

    def backward(self: TrainingStep, *args: Any, **kwargs: Any) -> Tensor:
        return change(_backward(self, *args, **kwargs))

    return lambda: mock.patch.object(TrainingStep, "_backward", backward)


def _pageable(array: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)


def _of_the_cpu(loss: Tensor) -> Tensor:
    noise = torch.empty(3, device=loss.device).normal_(generator=torch.Generator())
    return loss + 0 * noise.sum()


FAULTS: dict[str, Fault] = {
    "a tensor of the CPU": _planted(lambda loss: loss + 0 * (loss * torch.ones(3)).sum()),
    "a value that is read": _planted(lambda loss: loss if loss.item() < 1e9 else 0 * loss),
    "a generator of the CPU": _planted(_of_the_cpu),
    "a float64 buffer": _planted(lambda loss: loss + 0 * torch.zeros(3, dtype=torch.float64, device=loss.device).sum()),
    "a copy from pageable memory": lambda: mock.patch.object(step_module, "to_device", _pageable),
    "an operation without a FLOP rule": _planted(lambda loss: loss + 0 * torch.special.bessel_j0(loss)),
}
