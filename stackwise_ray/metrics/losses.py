"""The summed cross-entropy: every loss of this program is a sum over positions, divided once, at the end.

A loss is the sum over positions divided by the number of loss positions of the *global* batch. So micro-batches and
workers add sums and counts, and only the caller that knows the whole divides.

Logits in 16 bits are never widened as a whole: the loss and its gradient go over them in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

IGNORED = -100
"""Target of a position that has no loss."""

PIECE = 2**23
"""Logits that are widened to float32 at once: 32 MiB, which with 16 MiB of gradient stay in the second-level cache of
an H100 or H200 (50 MB) between one kernel and the next. At a vocabulary of 50,257 that is 166 positions, which is more
than such a GPU has multiprocessors (132), so that one piece keeps all of them busy."""


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
    losses = cross_entropies(logits, targets)
    return losses.sum(dtype=torch.float64), (targets != IGNORED).sum()


def cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """−log p(target) in nats of each position, 0 where there is no target; shape of `targets`.

    Logits in 16 bits: the values are those of the logits widened to float32; the gradient is computed in float32 and
    rounded to 16 bits once. Neither keeps a float32 copy of the logits or of the probabilities. Wider logits go through
    `torch.nn.functional.cross_entropy`.

    Args:
        logits: (..., vocab_size), any floating type.
        targets: (...) int64 token ids, `IGNORED` where there is no loss.
    """
    flat, flat_targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    losses: torch.Tensor
    if flat.dtype in (torch.float16, torch.bfloat16):
        losses = _InPieces.apply(flat, flat_targets)  # type: ignore[no-untyped-call]
    else:
        losses = _each(flat, flat_targets)
    return losses.view_as(targets)


def _each(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")


class _InPieces(torch.autograd.Function):
    """Cross-entropies of 16-bit logits (positions, vocab_size), a piece of the positions at a time.

    The gradient of position i is g_i (softmax(logits_i) − onehot(target_i)). Its value at the target, p − 1, is
    expm1(−loss): what the forward pass found.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = torch.empty(targets.shape, dtype=torch.float32, device=logits.device)
        for piece in _pieces(logits):
            losses[piece] = _each(logits[piece].float(), targets[piece])
        ctx.save_for_backward(logits, targets, losses)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, losses = ctx.saved_tensors
        scored = targets != IGNORED
        scale = (gradient * scored).unsqueeze(-1)
        result = torch.empty_like(logits)
        for piece in _pieces(logits):
            # `out` rounds inside the product's own kernel: no float32 gradient is written.
            torch.mul(logits[piece].softmax(-1, dtype=torch.float32), scale[piece], out=result[piece])
        at_target = torch.expm1(-losses).unsqueeze(-1) * scale
        result.scatter_(-1, (targets * scored).unsqueeze(-1), at_target.to(result.dtype))
        return result, None


def _pieces(logits: torch.Tensor) -> Iterator[slice]:
    positions, vocab_size = logits.shape
    rows = max(1, PIECE // vocab_size)
    for start in range(0, positions, rows):
        yield slice(start, start + rows)


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
