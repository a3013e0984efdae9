"""Layer 2: update rules and learning-rate schedules.

`OPTIMIZERS` has one rule per file (`adamw`); `build_optimizer` applies one to a model and `learning_rate` gives the
rate of each step. Importing this package loads no torch, so that a config can be checked against its names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core import registries
from stackwise_ray.core.registry import Registry
from stackwise_ray.optim.schedules import learning_rate

if TYPE_CHECKING:
    import torch

    from stackwise_ray.config.trial import OptimizerConfig, TrialConfig
    from stackwise_ray.config.trial.rules import Found

__all__ = ["OPTIMIZERS", "Rule", "UpdateRule", "build_optimizer", "learning_rate"]

Rule = Callable[[list[dict[str, Any]], "OptimizerConfig", float], "torch.optim.Optimizer"]
"""(parameter groups with their own `weight_decay`, config, peak learning rate) -> optimizer."""


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """What registers in `optim`; its file loads without torch.

    Attributes:
        build: Makes the optimizer; imports torch when it is called.
        rules: What of a trial does not go with it. Each returns the path of the field to change and what is wrong
            with it, or None.
    """

    build: Rule
    rules: tuple[Callable[[TrialConfig], Found], ...] = ()


OPTIMIZERS: Registry[UpdateRule] = registries.OPTIMIZERS


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """The optimizer of the parameters that train (`requires_grad`), with decay on matrices alone.

    Args:
        model: Its frozen parameters get no state and no update.
        config: `config.kind` names the rule.
        lr: Peak learning rate; the loop sets the rate of each step in every group.

    Raises:
        ConfigError: No rule is called `config.kind`.
    """
    from stackwise_ray.optim.groups import parameter_groups

    return OPTIMIZERS.get(config.kind).build(parameter_groups(model, config.weight_decay), config, lr)
