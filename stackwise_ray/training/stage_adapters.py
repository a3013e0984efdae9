"""Which low-rank adapters a stage trains: arithmetic of block numbers and ranks, without torch.

Under `training.trunk: lora | qlora` a stack that joins the trunk keeps its weights and gets adapters, which train from
then on. With `training.lora.dual` a second, smaller set enters over the whole trunk at each growth beside it. Sets
stay; a stage trains all that have entered. `models.growth.adapters` puts them into the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.growth_options import ADAPTED, GrowingTraining, Lora, options_of
from stackwise_ray.training.stage import AdapterSet, Stage

_SLOPE = {"constant": 0, "rising": 1, "falling": -1}


def ranks_over(trunk: Sequence[int], lora: Lora) -> dict[int, int]:
    """The rank of each block of a trunk, given from the input to the output; their sum is the same in all patterns.

    >>> ranks_over((1, 2, 3), Lora(rank=8, pattern="rising"))
    {1: 4, 2: 8, 3: 12}
    """
    last = len(trunk) - 1
    steps = (lora.rank * (2 * i - last) / (2 * last) if last else 0 for i in range(len(trunk)))
    return {block: lora.rank + _SLOPE[lora.pattern] * round(step) for block, step in zip(trunk, steps, strict=True)}


def with_adapters(trial: TrialConfig, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with the adapters of their trunks where `training.trunk` asks for them."""
    training = options_of(trial, GrowingTraining)
    lora, trunk = training.lora, training.trunk
    if trunk not in ADAPTED:
        return tuple(stages)
    trunks = [tuple(b for b in stage.active_blocks if b not in stage.trainable.blocks) for stage in stages]
    ranks = ranks_over(trunks[-1], lora)
    entered: list[AdapterSet] = []
    joined: set[int] = set()
    adapted: list[Stage] = []
    for number, (stage, blocks) in enumerate(zip(stages, trunks, strict=True)):
        new = tuple(block for block in blocks if block not in joined)
        joined.update(new)
        if new:
            own = tuple((block, ranks[block]) for block in new)
            entered.append(AdapterSet(name=f"stack_{number}", ranks=own, alpha=lora.alpha, quantised=trunk == "qlora"))
            if lora.dual is not None:
                whole = tuple((block, lora.dual) for block in blocks)
                entered.append(AdapterSet(name=f"trunk_{number}", ranks=whole, alpha=lora.alpha))
        adapted.append(replace(stage, trainable=replace(stage.trainable, adapters=tuple(entered))))
    return tuple(adapted)
