"""What the workers of one trial exchange: sums, nothing else.

Every worker computes the gradient of its part of the *sum* of losses divided by the *global* number of loss positions,
so adding up the workers' gradients gives the gradient of the global mean: there is no second averaging to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel: large enough for bandwidth, small enough for memory


class Collectives(Protocol):
    """Sums over the workers of a trial. Every worker makes the same calls in the same order."""

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the workers, in place."""

    def begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], None]:
        """Begin to; the call that is given back ends it, and no tensor may be used before.

        Args:
            bucket: Of one type and device.
        """

    def sum_numbers(self, values: Sequence[int]) -> list[int]:
        """The sum of each integer over the workers, exactly; no GPU is waited for."""

    def sum_number(self, value: int) -> int:
        """The same of one."""


class Alone:
    """One worker: every sum is what it has."""

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""

    def begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], None]:
        return lambda: None

    def sum_numbers(self, values: Sequence[int]) -> list[int]:
        return list(values)

    def sum_number(self, value: int) -> int:
        return value


class TorchCollectives:
    """Sums over the default process group of `torch.distributed`, which the caller has set up.

    Integers are summed between the hosts (gloo), whatever sums the tensors: summed by nccl they would be there once
    the GPU has done all steps before.

    Args:
        device: The worker's.
    """

    def __init__(self, device: torch.device) -> None:
        self._hosts = dist.group.WORLD if device.type == "cpu" else dist.new_group(backend="gloo")

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        for bucket in buckets(tensors):
            self.begin_sum(bucket)()

    def begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], None]:
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        work = dist.all_reduce(flat, async_op=True)

        def end() -> None:
            work.wait()  # for the host with gloo; with nccl what the GPU does next waits, and the host does not
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):  # type: ignore[no-untyped-call]
                tensor.copy_(part.view_as(tensor))

        return end

    def sum_numbers(self, values: Sequence[int]) -> list[int]:
        # FLOP counts exceed 2**63 in no single step, but their sum over a cluster might: two halves stay exact.
        halves = torch.tensor([[value >> 31, value & 0x7FFFFFFF] for value in values], dtype=torch.int64)
        dist.all_reduce(halves, group=self._hosts)
        return [(high << 31) + low for high, low in halves.tolist()]

    def sum_number(self, value: int) -> int:
        return self.sum_numbers([value])[0]


def buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one type and device, up to `_BUCKET_BYTES` together."""
    buckets: list[list[Tensor]] = []
    for _, group in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        size = _BUCKET_BYTES
        for tensor in group:
            if size + tensor.nbytes > _BUCKET_BYTES:
                buckets.append([])
                size = 0
            buckets[-1].append(tensor)
            size += tensor.nbytes
    return buckets
