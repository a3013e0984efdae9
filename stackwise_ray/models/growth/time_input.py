"""Time as input: the model also gets the share of each sequence that is masked, and adds it to its token embeddings.

The time of a sequence is its share of masked positions, in [0, 1]: clean text has time 0. It is an argument of the
model's forward pass, `times`, beside `input_ids`; a model that takes time refuses to run without it. The embedding of
time is one more module of the model (`time` of its stack view), so it counts and is saved with it; it trains and
freezes with the embeddings. Classes of transformers do not know it: `AutoModel` drops it with a warning about unused
weights, and `saved.load_saved` puts it back.

Not here: which share a sequence is masked at (`training.noise`, `training.objectives`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

TIME = "time_embedding"
"""Name of the module, and so the beginning of its parameters' names."""
N_FEATURES = 64
"""Sines and cosines that the MLP reads: wavelengths from 1/160 to above 10 in time, finer than a mask in 128 tokens."""


class TimeEmbedding(nn.Module):
    """Times (batch,) to vectors (batch, d_model): sinusoidal features, one hidden layer, and a last projection that
    begins at 0, so that putting it into a model changes no output.

    Source: the timestep embedding of Ho et al. 2020 (2006.11239, appendix B) on 1000 · time; zero initialisation as in
    Peebles and Xie 2022 (2212.09748, section 3.2), there of the gates.
    """

    def __init__(self, d_model: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.hidden = nn.Linear(N_FEATURES, d_model, device=device)
        self.out = nn.Linear(d_model, d_model, device=device)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, times: Tensor) -> Tensor:
        half = N_FEATURES // 2
        decay = -math.log(10_000) / half * torch.arange(half, device=times.device, dtype=torch.float32)
        angles = 1000.0 * times.float()[:, None] * decay.exp()
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        result: Tensor = self.out(functional.silu(self.hidden(features)))
        return result


def time_products(d_model: int) -> tuple[int, int]:
    """Multiplications of the embedding's two projections, per sequence."""
    return N_FEATURES * d_model, d_model**2


def make_timed(model: PreTrainedModel) -> None:
    """Gives a model the input `times`. It then gives what it gave before, until it trains. Twice changes nothing."""
    if takes_time(model):
        return
    table: Any = model.get_input_embeddings()
    setattr(model, TIME, TimeEmbedding(model.config.hidden_size, device=table.weight.device))
    original: Any = type(model)
    model.__class__ = _timed(original)


def takes_time(model: nn.Module) -> bool:
    """Whether the model's forward pass needs `times`."""
    return isinstance(model, _Timed)


class _Timed(nn.Module):
    def forward(
        self,
        input_ids: Tensor | None = None,
        times: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model's own forward pass; `inputs_embeds` are passed on as they are, with their time in them."""
        if inputs_embeds is None:
            inputs_embeds = self.embedded(input_ids, times)
        return super().forward(inputs_embeds=inputs_embeds, **kwargs)

    def embedded(self, input_ids: Tensor | None, times: Tensor | None) -> Tensor:
        """Token embeddings with the embedding of each sequence's time, (batch, n, d_model)."""
        if input_ids is None or times is None:
            raise ValueError(
                "this model takes time: pass input_ids (batch, n) and times (batch,), the share of masked positions of "
                "each sequence"
            )
        model: Any = self
        embedded: Tensor = model.get_input_embeddings()(input_ids) + getattr(model, TIME)(times)[:, None]
        return embedded


@functools.cache
def _timed(model_class: Any) -> Any:
    # The name stays: transformers writes it into the config of a saved model.
    return type(model_class.__name__, (_Timed, model_class), {"__module__": model_class.__module__})
