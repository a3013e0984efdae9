"""The stack view: embeddings, blocks, final norm and head of a model, whatever its family calls them.

Training stages freeze and grow by it, activation checkpointing wraps its blocks, and counting and reports read it.
It is a view: it holds the model's own modules and changes nothing by being made.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from stackwise_ray.models.family import FAMILIES
from stackwise_ray.models.growth.time_input import TIME
from stackwise_ray.models.stack import StackView

ADAPTER = "lora_"
"""How the name of every module that holds adapters begins; peft's own."""


def stack_view(model: PreTrainedModel) -> StackView:
    """The stack view of `model`, whose family is the one registered under its transformers `model_type`.

    Raises:
        ConfigError: No family is registered for it.
    """
    view = FAMILIES.get(model.config.model_type).stack_view(model)
    return replace(view, time=getattr(model, TIME, None))


def enable_activation_checkpointing(model: PreTrainedModel) -> None:
    """Makes every block keep its inputs alone and recompute the rest in the backward pass.

    The same numbers come out, bit for bit, for less memory and one more forward of the blocks (counted as
    `flops/recomputed`). In evaluation mode blocks run as before, except frozen ones where gradients are computed.
    Calling it twice changes nothing more.
    Recomputation replays the random state, so that dropout draws the same masks.
    """
    for block in stack_view(model).blocks:
        if not isinstance(block, _Recomputing):
            # A subclass of the block's own class: copies, state dicts and isinstance checks go on as they were.
            original: Any = type(block)
            block.__class__ = _recomputing(original)


class _Recomputing(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # A frozen block is in evaluation mode and still passes a gradient on, also to its adapters.
        own = (parameter for name, parameter in self.named_parameters() if f".{ADAPTER}" not in name)
        frozen = not any(parameter.requires_grad for parameter in own)
        if not torch.is_grad_enabled() or not (self.training or frozen):
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)


@functools.cache
def _recomputing(block_class: Any) -> Any:
    return type(f"Recomputing{block_class.__name__}", (_Recomputing, block_class), {})
