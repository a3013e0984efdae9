"""Which parameters are decayed: every optimizer gets the same two groups. It builds no optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters in two groups, decayed and not; an empty group is left out.

    Decayed: parameters with two or more axes. Not decayed: vectors (biases, gains), norms of any shape, and the tables
    of positions and of token types, which are every embedding but the model's input embedding. A tied parameter is in
    one group once, by its first name.

    Args:
        model: A transformers model (its `get_input_embeddings` tells the token embedding), or any module.
        weight_decay: Decay of the first group, a share of lr per step.

    Returns:
        Groups as torch optimizers take them.
    """
    tables = _undecayed(model)
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and id(parameter) not in tables else plain).append(parameter)
    groups = ((decayed, weight_decay), (plain, 0.0))
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


def _undecayed(model: nn.Module) -> set[int]:
    find = getattr(model, "get_input_embeddings", None)
    token_embedding = find() if callable(find) else None
    tables = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module is not token_embedding and token_embedding is not None
    }
    norms = (module for module in model.modules() if "Norm" in type(module).__name__)
    return tables | {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
