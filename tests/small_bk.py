"""Small models of the bk family whose every path shows in the logits, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stackwise_ray.config.trial import (
    AttentionMixer,
    Mixer,
    ModelConfig,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
)
from stackwise_ray.models import build_model

VOCABULARY = 40

MIXERS: dict[str, Mixer] = {
    "resolvent_apply": ResolventApplyMixer(n_heads=4, d_value=8),
    "resolvent_apply with diagonal features": ResolventApplyMixer(n_heads=2, d_value=3, diagonal_features=True),
    "resolvent_apply by autograd": ResolventApplyMixer(n_heads=2, gradient="autograd"),
    "resolvent_diagonal": ResolventDiagonalMixer(n_heads=3),
    "original": ResolventDiagonalMixer(n_heads=1, base=-2.0, eta=1.0, learn=("potential",)),
    "original with its own gradient": ResolventDiagonalMixer(
        n_heads=1, base=-2.0, eta=1.0, learn=("potential",), gradient="diagonal"
    ),
    "attention": AttentionMixer(n_heads=2),
    "none": NoMixer(),
}


def model_config(mixer: Mixer | None, role: Any = "decoder", **changes: Any) -> ModelConfig:
    return ModelConfig(family="bk", role=role, n_layers=2, d_model=16, d_ff=24, mixer=mixer, **changes)


def sharpened(model: PreTrainedModel) -> PreTrainedModel:
    """The model with matrices so large that every path matters and the likeliest token is clear."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


def build(
    mixer: Mixer | None, role: str = "decoder", *, dtype: torch.dtype = torch.float64, **changes: Any
) -> PreTrainedModel:
    torch.manual_seed(0)
    config = model_config(mixer, role, **changes)
    model: nn.Module = build_model(config, vocab_size=VOCABULARY, seq_len=64).to(dtype).eval()
    return sharpened(model)


def tokens(batch: int = 2, n: int = 37) -> Tensor:
    """(batch, n) tokens, always the same."""
    return torch.randint(VOCABULARY, (batch, n), generator=torch.Generator().manual_seed(3))
