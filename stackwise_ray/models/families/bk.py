"""bk: pre-norm stack around resolvents of tridiagonal matrices, RMS norm, SwiGLU, no positions. Of this project."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import ModelConfig, ResolventApplyMixer, SwiGLUChannelMixer
from stackwise_ray.models.bk_rules import check_channel_mixer, check_mixer
from stackwise_ray.models.family import FAMILIES, ModelFamily

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack_view import StackView


class BKFamily(ModelFamily):
    """`stackwise_ray.models.bk`: causal mixers in a decoder, two-sided ones in an encoder."""

    name = "bk"
    roles = ("decoder", "encoder")
    published_vocab_size = None
    ties_embeddings = True
    takes_mixer = True
    takes_n_heads = False
    default_special_ids: ClassVar = {}

    def check(self, model: ModelConfig, *, seq_len: int) -> None:
        super().check(model, seq_len=seq_len)
        if model.mixer is not None:
            check_mixer(model.mixer, model.d_model)
        if model.channel_mixer is not None:
            check_channel_mixer(model.channel_mixer)

    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        from stackwise_ray.models.bk import BKConfig

        mixer = dataclasses.asdict(ResolventApplyMixer() if model.mixer is None else model.mixer)
        if "learn" in mixer:
            mixer["learn"] = list(mixer["learn"])  # as it comes back from JSON
        return BKConfig(
            vocab_size=vocab_size,
            hidden_size=model.d_model,
            intermediate_size=model.d_ff,
            num_hidden_layers=model.n_layers,
            mixer=mixer,
            channel_mixer=dataclasses.asdict(model.channel_mixer or SwiGLUChannelMixer()),
            causal=model.role == "decoder",
            **settings,
        )

    def stack_view(self, model: Any) -> StackView:
        from stackwise_ray.models.stack_view import StackView

        trunk = model.model
        return StackView(
            embeddings=(trunk.embed_tokens,), blocks=trunk.layers, final_norm=trunk.norm, head=(model.lm_head,)
        )


FAMILIES.register("bk")(BKFamily())
