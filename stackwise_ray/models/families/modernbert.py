"""ModernBERT (Warner et al. 2024): pre-norm encoder, rotary positions, GeGLU, two local layers to each global."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.models.family import FAMILIES, ModelFamily, Projections

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack import StackView


class ModernBertFamily(ModelFamily):
    """`transformers.ModernBertForMaskedLM` with the published pattern: every third layer attends to all positions,
    the others to a window of 128."""

    name = "modernbert"
    roles = ("encoder",)
    published_vocab_size = 50_368
    ties_embeddings = True
    rotary = True
    dropout_fields = ("embedding_dropout", "mlp_dropout", "attention_dropout")
    default_special_ids: ClassVar = {"bos": 50_281, "eos": 50_282, "cls": 50_281, "sep": 50_282, "pad": 50_283}

    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        from transformers import ModernBertConfig

        return ModernBertConfig(
            vocab_size=vocab_size,
            hidden_size=model.d_model,
            intermediate_size=model.d_ff,
            num_hidden_layers=model.n_layers,
            num_attention_heads=self.heads(model),
            max_position_embeddings=self.n_positions(model, seq_len),
            **settings,
        )

    def projections(self, model: ModelConfig) -> Projections:
        d, wide = model.d_model, model.d_ff
        return Projections(entry=((d, 3 * d),), inner=((d, d), (d, 2 * wide), (wide, d)))

    def head_products(self, model: ModelConfig, vocab_size: int) -> int:
        return model.d_model * (model.d_model + vocab_size)

    def enters_bare(self, number: int) -> bool:
        return number == 0  # the first block has no norm of its own before its attention

    def stack_view(self, model: Any) -> StackView:
        from stackwise_ray.models.stack import StackView

        trunk = model.model
        return StackView(
            embeddings=(trunk.embeddings,),
            blocks=trunk.layers,
            final_norm=trunk.final_norm,
            head=(model.head, model.decoder),
            residual_outputs=lambda block: (block.attn.Wo, block.mlp.Wo),
            projections=lambda block: (block.attn.Wqkv, block.attn.Wo, block.mlp.Wi, block.mlp.Wo),
            own_token=lambda block: (block.attn.Wo, block.mlp.Wi, block.mlp.Wo),
        )


FAMILIES.register("modernbert")(ModernBertFamily())
