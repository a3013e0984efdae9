"""Low-rank adapters on the matrices of blocks (LoRA, Hu et al. 2021, 2106.09685), by peft.

A matrix W becomes W + (alpha / r) B A. B is 0 at first, so that inserting an adapter changes no output, and A is drawn
from a seed of its own. The model stays the transformers model that it was; `merge_adapters` adds the products to the
weights, so that what is saved is a plain model.

Not here: which blocks get adapters, and when (`training.stage_adapters`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stackwise_ray.models.growth.quantised import QuantisedLinear
from stackwise_ray.models.stack_view import ADAPTER, stack_view


def insert_adapter(model: PreTrainedModel, number: int, name: str, *, rank: int, alpha: int, seed: int) -> None:
    """Puts an adapter on every matrix of a block, beside those that are there; twice under one name changes nothing.

    Args:
        number: Of the block.
        rank: Of the products B A.
        alpha: They are multiplied by alpha / rank.
        seed: Of the initial A, drawn on the CPU whatever the model's device.
    """
    from peft import LoraConfig, inject_adapter_in_model

    view = stack_view(model)
    block = view.blocks[number]
    matrices: list[Any] = [getattr(matrix, "base_layer", matrix) for matrix in view.projections(block)]
    targets = _names(block, view.projections(block))
    if any(f"{targets[0]}.{ADAPTER}A.{name}." in parameter for parameter, _ in block.named_parameters()):
        return
    device = next(block.parameters()).device
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=isinstance(matrices[0], Conv1D)
    )
    with torch.device("meta"):  # their values come below: peft's own draw from torch's generator
        inject_adapter_in_model(config, block, adapter_name=name)
    del block.peft_config  # peft's note about one of the adapters, which names this block's matrices and no model's
    generator = torch.Generator().manual_seed(seed)
    for _, _, layer in _layers(block):
        down: Any = layer.lora_A[name]
        up: Any = layer.lora_B[name]
        start = torch.empty(down.weight.shape)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)  # as peft and the paper's own code draw it
        down.weight = nn.Parameter(start.to(device))
        up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=device))
        layer.set_adapter(list(layer.lora_A))


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all adapters."""
    return [parameter for name, parameter in model.named_parameters() if f".{ADAPTER}" in name]


def merge_adapters(model: PreTrainedModel) -> None:
    """Adds every adapter's product to the weights under it and takes it out: the model computes what it computed (to
    rounding), with the modules and names that it was built with, those in four bits in float32 again. One without
    adapters stays as it is."""
    for parent, name, layer in list(_layers(model)):
        base = layer.get_base_layer()
        if isinstance(base, QuantisedLinear):
            layer.base_layer = base.restored()
            layer.fan_in_fan_out = base.transposed
        layer.merge()
        setattr(parent, name, layer.get_base_layer())


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """(parent, name in it, layer) of every matrix with adapters."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if hasattr(child, f"{ADAPTER}A"):
                yield parent, name, child


def _names(block: nn.Module, wanted: tuple[nn.Module, ...]) -> list[str]:
    names = {id(module): name for name, module in block.named_modules()}
    return [names[id(module)] for module in wanted]
