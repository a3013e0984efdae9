"""The bk family as transformers models: `BKConfig`, `BKModel` and its heads, registered with `AutoModel*`.

A pre-norm stack: x + mixer(norm(x)), then x + SwiGLU(norm(x)). The mixers stand in `bk_mixers`; `none` leaves a
block with its channel mixer alone. Decoders mix causally and are the only ones with a next-token loss; encoders mix
both sides and are trained on masked tokens. There is no position table and no bound on the length.

`stackwise_ray.models.families.bk` maps a `ModelConfig` onto this; nothing here reads files or trains.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput, MaskedLMOutput
from transformers.utils.generic import can_return_tuple

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.bk_mixers import HeadRMSNorm, TridiagonalHeads, build_mixer, residual_projection
from stackwise_ray.models.bk_rules import mixer_settings


class BKConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Shape of a bk model.

    Args:
        mixer: Settings of the token mixer as a plain mapping with `kind`; the keys are those of the mixers in
            `stackwise_ray.config.trial`. None: `resolvent_apply` with its defaults.
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
        self.causal = causal
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(**kwargs | {"tie_word_embeddings": tie_word_embeddings})


class SwiGLU(nn.Module):
    """down(SiLU(gate x) · up x), the channel mixer (Shazeer 2020, 2002.05202)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = residual_projection(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return mixed


class BKBlock(nn.Module):
    """One layer: token mixer (absent in `none`) and channel mixer, each behind its norm on a residual branch."""

    def __init__(self, config: BKConfig) -> None:
        super().__init__()
        d_model, eps = config.hidden_size, config.rms_norm_eps
        self.mixer = build_mixer(mixer_settings(config.mixer, d_model), d_model, causal=config.causal, eps=eps)
        self.mixer_norm = None if self.mixer is None else nn.RMSNorm(d_model, eps=eps)
        self.ffn_norm = nn.RMSNorm(d_model, eps=eps)
        self.ffn = SwiGLU(d_model, config.intermediate_size)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        if self.mixer is not None and self.mixer_norm is not None:
            hidden_states = hidden_states + self.mixer(self.mixer_norm(hidden_states), attention_mask)
        result: Tensor = hidden_states + self.ffn(self.ffn_norm(hidden_states))
        return result


class BKPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What the bk models share: initialisation and the settings that transformers reads."""

    config_class = BKConfig
    base_model_prefix = "model"
    _no_split_modules = ["BKBlock"]  # noqa: RUF012 (transformers' own form)
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            residual = getattr(module, "is_residual_projection", False)
            init.normal_(module.weight, std=std / math.sqrt(2 * self.config.num_hidden_layers) if residual else std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, nn.RMSNorm | HeadRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, TridiagonalHeads):
            for name, value in module.initial_parameters().items():
                init.copy_(getattr(module, name), value)


class BKModel(BKPreTrainedModel):
    """Token embeddings, blocks and final norm."""

    def __init__(self, config: BKConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(BKBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (batch, n, hidden_size).

        Args:
            input_ids: (batch, n) token ids; or `inputs_embeds` (batch, n, hidden_size), not both.
            attention_mask: (batch, n), 0 where a position is padding; None: there is none.
            output_hidden_states: Whether to return the states before each block and after the final norm as well.
            kwargs: Ignored: other models' arguments, such as `position_ids`.
        """
        del kwargs
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        states = []
        for block in self.layers:
            states.append(hidden_states)
            hidden_states = block(hidden_states, attention_mask)
        hidden_states = self.norm(hidden_states)
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states,
            hidden_states=(*states, hidden_states) if output_hidden_states else None,
        )


class BKForCausalLM(BKPreTrainedModel, GenerationMixin):
    """Next-token model; every mixer is causal."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own form)

    def __init__(self, config: BKConfig) -> None:
        if not config.causal:
            raise ConfigError(
                "= false: a two-sided mixer shows each position the token that it is to predict, so a next-token loss"
                " would leak; set causal: true, or train on masked tokens (BKForMaskedLM)",
                path="causal",
            )
        super().__init__(config)
        self.model = BKModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """Logits (batch, n, vocab_size); with `labels` (batch, n), also the mean next-token loss in nats a token.

        Args:
            labels: The input ids themselves (transformers' convention: shifted inside); −100 is left out.
            logits_to_keep: Compute logits for this many last positions only (0: all), or for these positions.
        """
        output: BaseModelOutputWithPast = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        hidden_states = output.last_hidden_state
        assert hidden_states is not None
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden_states[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # there are no keys and values to keep: `generate` runs the whole context at each step

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The whole context, whatever transformers would cut off on account of a cache."""
        del kwargs
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}


class BKForMaskedLM(BKPreTrainedModel):
    """Masked-token model; every mixer sees both sides."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own form)

    def __init__(self, config: BKConfig) -> None:
        if config.causal:
            raise ConfigError(
                "= true: a masked token is to be predicted from both sides; set causal: false, or train on next"
                " tokens (BKForCausalLM)",
                path="causal",
            )
        super().__init__(config)
        self.model = BKModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Logits (batch, n, vocab_size); with `labels` (batch, n), also the mean loss over labels that are not −100."""
        output: BaseModelOutputWithPast = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        logits = self.lm_head(output.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)


class BKForSequenceClassification(GenericForSequenceClassification, BKPreTrainedModel):  # type: ignore[no-untyped-call]
    """Classifies a sequence from its last position that is not padding."""


AutoConfig.register("bk", BKConfig)
AutoModel.register(BKConfig, BKModel)
AutoModelForCausalLM.register(BKConfig, BKForCausalLM)
AutoModelForMaskedLM.register(BKConfig, BKForMaskedLM)
AutoModelForSequenceClassification.register(BKConfig, BKForSequenceClassification)
