"""The transformers config of the bk family, and what its models return. `bk` has the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, MaskedLMOutput

from stackwise_ray.models.mixer_rules import channel_mixer_settings


class BKConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Shape of a bk model.

    Args:
        mixer: Settings of the token mixer as a plain mapping with `kind`; the keys are those of the mixers in
            `stackwise_ray.config.trial`. None: `resolvent_apply` with its defaults.
        channel_mixer: Likewise, of the channel mixer. None: `swiglu`.
        causal: Whether position i sees positions up to i only: true in decoders, false in encoders.
        initializer_range: Standard deviation of initial weights; last matrices of residual branches have it divided
            by √(2 num_hidden_layers) (GPT-2).
        kwargs: What every transformers config takes.

    The remaining arguments are transformers' common names: widths, layers, vocabulary, norm's epsilon, tied head.
    """

    model_type = "bk"

    def __init__(
        self,
        vocab_size: int = 256,
        hidden_size: int = 64,
        intermediate_size: int = 152,
        num_hidden_layers: int = 4,
        mixer: dict[str, Any] | None = None,
        channel_mixer: dict[str, Any] | None = None,
        causal: bool = True,
        rms_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = True,
        use_cache: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.mixer = {"kind": "resolvent_apply"} if mixer is None else dict(mixer)
        self.channel_mixer = {"kind": "swiglu"} if channel_mixer is None else dict(channel_mixer)
        self.causal = causal
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(**kwargs | {"tie_word_embeddings": tie_word_embeddings})

    @property
    def router_aux_loss_coef(self) -> float:
        """Weight of `aux_loss` in the training loss (transformers' name)."""
        return float(getattr(channel_mixer_settings(self.channel_mixer), "load_balance", 0.0))


@dataclass
class BKModelOutput(BaseModelOutputWithPast):
    """With `aux_loss`: the load balance of experts, mean over blocks; None outside of training and without experts."""

    aux_loss: Tensor | None = None


@dataclass
class BKCausalLMOutput(CausalLMOutputWithPast):
    """With `aux_loss`, as `BKModelOutput`; `loss` holds it, weighted."""

    aux_loss: Tensor | None = None


@dataclass
class BKMaskedLMOutput(MaskedLMOutput):
    """With `aux_loss`, as `BKModelOutput`; `loss` holds it, weighted."""

    aux_loss: Tensor | None = None
