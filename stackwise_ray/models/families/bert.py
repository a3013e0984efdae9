"""BERT (Devlin et al. 2019): post-norm encoder, learned positions and token types, GELU, tied masked-LM head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.models.family import FAMILIES, ModelFamily, Projections

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack import StackView


class BertFamily(ModelFamily):
    """`transformers.BertForMaskedLM`. Each block ends in a norm: there is no final one."""

    name = "bert"
    roles = ("encoder",)
    published_vocab_size = 30_522
    ties_embeddings = True
    has_position_table = True
    blocks_end_in_norm = True
    dropout_fields = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    default_special_ids: ClassVar = {"pad": 0}

    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        from transformers import BertConfig

        return BertConfig(
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
        return Projections(entry=((d, d),) * 3, inner=((d, d), (d, wide), (wide, d)))  # queries, keys and values first

    def head_products(self, model: ModelConfig, vocab_size: int) -> int:
        return model.d_model * (model.d_model + vocab_size)

    def enters_bare(self, number: int) -> bool:
        return True

    def stack_view(self, model: Any) -> StackView:
        from stackwise_ray.models.stack import StackView

        return StackView(
            embeddings=(model.bert.embeddings,),
            blocks=model.bert.encoder.layer,
            final_norm=None,
            head=(model.cls,),
            residual_outputs=None,
            projections=lambda block: (
                *(block.attention.self.query, block.attention.self.key, block.attention.self.value),
                *(block.attention.output.dense, block.intermediate.dense, block.output.dense),
            ),
            own_token=lambda block: (
                *(block.attention.self.query, block.attention.output.dense),
                *(block.intermediate.dense, block.output.dense),
            ),
        )


FAMILIES.register("bert")(BertFamily())
