"""Gradients are summed over the workers while the backward pass still computes earlier ones.

`Replicated` makes one per step. As torch's DistributedDataParallel does it (Li et al. 2020, 2006.15704), which is not
used: it wraps the model, of which a step asks more than its forward pass, and wants to know before a pass which
parameters it reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from stackwise_ray.training.parallel.collectives import Collectives, buckets


class GradientSums:
    """The sums of one step, bucket after bucket in an order that is the same on every worker.

    A bucket is begun once the gradients in it are complete and the bucket before it is begun. Those that this worker's
    pass does not complete are begun by `finish`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        self._parameters, self._collectives = parameters, collectives
        self._buckets = buckets(parameters[::-1])  # about the order in which a backward pass reaches them
        self._awaited = [set(map(id, bucket)) for bucket in self._buckets]
        self._begun: list[Callable[[], None]] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def watch(self) -> None:
        """The backward pass that comes is the step's last: what it completes may be summed at once."""
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                hook = parameter.register_post_accumulate_grad_hook(partial(self._complete, number))  # type: ignore[no-untyped-call]
                self._hooks.append(hook)

    def finish(self, loss: Tensor) -> None:
        """Replaces the loss, shape (), and the gradients by their sums.

        A gradient that this worker alone lacks counts as 0: it had no sequence of a short batch. One that no worker
        has stays absent, as on a single worker: the optimizer leaves such a parameter alone.
        """
        for hook in self._hooks:
            hook.remove()
        held = [parameter.grad is not None for parameter in self._parameters]
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        while len(self._begun) < len(self._buckets):
            self._begin()
        self._begun.append(self._collectives.begin_sum([loss]))
        workers = self._collectives.sum_numbers(held)
        for end in self._begun:
            end()
        for parameter, holding in zip(self._parameters, workers, strict=True):
            if not holding:
                parameter.grad = None

    def _complete(self, number: int, parameter: Tensor) -> None:
        if number < len(self._begun):
            raise RuntimeError("a gradient changed after its sum over the workers had begun")
        self._awaited[number].discard(id(parameter))
        while len(self._begun) < len(self._buckets) and not self._awaited[len(self._begun)]:
            self._begin()

    def _begin(self) -> None:
        bucket = self._buckets[len(self._begun)]
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        self._begun.append(self._collectives.begin_sum(gradients))
