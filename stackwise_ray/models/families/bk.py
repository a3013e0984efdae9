"""bk: pre-norm stack around resolvents of tridiagonal matrices, RMS norm, SwiGLU, no positions. Of this project."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import (
    AttentionMixer,
    ExpertsChannelMixer,
    ModelConfig,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
    SwiGLUChannelMixer,
)
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.family import FAMILIES, ModelFamily, Projections
from stackwise_ray.models.mixer_rules import check_channel_mixer, check_mixer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack import StackView


class BKFamily(ModelFamily):
    """`stackwise_ray.models.bk.bk_model`: causal mixers in a decoder, two-sided ones in an encoder."""

    name = "bk"
    roles = ("decoder", "encoder")
    published_vocab_size = None
    ties_embeddings = True
    takes_mixer = True
    takes_n_heads = False
    default_special_ids: ClassVar = {}

    def check(self, model: ModelConfig, *, seq_len: int) -> None:
        super().check(model, seq_len=seq_len)
        if model.mixer is None:
            raise ConfigError("is required in the family bk; give a kind, such as resolvent_apply", path="model.mixer")
        check_mixer(model.mixer, model.d_model)
        if model.channel_mixer is not None:
            check_channel_mixer(model.channel_mixer)

    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        from stackwise_ray.models.bk.bk_model import BKConfig

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

    def projections(self, model: ModelConfig) -> Projections:
        d, mixture = model.d_model, model.channel_mixer
        n_experts = mixture.n_experts if isinstance(mixture, ExpertsChannelMixer) else None
        wide = model.d_ff * (n_experts or 1)  # all experts are computed
        mixer, channels_in = _mixer_projections(model), ((d, wide), (d, wide))
        return Projections(
            entry=mixer.entry or channels_in,
            inner=(*mixer.inner, *(channels_in if mixer.entry else ()), (wide, d)),
            unadapted=((d, n_experts),) if n_experts else (),
        )

    def mixing_flops(self, model: ModelConfig, seq_len: int) -> tuple[float, float]:
        from stackwise_ray.kernels.flop_formulas import (
            apply_backward_flops,
            apply_flops,
            diagonal_backward_flops,
            diagonal_flops,
        )

        mixer, causal = model.mixer, model.role == "decoder"
        if isinstance(mixer, AttentionMixer):
            return super().mixing_flops(model, seq_len)
        if not isinstance(mixer, ResolventApplyMixer | ResolventDiagonalMixer):
            return 0.0, 0.0
        forward = backward = 0
        shape, diagonal = (1, mixer.n_heads, 1), isinstance(mixer, ResolventDiagonalMixer)
        if isinstance(mixer, ResolventApplyMixer):
            forward += apply_flops(shape, (), (), (*shape, mixer.d_value), causal)
            backward += apply_backward_flops((), shape, (), (), (*shape, mixer.d_value), (), causal)
            diagonal = mixer.diagonal_features
        if diagonal:
            forward += diagonal_flops(shape, (), (), causal)
            backward += diagonal_backward_flops((), shape, (), (), causal)
        return float(forward), float(backward)

    def stack_view(self, model: Any) -> StackView:
        from stackwise_ray.models.stack import StackView

        trunk = model.model
        return StackView(
            embeddings=(trunk.embed_tokens,),
            blocks=trunk.layers,
            final_norm=trunk.norm,
            head=(model.lm_head,),
            residual_outputs=lambda block: block.residual_outputs(),
            projections=lambda block: block.projections(),
            own_token=lambda block: block.own_token_projections(),
            passed_on=lambda hidden: (hidden, None),
        )


def _mixer_projections(model: ModelConfig) -> Projections:
    mixer, d = model.mixer, model.d_model
    if isinstance(mixer, AttentionMixer):
        return Projections(entry=((d, 3 * d),), inner=((d, d),))
    if isinstance(mixer, ResolventApplyMixer):
        heads = mixer.n_heads
        features = heads * (2 * mixer.d_value + 2 * mixer.diagonal_features)
        return Projections(entry=((d, heads), (d, heads * mixer.d_value), (d, features)), inner=((features, d),))
    if isinstance(mixer, ResolventDiagonalMixer):
        return Projections(entry=((d, mixer.n_heads),), inner=((2 * mixer.n_heads, d),))
    return Projections(entry=(), inner=())


FAMILIES.register("bk")(BKFamily())
