"""Lets a transformers model run where values cannot be read: on the meta device and on fake tensors.

Before every forward, transformers reads the position ids to find out whether several sequences were packed into one
row (`find_packed_sequence_indices`). On meta there is nothing to read, on fake tensors it assumes the
worst and builds a mask, and on a GPU the reading waits for the device. Where the caller passes no position ids the
model counts them 0, 1, 2, … itself and the answer is known: nothing is packed. `build` installs this on every model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, masking_utils

_consecutive = False  # whether the forward that is running made its own position ids


def skip_search_for_packing(model: PreTrainedModel) -> None:
    """Spares `model` the search for packed sequences in every forward that is given no position ids, also where only
    its part below the head is called."""
    for part in dict.fromkeys((model, model.base_model)):
        part.register_forward_pre_hook(_begin, with_kwargs=True)
        part.register_forward_hook(_end, always_call=True)


def _begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    global _consecutive
    _consecutive = kwargs.get("position_ids") is None


def _end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    global _consecutive
    _consecutive = False


def _unless_consecutive(search: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    def find_packed_sequence_indices(position_ids: torch.Tensor) -> Any:
        return None if _consecutive else search(position_ids)

    return find_packed_sequence_indices


# Once, when models are first built. Models that were not built here are not affected: their flag is never set.
setattr(  # noqa: B010 (a plain assignment does not type)
    masking_utils,
    "find_packed_sequence_indices",
    _unless_consecutive(masking_utils.find_packed_sequence_indices),
)
