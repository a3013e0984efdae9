"""Growing a model block by block: blocks that are not there yet, blocks that enter as the identity, a head of its own.

A growing model has all its blocks from the start, so that its parameters, their initial values and its checkpoints are
those of the whole model; a block that is not active passes its input on and costs nothing. `training.assembly` calls
this at the beginning of a stage. What is saved of a grown model is given back to one that transformers has loaded.

Not here: what trains when (`training.regimes`), and freezing (`training.assembly`).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.growth.time_input import TIME, make_timed
from stackwise_ray.models.stack_view import stack_view

GATE = "growth_gate"
"""Name of the parameter γ, shape (1,), of a block that ends in a norm: it gives x + γ (B(x) − x)."""
_SECOND_NAMES = ("cls.predictions.bias",)
"""Of tensors that have another name as well: the bias of BERT's head is the decoder's."""


def make_growable(model: PreTrainedModel, *, gated: bool = True) -> None:
    """Lets blocks be switched off, and gives blocks that end in a norm a gate γ = 1. Calling it twice changes nothing.

    With all blocks active and all gates at 1 the model gives what it gave before (with gates: to rounding).

    Args:
        gated: Whether blocks will enter as the identity, which is what a gate is for.
    """
    view = stack_view(model)
    for block in view.blocks:
        if not isinstance(block, _Growing):
            original: Any = type(block)
            block.__class__ = _growing(original)
            growing: Any = block
            growing.active, growing.passed_on = True, view.passed_on
        if gated and view.residual_outputs is None and GATE not in block._parameters:
            parameter = next(block.parameters())
            block.register_parameter(GATE, nn.Parameter(parameter.new_ones(1)))


def set_active(model: PreTrainedModel, numbers: Collection[int]) -> None:
    """Makes the forward pass go through these blocks alone, in order.

    Raises:
        ValueError: The model was not made growable and not all of its blocks are asked for.
    """
    for number, block in enumerate(stack_view(model).blocks):
        if isinstance(block, _Growing):
            block.active = number in numbers
        elif number not in numbers:
            raise ValueError("blocks can be left out of a growable model only; call make_growable first")


def active_blocks(model: PreTrainedModel) -> list[int]:
    """Numbers of the blocks that the forward pass goes through."""
    return [number for number, block in enumerate(stack_view(model).blocks) if getattr(block, "active", True)]


@torch.no_grad()
def make_identity(model: PreTrainedModel, number: int) -> None:
    """Makes a block give what it gets, so that inserting it changes no output: it learns its way in from there.

    Where branches are added to a residual stream their last projections become 0; where the block ends in a norm,
    its gate does.
    """
    view = stack_view(model)
    block = view.blocks[number]
    if view.residual_outputs is None:
        getattr(block, GATE).zero_()
        return
    for module in view.residual_outputs(block):
        for parameter in module.parameters():
            parameter.zero_()


def untie_head(model: PreTrainedModel) -> None:
    """Gives the head a copy of the token table where it shares it; the model is then saved and loaded untied.

    From here on the head can be frozen while the embeddings train. Calling it twice changes nothing.
    """
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    table: Any = model.get_input_embeddings()
    if output is None or output.weight is not table.weight:
        return
    output.weight = nn.Parameter(output.weight.detach().clone())
    model.config.tie_word_embeddings = False
    # BERT's head has a second name for its bias, which is one tensor only while ties are: a loaded model would lose it.
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if module is not output and parameter is output.bias:
                setattr(module, name, None)


def take_form(model: PreTrainedModel, stored: Collection[str]) -> None:
    """Gives a model made from a saved config the parameters that its weights were saved with, by their names.

    That is the gates of a model that grew and the embedding of time of one that takes it, which its class in
    transformers does not know, and no second tensor where a head that left the token table has one name left.
    """
    if any(name.endswith(GATE) for name in stored):
        make_growable(model)
    if any(name.startswith(f"{TIME}.") for name in stored):
        make_timed(model)
    if not model.config.tie_word_embeddings:
        for name in {name for name, _ in model.named_parameters()} & set(_SECOND_NAMES) - set(stored):
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, None)


def own_names(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that `take_form` gave a model, whose values transformers leaves out."""
    return {name for name, _ in model.named_parameters() if name.endswith(GATE) or name.startswith(f"{TIME}.")}


@torch.no_grad()
def load_own(model: PreTrainedModel, stored: Mapping[str, Path], names: Collection[str]) -> None:
    """Gives parameters of a model the values that transformers leaves out.

    Args:
        stored: The file that holds each tensor, by its name.
        names: Of the parameters, each of which is stored: `own_names` and those of components.

    Raises:
        ConfigError: A tensor has another shape than the parameter.
    """
    for name in names:
        parameter = model.get_parameter(name)
        with safe_open(stored[name], framework="pt") as file:
            tensor = file.get_tensor(name)
        if tensor.shape != parameter.shape:
            problem = f"has {name} in the shape {tuple(tensor.shape)}, but the model needs {tuple(parameter.shape)}"
            raise ConfigError(f"{problem}; give a model as it was saved", source=str(stored[name]))
        parameter.copy_(tensor)


def set_two_sided(model: PreTrainedModel, two_sided: bool) -> None:
    """Lets the attention of a decoder see both sides, or its past alone; the model is saved and loaded as such.

    transformers reads `is_causal` of its configuration in every forward pass (``create_causal_mask``).
    """
    if getattr(model.config, "is_causal", True) is two_sided:
        model.config.is_causal = not two_sided


class _Growing(nn.Module):
    active: bool

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.active:
            return self.passed_on(hidden_states)  # type: ignore[operator]
        output = super().forward(hidden_states, *args, **kwargs)
        gate = self._parameters.get(GATE)
        return output if gate is None else hidden_states + gate * (output - hidden_states)


@functools.cache
def _growing(block_class: Any) -> Any:
    return type(f"Growing{block_class.__name__}", (_Growing, block_class), {})
