"""What a stage costs, by formula: the cost model of growing, with which the counted FLOPs are compared.

F = F_w + F_a are the forward FLOPs of one block per token: products with weights, and mixing of positions. H are those
of the head. Training one block through m − 1 frozen ones costs (2m + 1) F + (m − 1) F_a + 2 H per token, and one H more
if the head trains. A frozen block passes the gradient on: this needs one product per weight matrix instead of two, but
both operands of an attention product. On top of a frozen prefix of m − 1 blocks the cost is (m + 2) F + 3 H per token,
and end to end 3 L F + 3 H. With the prefix's outputs cached it is 3 F + 3 H, and (m − 1) F once per window. An adapter
of rank r on an (n, m) matrix adds two products: 2 r (n + m) FLOPs forward and twice that backward. An input of time
adds two small products per sequence. Lookups, norms and the optimizer are neither in this model nor in the counts that
it is compared with. (`counted_costs` finds the exact numbers by running a step on fake tensors.)
"""

from __future__ import annotations

from dataclasses import dataclass

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.models.family import FAMILIES
from stackwise_ray.models.growth.time_input import time_products
from stackwise_ray.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class BlockFlops:
    """FLOPs per token of one block and of the head.

    Attributes:
        weights: F_w, products with weights, forward.
        mixing: F_a, mixing of positions, forward.
        mixing_backward: Gradients of the mixing: 2 F_a for attention.
        head: H, forward.
    """

    weights: float
    mixing: float
    mixing_backward: float
    head: float


def block_flops(trial: TrialConfig, vocab_size: int) -> BlockFlops:
    """What the trial's family states about its blocks and head."""
    family, model = FAMILIES.get(trial.model.family), trial.model
    mixing, mixing_backward = family.mixing_flops(model, trial.data.seq_len)
    return BlockFlops(
        weights=2 * family.block_products(model),
        mixing=mixing,
        mixing_backward=mixing_backward,
        head=2 * family.head_products(model, vocab_size),
    )


def modelled_flops(trial: TrialConfig, stage: Stage, vocab_size: int) -> float:
    """Forward and backward FLOPs of one training sequence in a stage."""
    block, trainable = block_flops(trial, vocab_size), stage.trainable
    adapted = {number for adapters in trainable.adapters for number, _ in adapters.ranks}
    lowest = min(stage.active_blocks if trainable.embeddings else (*trainable.blocks, *adapted))
    passing = sum(number >= lowest for number in stage.active_blocks)  # below it nothing asks for a gradient
    runs = passing if stage.cached else len(stage.active_blocks)
    forward = runs * (block.weights + block.mixing) + block.head
    backward = passing * (block.weights + block.mixing_backward) + len(trainable.blocks) * block.weights
    backward += block.head * (2 if trainable.head else 1)
    family = FAMILIES.get(trial.model.family)
    shapes = family.projections(trial.model)
    # Nothing below the lowest trained block asks for a gradient, nor does a frozen norm before its first projections.
    ends = not trainable.embeddings and (lowest in adapted or family.enters_bare(lowest))
    if ends:
        backward -= 2 * sum(inputs * outputs for inputs, outputs in shapes.entry)
    for adapters in trainable.adapters:
        for number, rank in adapters.ranks:
            product = 2 * rank * sum(inputs + outputs for inputs, outputs in shapes.adapted)
            forward, backward = forward + product, backward + 2 * product
            if ends and number == lowest:
                backward -= 2 * rank * sum(inputs for inputs, _ in shapes.entry)
    time = 0.0 if stage.cached else _time_flops(trial, trains=trainable.embeddings)
    return (forward + backward) * trial.data.seq_len + time


def modelled_prefix_flops(trial: TrialConfig, stage: Stage, vocab_size: int) -> float:
    """Forward FLOPs of the frozen blocks of a cached stage, per window of the train split."""
    block = block_flops(trial, vocab_size)
    below = sum(number < stage.lowest_trained for number in stage.active_blocks)
    return below * (block.weights + block.mixing) * trial.data.seq_len + _time_flops(trial, trains=False)


def _time_flops(trial: TrialConfig, *, trains: bool) -> float:
    """FLOPs of the embedding of a sequence's time: its features need no gradient, its weights do where it trains."""
    if trial.training.time == "depth":
        return 0.0
    first, second = time_products(trial.model.d_model)
    return 2.0 * (first + second) + (2.0 * (first + 2 * second) if trains else 0.0)
