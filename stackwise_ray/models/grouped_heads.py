"""Keeps grouped-query attention in float32 on a GPU out of torch's unfused path, which keeps N × N scores per head.

Of torch's fused CUDA kernels (up to 2.13) flash attention and cuDNN's take grouped heads and 16 bits alone; the
memory-efficient one takes float32 and equal numbers of heads alone. transformers hands over grouped heads wherever
there is no mask, and then torch multiplies, masks and normalises whole matrices of scores. With keys and values
repeated per query head, as transformers does beside a mask, float32 goes to the memory-efficient kernel.

`build` imports this module; from then on it holds for every transformers model of the process. Other devices and 16
bits stay as they are. The planner, which runs on tensors of a CPU, asks for `repeated` where it plans for a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers.integrations import sdpa_attention

_repeated = False  # whether every device repeats keys and values for now


@contextlib.contextmanager
def repeated() -> Iterator[None]:
    """Inside, keys and values are repeated on every device, as they are in float32 on a GPU."""
    global _repeated
    before, _repeated = _repeated, True
    try:
        yield
    finally:
        _repeated = before


def _unless_unfused(decide: Callable[..., bool]) -> Callable[..., bool]:
    def use_gqa_in_sdpa(attention_mask: Any, key: torch.Tensor, value: torch.Tensor) -> bool:
        return not (_repeated or _wide_on_a_gpu(key)) and decide(attention_mask, key, value)

    return use_gqa_in_sdpa


def _wide_on_a_gpu(key: torch.Tensor) -> bool:
    if key.device.type != "cuda":
        return False
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else key.dtype
    return dtype not in (torch.float16, torch.bfloat16)


setattr(  # noqa: B010 (a plain assignment does not type)
    sdpa_attention, "use_gqa_in_sdpa", _unless_unfused(sdpa_attention.use_gqa_in_sdpa)
)
