"""The summed cross-entropy: every loss of this program is a sum over positions, divided once, at the end.

A loss is the sum over positions divided by the number of loss positions of the *global* batch. So micro-batches and
workers add sums and counts, and only the caller that knows the whole divides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

IGNORED = -100
"""Target of a position that has no loss."""


def summed_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of −log p(target) in nats over the positions that have a target, and their number.

    Args:
        logits: (..., vocab_size), any floating type; half precision is widened to float32 first.
        targets: (...) int64 token ids, `IGNORED` where there is no loss. Already aligned: nothing is shifted here.

    Returns:
        (sum, count): a float64 scalar that carries the gradient, added up in float64 so that the sum over a large
        batch does not depend on its cut; and an int64 scalar.

    Example:
        >>> total, count = summed_cross_entropy(torch.zeros(2, 3, 8), torch.tensor([[1, 2, 3], [4, -100, -100]]))
        >>> round(total.item() / count.item(), 6), count.item()  # ln 8
        (2.079442, 4)
    """
    flat = logits.reshape(-1, logits.shape[-1])
    if flat.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()
    flat_targets = targets.reshape(-1)
    losses = functional.cross_entropy(flat, flat_targets, ignore_index=IGNORED, reduction="none")
    return losses.sum(dtype=torch.float64), (flat_targets != IGNORED).sum()


def with_auxiliary(loss: torch.Tensor, model: torch.nn.Module, output: Any, share: float) -> torch.Tensor:
    """What is differentiated: a part of the loss, and that part of what the model adds on its own account.

    A model may hand out `aux_loss`, the mean over the batch's sequences of something to be kept small beside the
    loss, such as the load balance of experts, and the weight that its config gives it, `router_aux_loss_coef`
    (transformers' names for both). Reported losses are without it.

    Args:
        loss: The micro-batch's part of the loss.
        share: The micro-batch's sequences over those of the global batch.

    Returns:
        `loss` itself where the model adds nothing.
    """
    auxiliary: torch.Tensor | None = getattr(output, "aux_loss", None)
    if auxiliary is None:
        return loss
    config: Any = model.config
    weight: float = config.router_aux_loss_coef
    return loss + weight * share * auxiliary
