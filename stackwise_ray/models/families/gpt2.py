"""GPT-2 (Radford et al. 2019): pre-norm decoder, learned positions, GELU, tied head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.models.family import FAMILIES, ModelFamily, Projections

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack import StackView


class GPT2Family(ModelFamily):
    """`transformers.GPT2LMHeadModel`."""

    name = "gpt2"
    roles = ("decoder",)
    published_vocab_size = 50_257
    ties_embeddings = True
    has_position_table = True
    can_be_two_sided = True
    dropout_fields = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    default_special_ids: ClassVar = {"bos": 50_256, "eos": 50_256}

    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        from transformers import GPT2Config

        from stackwise_ray.models.saved import IN_ONE_KERNEL

        return GPT2Config(
            vocab_size=vocab_size,
            n_positions=self.n_positions(model, seq_len),
            n_embd=model.d_model,
            n_layer=model.n_layers,
            n_head=self.heads(model),
            n_inner=model.d_ff,
            activation_function=IN_ONE_KERNEL["gelu_new"],
            **settings,
        )

    def projections(self, model: ModelConfig) -> Projections:
        d, wide = model.d_model, model.d_ff
        return Projections(entry=((d, 3 * d),), inner=((d, d), (d, wide), (wide, d)))

    def width_of_channel_mixer(self, config: PretrainedConfig) -> int | None:
        width: int = config.n_inner or 4 * config.n_embd  # the published configs leave n_inner out
        return width

    def stack_view(self, model: Any) -> StackView:
        from stackwise_ray.models.stack import StackView

        trunk = model.transformer
        return StackView(
            embeddings=(trunk.wte, trunk.wpe),
            blocks=trunk.h,
            final_norm=trunk.ln_f,
            head=(model.lm_head,),
            residual_outputs=lambda block: (block.attn.c_proj, block.mlp.c_proj),
            embedding_dropout=trunk.drop,
            projections=lambda block: (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj),
            own_token=lambda block: (block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj),
        )


FAMILIES.register("gpt2")(GPT2Family())
