"""What the workers of one trial say to each other: sums, nothing else.

Every worker computes the gradient of its part of the *sum* of losses divided by the *global* number of loss positions,
so adding up the workers' gradients gives the gradient of the global mean: there is no second averaging to undo.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def sum_number(self, value: int) -> int:
        """The sum of an integer over the workers, exactly."""


class Alone:
    """One worker: every sum is what it has."""

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""

    def sum_number(self, value: int) -> int:
        return value


class TorchCollectives:
    """Sums over the default process group of `torch.distributed`, which the caller has set up.

    Args:
        device: Where the numbers of `sum_number` lie (nccl sums only on a GPU).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):  # type: ignore[no-untyped-call]
                tensor.copy_(part.view_as(tensor))

    def sum_number(self, value: int) -> int:
        # FLOP counts exceed 2**63 in no single step, but their sum over a cluster might: two halves stay exact.
        halves = torch.tensor([value >> 31, value & 0x7FFFFFFF], dtype=torch.int64, device=self._device)
        dist.all_reduce(halves)
        high, low = halves.tolist()
        return (int(high) << 31) + int(low)


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
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
