"""What training asks of a model's components before the last step: their losses and FLOPs, and their held-out text.

`step` and the planner ask `whole_loss`, the loop `modelled_per_sequence`, the assembly `held_out_of`. No component is
known here by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import held_out_windows
from stackwise_ray.metrics.losses import with_auxiliary
from stackwise_ray.models.component import COMPONENTS, attached
from stackwise_ray.training.budget import StageFlops


def whole_loss(part: Tensor, model: nn.Module, output: Any, share: float, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """What is differentiated of a micro-batch: its part of the loss, and all that the model and its components add.

    Args:
        part: The micro-batch's part of the reported loss.
        output: Of the model's forward pass.
        share: The micro-batch's sequences over those of the global batch.
        loss: From logits to the micro-batch's part of a loss against the same targets.
    """
    whole = with_auxiliary(part, model, output, share)
    for component in attached(model).values():
        added = component.auxiliary_loss(loss)
        if added is not None:
            whole = whole + added
    return whole


def modelled_per_sequence(model: nn.Module, cost: StageFlops) -> float:
    """FLOPs of one sequence of the step that comes, by formula, with what components add and leave out."""
    own = (
        one.modelled_flops(block=cost.modelled_block_per_sequence, head=cost.modelled_head_per_sequence)
        for one in attached(model).values()
    )
    return cost.modelled_per_sequence + sum(own)


def held_out_of(trial: TrialConfig, n_tokens: int) -> NDArray[np.int64] | None:
    """Offsets of the validation windows outside the fixed ones that the trial's components want; None: none do.

    Args:
        n_tokens: Length of the validation split.

    Raises:
        ConfigError: The fixed windows take the whole split.
    """
    asked = {name: COMPONENTS.get(name).held_out_tokens(options) for name, options in trial.model.components.items()}
    wanted = {name: tokens for name, tokens in asked.items() if tokens}
    if not wanted:
        return None
    seq_len, fixed = trial.data.seq_len, trial.data.validation_tokens
    offsets = held_out_windows(n_tokens, seq_len, fixed, max(wanted.values()))
    if not len(offsets):
        names = " and ".join(f"model.components.{name}" for name in wanted)
        raise ConfigError(
            f"= {fixed} uses all windows of the validation split ({n_tokens:,} tokens), but {names} needs other "
            f"windows to calibrate on; choose at most {(n_tokens - 1) // seq_len // 2 * seq_len}, or set the value "
            "that the component would calibrate",
            path="data.validation_tokens",
        )
    return offsets
