"""Llama (Touvron et al. 2023): pre-norm decoder, rotary positions, RMS norm, SwiGLU, grouped-query attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.models.family import FAMILIES, ModelFamily, Projections

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack import StackView


class LlamaFamily(ModelFamily):
    """`transformers.LlamaForCausalLM`. Its only dropout is on attention weights: none is offered, as a rate that
    means less than in the other families would confound."""

    name = "llama"
    roles = ("decoder",)
    published_vocab_size = 32_000
    ties_embeddings = False
    takes_n_kv_heads = True
    can_be_two_sided = True
    rotary = True
    default_special_ids: ClassVar = {"bos": 1, "eos": 2}

    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=model.d_model,
            intermediate_size=model.d_ff,
            num_hidden_layers=model.n_layers,
            num_attention_heads=self.heads(model),
            num_key_value_heads=model.n_kv_heads or self.heads(model),
            head_dim=model.d_model // self.heads(model),
            max_position_embeddings=self.n_positions(model, seq_len),
            **settings,
        )

    def projections(self, model: ModelConfig) -> Projections:
        d, wide = model.d_model, model.d_ff
        narrow = d * (model.n_kv_heads or self.heads(model)) // self.heads(model)
        return Projections(entry=((d, d), (d, narrow), (d, narrow)), inner=((d, d), (d, wide), (d, wide), (wide, d)))

    def stack_view(self, model: Any) -> StackView:
        from stackwise_ray.models.stack import StackView

        trunk = model.model
        return StackView(
            embeddings=(trunk.embed_tokens,),
            blocks=trunk.layers,
            final_norm=trunk.norm,
            head=(model.lm_head,),
            residual_outputs=lambda block: (block.self_attn.o_proj, block.mlp.down_proj),
            projections=lambda block: (
                *(block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj, block.self_attn.o_proj),
                *(block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj),
            ),
            own_token=lambda block: (
                *(block.self_attn.q_proj, block.self_attn.o_proj),
                *(block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj),
            ),
        )


FAMILIES.register("llama")(LlamaFamily())
