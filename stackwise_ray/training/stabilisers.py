"""What keeps residual branches small while a model trains: a gain on each, a cap on the norm of its last projection.

Both are about the projections that `StackView.residual_outputs` names, in any regime. The model that is saved is an
ordinary one: the gain is folded into the projections, and the cap is a property of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from stackwise_ray.models.stack_view import stack_view

_ITERATIONS = 8
"""Power iterations of an estimate: a hundredth below the norm at most for matrices as training makes them (a test)."""


def residual_projections(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The last projection of every residual branch; none where blocks end in a norm."""
    view = stack_view(model)
    for block in view.blocks:
        yield from () if view.residual_outputs is None else view.residual_outputs(block)


# ------------------------------------------------------------------------------------------------------- the gain


def scale_residuals(model: PreTrainedModel, gain: float) -> None:
    """Makes every branch add `gain` times what it says: x + γ f(x)."""
    for module in residual_projections(model):
        handle = module.register_forward_hook(partial(_scaled, gain))
        module.__dict__["_folding"] = partial(_fold, module, gain, handle)


def fold_gains(model: PreTrainedModel) -> None:
    """Multiplies the gain into the projections, so that the model gives the same without it (to rounding)."""
    for module in residual_projections(model):
        folding: Any = module.__dict__.pop("_folding", None)
        if folding is not None:
            folding()


def _scaled(gain: float, _: nn.Module, __: Any, output: Tensor) -> Tensor:
    return gain * output


@torch.no_grad()
def _fold(module: nn.Module, gain: float, handle: Any) -> None:
    handle.remove()
    for parameter in module.parameters():
        parameter.mul_(gain)


# -------------------------------------------------------------------------------------------------------- the cap


def trained_projections(model: PreTrainedModel) -> list[Tensor]:
    """The matrices of the residual projections that train now."""
    weights: list[Any] = [module.weight for module in residual_projections(model)]
    return [weight for weight in weights if weight.requires_grad]


@torch.no_grad()
def cap_spectral_norms(matrices: Sequence[Tensor]) -> None:
    """Divides each matrix by its largest singular value where that is above 1; a zero matrix stays.

    A projection after each update, not a parametrisation W / σ(W) (Miyato et al. 2018, 1802.05957): that is undefined
    at W = 0, where a block that enters begins.
    """
    for matrix in matrices:
        matrix.div_(spectral_norm(matrix).clamp(min=1))


def spectral_norm(matrix: Tensor) -> Tensor:
    """Largest singular value of (m, n), by power iteration from the longest row: at most too small."""
    v = matrix.index_select(0, matrix.norm(dim=1).argmax().view(1))[0]
    for _ in range(_ITERATIONS):
        u = functional.normalize(matrix @ v, dim=0)
        v = functional.normalize(u @ matrix, dim=0)
    found: Tensor = (matrix @ v).norm()
    return found


def capping_flops(matrices: Sequence[Tensor]) -> int:
    """FLOPs of `cap_spectral_norms`: two products with a vector per iteration and one at the end, 2mn each."""
    return sum(2 * (2 * _ITERATIONS + 1) * matrix.numel() for matrix in matrices)
