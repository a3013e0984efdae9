"""The bk family as transformers models: `BKModel` and its heads, registered with `AutoModel*`.

A pre-norm stack: x + mixer(norm(x)), then x + channel_mixer(norm(x)). The mixers are in `token_mixers` and
`channel_mixers`; `none` leaves a block with its channel mixer alone. Decoders mix causally and are the only ones with a
next-token loss; encoders mix both sides and are trained on masked tokens. There is no position table and no bound on
the length. Decoding carries a state of constant size (`decoding_cache`).

`stackwise_ray.models.families.bk` maps a `ModelConfig` onto this; nothing here reads files or trains.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.utils.generic import can_return_tuple

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.bk.bk_config import BKCausalLMOutput, BKConfig, BKMaskedLMOutput, BKModelOutput
from stackwise_ray.models.bk.channel_mixers import MixtureOfExperts, SwiGLU, build_channel_mixer
from stackwise_ray.models.bk.decoding_cache import BKCache
from stackwise_ray.models.bk.token_mixers import HeadRMSNorm, TridiagonalHeads, build_mixer
from stackwise_ray.models.mixer_rules import channel_mixer_settings, mixer_settings

__all__ = [
    "BKBlock",
    "BKConfig",
    "BKForCausalLM",
    "BKForMaskedLM",
    "BKForSequenceClassification",
    "BKModel",
    "BKPreTrainedModel",
    "SwiGLU",
]


class BKBlock(nn.Module):
    """One layer: token mixer (absent in `none`) and channel mixer, each behind its norm on a residual branch."""

    def __init__(self, config: BKConfig) -> None:
        super().__init__()
        d_model, eps = config.hidden_size, config.rms_norm_eps
        self.mixer = build_mixer(mixer_settings(config.mixer, d_model), d_model, causal=config.causal, eps=eps)
        self.mixer_norm = None if self.mixer is None else nn.RMSNorm(d_model, eps=eps)
        self.ffn_norm = nn.RMSNorm(d_model, eps=eps)
        self.ffn = build_channel_mixer(channel_mixer_settings(config.channel_mixer), d_model, config.intermediate_size)

    def residual_outputs(self) -> tuple[nn.Module, ...]:
        """The last projection of each branch: at 0 the block is the identity."""
        mixer: Any = self.mixer
        return (self._channels.down,) if mixer is None else (mixer.out, self._channels.down)

    def projections(self) -> tuple[nn.Module, ...]:
        """Its matrices but a router's, those first that read the block's input."""
        mixer: Any = self.mixer
        mixing = () if mixer is None else mixer.projections()
        return (*mixing, self._channels.gate, self._channels.up, self._channels.down)

    def own_token_projections(self) -> tuple[nn.Module, ...]:
        """Those of its matrices whose outputs no other position reads."""
        mixer: Any = self.mixer
        mixing = (
            () if mixer is None else tuple(one for one in (getattr(mixer, "gate", None), mixer.out) if one is not None)
        )
        return (*mixing, self._channels.gate, self._channels.up, self._channels.down)

    @property
    def _channels(self) -> SwiGLU:
        return self.ffn.experts if isinstance(self.ffn, MixtureOfExperts) else self.ffn

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, past: Any = None
    ) -> tuple[Tensor, Tensor | None]:
        """(hidden states, load-balance loss of experts in training); `past` is the block's layer of a `BKCache`."""
        if self.mixer is not None and self.mixer_norm is not None:
            hidden_states = hidden_states + self.mixer(self.mixer_norm(hidden_states), attention_mask, past)
        normal, balance = self.ffn_norm(hidden_states), None
        if isinstance(self.ffn, MixtureOfExperts):
            here = None if attention_mask is None else attention_mask[:, -normal.shape[1] :]
            mixed, balance = self.ffn(normal, here)
        else:
            mixed = self.ffn(normal)
        return hidden_states + mixed, balance


class BKPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What the bk models share: initialisation and the settings that transformers reads."""

    config: BKConfig
    config_class = BKConfig
    base_model_prefix = "model"
    _no_split_modules = ["BKBlock"]  # noqa: RUF012 (transformers' own form)
    _supports_sdpa = True
    _is_stateful = True  # assisted decoding would have to take positions back: transformers refuses it by this

    def _with_auxiliary(self, loss: Tensor, aux_loss: Tensor | None) -> Tensor:
        return loss if aux_loss is None else loss + self.config.router_aux_loss_coef * aux_loss

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
        past_key_values: BKCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BKModelOutput:
        """Hidden states (batch, n, hidden_size).

        Args:
            input_ids: (batch, n) token ids; or `inputs_embeds` (batch, n, hidden_size), not both.
            attention_mask: (batch, n), 0 where a position is padding; None: there is none. With a cache it covers the
                positions in it as well.
            past_key_values: What earlier calls left; the positions are those that follow. It is changed in place.
            use_cache: Whether to make such a cache where none is given and to return it; None: as the config says,
                except in training.
            output_hidden_states: Whether to return the states before each block and after the final norm as well.
            kwargs: Ignored: other models' arguments, such as `position_ids`.
        """
        del kwargs
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = self._cache(past_key_values, use_cache)
        _check_mask(attention_mask, hidden_states, cache)
        states, balances = [], []
        for number, block in enumerate(self.layers):
            states.append(hidden_states)
            past = None if cache is None else cache.layers[number]
            hidden_states, balance = block(hidden_states, attention_mask, past)
            balances += [] if balance is None else [balance]
        hidden_states = self.norm(hidden_states)
        if cache is not None:
            cache.advance(hidden_states.shape[1])
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        return BKModelOutput(
            last_hidden_state=hidden_states,
            past_key_values=cache,
            hidden_states=(*states, hidden_states) if output_hidden_states else None,
            aux_loss=torch.stack(balances).mean() if balances else None,
        )

    def _cache(self, given: BKCache | None, use_cache: bool | None) -> BKCache | None:
        if use_cache is None:
            use_cache = bool(self.config.use_cache) and not self.training
        if given is None and not use_cache:
            return None
        if self.training and torch.is_grad_enabled():
            raise ValueError(
                "a cache cannot be used while activations are recomputed: each block would pass through it twice;"
                " call eval(), or decode under torch.no_grad()"
            )
        if given is None:
            return BKCache(self.config)
        if not isinstance(given, BKCache):
            raise ValueError(
                f"past_key_values is a {type(given).__name__}, which cannot hold the state of a bk model; pass a"
                " stackwise_ray.models.bk.decoding_cache.BKCache(model.config), or none"
            )
        return given


def _check_mask(mask: Tensor | None, hidden_states: Tensor, cache: BKCache | None) -> None:
    before = 0 if cache is None else cache.get_seq_length()
    wanted = (hidden_states.shape[0], before + hidden_states.shape[1])
    if mask is not None and tuple(mask.shape) != wanted:
        inside = f" ({before} of them in the cache)" if before else ""
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}; it must be (batch, positions{inside}) = {wanted}"
        )


class BKForCausalLM(BKPreTrainedModel, GenerationMixin):
    """Next-token model; every mixer is causal."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own form)

    def __init__(self, config: BKConfig) -> None:
        if not config.causal:
            raise ConfigError(
                "= false: a two-sided mixer shows each position the next token, which is what it has to predict; set"
                " causal: true, or train on masked tokens (BKForMaskedLM)",
                path="causal",
            )
        super().__init__(config)
        self.model = BKModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]
        # The config's own `use_cache` is about calls of the model, and false in training.
        self.generation_config.use_cache = True

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: BKCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> BKCausalLMOutput:
        """Logits (batch, n, vocab_size); with `labels` (batch, n), also the mean next-token loss in nats per token.

        Args:
            labels: The input ids themselves (transformers' convention: shifted inside); −100 is left out.
            past_key_values, use_cache: As in `BKModel`.
            logits_to_keep: Compute logits for this many last positions only (0: all), or for these positions.
        """
        output: BKModelOutput = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = output.last_hidden_state
        assert hidden_states is not None
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden_states[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
            loss = self._with_auxiliary(loss, output.aux_loss)
        return BKCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            aux_loss=output.aux_loss,
        )

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # transformers' caches hold keys and values; the model makes its own in the first call


class BKForMaskedLM(BKPreTrainedModel):
    """Masked-token model; every mixer sees both sides."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own form)

    def __init__(self, config: BKConfig) -> None:
        if config.causal:
            raise ConfigError(
                "= true: a causal mixer does not see the tokens after a mask; set causal: false, or train on next"
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
    ) -> BKMaskedLMOutput:
        """Logits (batch, n, vocab_size); with `labels` (batch, n), also the mean loss over labels that are not −100."""
        output: BKModelOutput = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        logits = self.lm_head(output.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
            loss = self._with_auxiliary(loss, output.aux_loss)
        return BKMaskedLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states, aux_loss=output.aux_loss)

    def generate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused.

        Raises:
            ConfigError: Says why.
        """
        raise ConfigError(
            "= false: a two-sided model needs the tokens on both sides, and while it generates there are none on the"
            " right; use a causal model (BKForCausalLM, role: decoder)",
            path="causal",
        )


class BKForSequenceClassification(GenericForSequenceClassification, BKPreTrainedModel):  # type: ignore[no-untyped-call]
    """Classifies a sequence from its last position that is not padding (causal or two-sided; the id decides:
    `config.pad_token_id`). Pass `attention_mask` too, so that a two-sided mixer does not see the padding. Experts are
    fine-tuned without their load-balance loss."""


AutoConfig.register("bk", BKConfig)
AutoModel.register(BKConfig, BKModel)
AutoModelForCausalLM.register(BKConfig, BKForCausalLM)
AutoModelForMaskedLM.register(BKConfig, BKForMaskedLM)
AutoModelForSequenceClassification.register(BKConfig, BKForSequenceClassification)
