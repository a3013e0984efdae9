"""AdamW whose moments are kept in 8 bits, block by block (Dettmers et al. 2021, 2110.02861), by bitsandbytes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.trial import OptimizerConfig, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.core.errors import MissingPackageError
from stackwise_ray.optim import OPTIMIZERS, UpdateRule

if TYPE_CHECKING:
    import torch

_MAPS = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""Key in a parameter's state -> table of the 256 values that a byte stands for, the same for all parameters."""


def adamw_8bit(groups: list[dict[str, Any]], config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """bitsandbytes's AdamW: a byte per moment and a scale per 256 of them, 2.03 bytes per parameter instead of 8.

    Parameters of fewer than 4,096 elements keep their moments in float32, as bitsandbytes does it.

    Raises:
        MissingPackageError: bitsandbytes is not installed.
    """
    optimizer: torch.optim.Optimizer = _rule()(groups, lr=lr, betas=config.betas, eps=config.eps)
    return optimizer


@functools.cache
def _rule() -> Any:
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    try:
        from bitsandbytes import functional, optim
    except ImportError as error:
        raise MissingPackageError(
            f"= adamw_8bit needs bitsandbytes, which cannot be imported here ({error}); install it with "
            'pip install -e ".[adam8bit]", or write adamw',
            path="optimizer.kind",
        ) from None

    class AdamW8bit(optim.AdamW8bit):  # type: ignore[misc]
        """bitsandbytes's, planned on fake tensors as well, and with plain tensors for a state."""

        def fill_qmap(self) -> None:
            with unset_fake_temporarily():  # the tables are computed from values
                tables = [functional.create_dynamic_map(signed=signed).tolist() for signed in (True, False)]
            self.name2qmap = dict(zip(_MAPS.values(), map(torch.tensor, tables), strict=True))

        def state_dict(self) -> dict[str, Any]:
            """Without the tables, which all parameters share; bitsandbytes's own form hides the rest in a dict."""
            state = torch.optim.Optimizer.state_dict(self)
            state["state"] = {
                index: {key: value for key, value in entries.items() if key not in _MAPS}
                for index, entries in state["state"].items()
            }
            return state

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            device = self.param_groups[0]["params"][0].device
            tables = {key: self.name2qmap[name].to(device) for key, name in _MAPS.items()}
            state = {
                index: entries | (tables if "absmax1" in entries else {})
                for index, entries in state_dict["state"].items()
            }
            super().load_state_dict({**state_dict, "state": state})

    return AdamW8bit


def _whole_blocks(trial: TrialConfig) -> Found:
    if trial.training.parallel != "sharded":
        return None
    problem = "= adamw_8bit does not go with training.parallel: sharded, which would divide its blocks of 256 entries"
    return "optimizer.kind", f"{problem}; choose adamw, or training.parallel: replicated"


OPTIMIZERS.register("adamw_8bit")(UpdateRule(build=adamw_8bit, rules=(_whole_blocks,)))
