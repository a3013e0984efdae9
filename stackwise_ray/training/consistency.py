"""The consistency of depth-as-time: the output of a stack that enters is drawn to what the next stack trained on.

λ‖h_k − stopgrad emb(mask(x, r_{k+1}))‖², summed over the width and averaged over the positions that are masked in the
stack's input and not in the next one's; h_k is the stack's output. The embeddings run once more, without a gradient and
without dropout; nothing else does, and lookups, norms and differences have no FLOPs in our counts. Reported losses are
without it.

The step and the planner call this around a forward pass; `objectives` make the clearer inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.training.modes import evaluation_mode
from stackwise_ray.training.stage import Stage


@contextlib.contextmanager
def stack_output(model: PreTrainedModel, stage: Stage) -> Iterator[list[Tensor]]:
    """Around a forward pass: the list gets h_k, the output of the stack that enters with `stage`.

    It stays empty in a stage without consistency.
    """
    hidden: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        hidden.append(output[0] if isinstance(output, tuple) else output)

    if stage.next_level is None:
        yield hidden
        return
    handle = stack_view(model).blocks[stage.inserted[-1]].register_forward_hook(keep)
    try:
        yield hidden
    finally:
        handle.remove()


def summed_distance(model: PreTrainedModel, hidden: Tensor, inputs: Tensor, clearer: Tensor) -> Tensor:
    """Squared distances of `hidden` from the embedding of `clearer`, summed over the positions newly revealed.

    Args:
        hidden: h_k, (batch, n, d_model).
        inputs, clearer: Tokens (batch, n) at the share of masks of this stack and of the next; where they differ, the
            token is newly revealed.

    Returns:
        A float64 scalar that carries the gradient of `hidden`.
    """
    view = stack_view(model)
    with contextlib.ExitStack() as still, torch.no_grad():
        for part in view.embeddings:
            still.enter_context(evaluation_mode(part))
        target = view.embed(clearer)
    distances = (hidden.float() - target.float()).square().sum(-1)
    return (distances * (inputs != clearer)).sum(dtype=torch.float64)
