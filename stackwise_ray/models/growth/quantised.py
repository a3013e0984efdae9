"""Frozen matrices in four bits: NF4 in blocks of 64 (QLoRA, Dettmers et al. 2023, 2305.14314), by bitsandbytes.

A quantised matrix is read back to float32 in every pass, forward and backward, and not kept in between. The block
scales stay float32 (no second quantisation of them): 4.5 bits a weight.

bitsandbytes' own `Linear4bit` is not used: on some CPUs it computes evaluation in bfloat16 and training in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stackwise_ray.core.errors import MissingPackageError
from stackwise_ray.models.stack_view import stack_view

_BLOCK, _TYPE = 64, "nf4"


class QuantisedLinear(nn.Linear):
    """x Wᵀ + b with a frozen W (outputs, inputs) in four bits, and b as it was.

    Args:
        matrix: Whose weights are taken over, rounded; GPT-2's `Conv1D` keeps them transposed.

    Raises:
        MissingPackageError: bitsandbytes is not installed.
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, matrix: nn.Linear | Conv1D) -> None:
        _register_operations()
        nn.Module.__init__(self)  # nn.Linear's own would register a float32 weight
        self.transposed = isinstance(matrix, Conv1D)
        weight = matrix.weight.detach().T if self.transposed else matrix.weight.detach()
        self.out_features, self.in_features = weight.shape
        # Whole blocks, one per row: bitsandbytes' CPU kernel misreads rows that end inside a block.
        blocks = functional.pad(weight.flatten(), (0, -weight.numel() % _BLOCK)).view(-1, _BLOCK)
        packed, scales = torch.ops.bitsandbytes.quantize_4bit(blocks, _BLOCK, _TYPE, torch.uint8)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.bias = matrix.bias

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # computed, where nn.Linear has a parameter
        """The matrix that the four bits stand for, float32."""
        blocks: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            self.packed, self.scales, _BLOCK, _TYPE, (len(self.scales), _BLOCK), torch.float32
        )
        return blocks.flatten()[: self.out_features * self.in_features].view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return product

    def restored(self) -> nn.Linear | Conv1D:
        """A module of the class that this was made of, with the rounded weights."""
        with torch.device("meta"):
            kind: Any = Conv1D if self.transposed else nn.Linear
            plain = kind(*((self.out_features, self.in_features)[:: 1 if self.transposed else -1]))
        plain.weight = nn.Parameter(self.weight.T.contiguous() if self.transposed else self.weight)
        plain.bias = self.bias
        result: nn.Linear | Conv1D = plain
        return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return functional.linear(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient @ ctx.layer.weight.to(gradient.dtype)).to(ctx.dtype), None


def _register_operations() -> None:
    try:
        import bitsandbytes  # noqa: F401  # registers the operations
    except ImportError:
        raise MissingPackageError(
            '= qlora needs bitsandbytes, which is not installed; pip install -e ".[qlora]", or choose lora',
            path="training.trunk",
        ) from None


def quantise_block(model: PreTrainedModel, number: int) -> None:
    """Keeps the matrices of a block in four bits from here on; a second call changes nothing.

    Raises:
        MissingPackageError: bitsandbytes is not installed.
    """
    view = stack_view(model)
    block = view.blocks[number]
    names = {id(module): name for name, module in block.named_modules()}
    for matrix in view.projections(block):
        if type(matrix) is nn.Linear or type(matrix) is Conv1D:
            block.set_submodule(names[id(matrix)], QuantisedLinear(matrix))
