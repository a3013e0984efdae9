"""Filling in masked tokens with an encoder: one sweep through depth, or rounds of the whole model.

A model grown right to left has a natural sampler: block k was trained where a share r_k of the tokens is masked, so a
window is entered at the first block with nearly everything masked, and every further suffix k … K finds the share that
its first block knows. Any encoder can be asked in rounds instead. Both commit the tokens that the model is surest of
first; their cost is counted in block passes, a block run once over all positions. A model that takes time gets
the share of positions that is still masked, before each pass.

Scripts and `benchmarks/sampling.py` call this. Decoders generate with transformers' `generate`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stackwise_ray.models.growth.insertion import set_active
from stackwise_ray.models.growth.time_input import takes_time
from stackwise_ray.models.stack_view import stack_view


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Tokens without masks.

    Attributes:
        tokens: (batch, n).
        block_passes: Blocks run, each counted once per window.
    """

    tokens: Tensor
    block_passes: int


def sweep(model: PreTrainedModel, tokens: Tensor, *, mask_id: int, levels: Sequence[float]) -> Filled:
    """Fills the masked positions in one sweep through depth (for a growable model that was grown right to left).

    Suffix k … K runs once; then so many of the surest tokens are committed that of those masked at the beginning a
    share levels[k + 1] / levels[1] is left, and after the last suffix none.

    Args:
        tokens: (batch, n) with `mask_id` where there is something to fill in.
        levels: r_1 > … > r_K, one for each stack of equally many blocks.

    Raises:
        ValueError: The blocks cannot be shared out evenly over the levels.
    """
    blocks = len(stack_view(model).blocks)
    if not levels or blocks % len(levels):
        raise ValueError(f"{blocks} blocks cannot be divided evenly among {len(levels)} levels")
    size = blocks // len(levels)
    kept = [*(level / levels[0] for level in levels[1:]), 0.0]
    try:
        passes = ((range(k * size, blocks), left) for k, left in enumerate(kept))
        return _fill(model, tokens, mask_id, passes)
    finally:
        set_active(model, range(blocks))


def rounds(
    model: PreTrainedModel,
    tokens: Tensor,
    *,
    mask_id: int,
    n_rounds: int,
    entered: Callable[[float], Collection[int]] | None = None,
) -> Filled:
    """Fills the masked positions in rounds of the whole model; the share left falls as a cosine.

    Source: Chang et al. 2022, MaskGIT (2202.04200, section 3.2), without noise on the confidence.

    Args:
        entered: From the share of masked positions (of all windows together) to the numbers of the blocks that a round
            runs, for a growable model; None: all of them. `training.noise.entered_blocks` gives those of a trial.
    """
    blocks = range(len(stack_view(model).blocks))
    masked = float((tokens == mask_id).float().mean())
    left = [*(math.cos(math.pi / 2 * i / n_rounds) for i in range(n_rounds)), 0.0]
    passes = (
        (blocks if entered is None else entered(masked * before), after) for before, after in itertools.pairwise(left)
    )
    try:
        return _fill(model, tokens, mask_id, passes)
    finally:
        set_active(model, blocks)


@torch.inference_mode()
def _fill(
    model: PreTrainedModel, tokens: Tensor, mask_id: int, passes: Iterator[tuple[Collection[int], float]]
) -> Filled:
    """Runs blocks and commits tokens until the share of the first masks that is left has fallen as asked."""
    tokens = tokens.clone()
    masked = tokens == mask_id
    total, done = masked.sum(1), 0
    for active, left in passes:
        set_active(model, active)
        done += len(active)
        times = {"times": masked.float().mean(1)} if takes_time(model) else {}
        logits = model(input_ids=tokens, **times).logits
        logits[..., mask_id] = -math.inf  # a mask is no answer
        confidence, answer = logits.softmax(-1).max(-1)
        remaining = (total * left).floor().long()
        commit = (masked.sum(1) - remaining).clamp(min=0)
        order = confidence.masked_fill(~masked, -1.0).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(dim=1, stable=True)
        chosen = masked & (rank < commit[:, None])
        tokens = torch.where(chosen, answer, tokens)
        masked &= ~chosen
    return Filled(tokens=tokens, block_passes=done)
