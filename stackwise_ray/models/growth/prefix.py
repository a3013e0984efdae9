"""Cutting the forward pass below a block: what goes into it, and going on from there as if the blocks before had run.

A frozen prefix gives the same for the same input as long as it is frozen, so what it gives can be kept
(`training.prefix_cache`) and the pass begun above it. Both need a growable model (`insertion.make_growable`): the
blocks that are left out are switched off, and cost nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stackwise_ray.models.growth.insertion import active_blocks, set_active
from stackwise_ray.models.growth.time_input import takes_time
from stackwise_ray.models.stack_view import stack_view


@torch.no_grad()
def prefix_output(model: PreTrainedModel, number: int, **inputs: Any) -> Tensor:
    """What block `number` gets from the active blocks before it, (batch, n, d_model), without a gradient.

    Args:
        inputs: As for the model's forward pass.
    """
    found: list[Tensor] = []
    network: Any = model
    handle = stack_view(model).blocks[number].register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with handle, _blocks(model, below=number):
        # The base model has no head, whose logits nobody would read.
        network.base_model(**({"inputs_embeds": network.embedded(**inputs)} if takes_time(model) else inputs))
    return found[0]


def forward_from(model: PreTrainedModel, number: int, hidden: Tensor) -> Any:
    """The model's output of a pass that begins in block `number`, which gets `hidden` as it is.

    What the model does to embeddings before its blocks (positions, a norm) is computed and not used.
    """
    handle = stack_view(model).blocks[number].register_forward_pre_hook(lambda _, given: (hidden, *given[1:]))
    with handle, _blocks(model, from_=number):
        return model(inputs_embeds=hidden)


@contextlib.contextmanager
def _blocks(model: PreTrainedModel, *, from_: int = 0, below: int | None = None) -> Iterator[None]:
    """Leaves on, of the blocks that are active, those in a range, and puts all back."""
    active = active_blocks(model)
    set_active(model, [number for number in active if from_ <= number and (below is None or number < below)])
    try:
        yield
    finally:
        set_active(model, active)
