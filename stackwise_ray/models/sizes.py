"""The size ladder: published shapes with the parameter counts that their publishers state.

The presets under `presets/model` carry the same shapes (a test compares them), and the counts are asserted on the
meta device. A model that is built for another vocabulary prints both counts through `describe_parameters`.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from stackwise_ray.config.space.sized_arms import PARAMETER_COUNTS
from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.models.build import build_model
from stackwise_ray.models.counting import ParameterCount, count_parameters
from stackwise_ray.models.family import FAMILIES


@dataclass(frozen=True, kw_only=True)
class PublishedSize:
    """A published model.

    Attributes:
        model: Its shape; `vocab_size` and, where positions are learned, `max_positions` are the published ones.
        architecture: The transformers class whose parameters the publisher counts.
        parameters: The published count.
        source: Where the shape and the count come from.
    """

    model: ModelConfig
    architecture: str
    parameters: int
    source: str


SIZES: dict[str, PublishedSize] = {}
"""Published sizes by "<family>/<size>", the size being the name of the preset."""


def _publish(
    name: str,
    shape: tuple[int, int, int, int],
    architecture: str,
    parameters: int,
    source: str,
    *,
    vocab_size: int,
    **fields: Any,
) -> None:
    family, _ = name.split("/")
    n_layers, d_model, n_heads, d_ff = shape
    model = ModelConfig(
        family=family,
        role="encoder" if "bert" in family else "decoder",
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_ff=d_ff,
        vocab_size=vocab_size,
        **fields,
    )
    SIZES[name] = PublishedSize(model=model, architecture=architecture, parameters=parameters, source=source)


# name, (n_layers, d_model, n_heads, d_ff), class that is counted, count, source
_BERT: dict[str, Any] = {"vocab_size": 30_522, "max_positions": 512}
_publish("bert/tiny", (4, 312, 12, 1200), "BertModel", 14_350_248, "TinyBERT-4, Jiao et al. 2020, 1909.10351", **_BERT)
_publish("bert/base", (12, 768, 12, 3072), "BertModel", 109_482_240, "Devlin et al. 2019, 1810.04805", **_BERT)
_publish("bert/large", (24, 1024, 16, 4096), "BertModel", 335_141_888, "Devlin et al. 2019, 1810.04805", **_BERT)

_MODERN: dict[str, Any] = {"vocab_size": 50_368}
_WARNER = "Warner et al. 2024, 2412.13663"
_publish("modernbert/base", (22, 768, 12, 1152), "ModernBertForMaskedLM", 149_655_232, _WARNER, **_MODERN)
_publish("modernbert/large", (28, 1024, 16, 2624), "ModernBertForMaskedLM", 395_881_664, _WARNER, **_MODERN)

_GPT2: dict[str, Any] = {"vocab_size": 50_257, "max_positions": 1024}
_RADFORD = "Radford et al. 2019, released weights"
_publish("gpt2/small", (12, 768, 12, 3072), "GPT2LMHeadModel", 124_439_808, _RADFORD, **_GPT2)
_publish("gpt2/medium", (24, 1024, 16, 4096), "GPT2LMHeadModel", 354_823_168, _RADFORD, **_GPT2)
_publish("gpt2/large", (36, 1280, 20, 5120), "GPT2LMHeadModel", 774_030_080, _RADFORD, **_GPT2)

_SMOL: dict[str, Any] = {"vocab_size": 49_152, "tie_embeddings": True}
_ALLAL = "SmolLM, Allal et al. 2024, released weights"
_publish("llama/small", (30, 576, 9, 1536), "LlamaForCausalLM", 134_515_008, _ALLAL, n_kv_heads=3, **_SMOL)
_publish("llama/medium", (32, 960, 15, 2560), "LlamaForCausalLM", 361_821_120, _ALLAL, n_kv_heads=5, **_SMOL)
_publish(
    "llama/1B",
    (16, 2048, 32, 8192),
    "LlamaForCausalLM",
    1_235_814_400,
    "Llama 3.2 1B, Meta 2024, released weights",
    n_kv_heads=8,
    vocab_size=128_256,
    tie_embeddings=True,
)


def published_size(model: ModelConfig) -> tuple[str, PublishedSize] | None:
    """(name, size) of the published size with the shape of `model`, or None."""
    for name, size in SIZES.items():
        if _shape(size.model) == _shape(model):
            return name, size
    return None


def _shape(model: ModelConfig) -> tuple[object, ...]:
    return model.family, model.n_layers, model.d_model, model.n_heads, model.n_kv_heads, model.d_ff, model.mixer


def count_on_meta(model: ModelConfig, *, vocab_size: int, seq_len: int) -> ParameterCount:
    """The parameter count of `model` without building its weights."""
    return count_parameters(build_model(model, vocab_size=vocab_size, seq_len=seq_len, device="meta"))


@PARAMETER_COUNTS.register("sizes")
@functools.cache
def non_embedding_params(model: ModelConfig) -> int:
    """Parameters of `model` that depend on neither its vocabulary nor its context: N of a scaling law."""
    return count_on_meta(model, vocab_size=model.vocab_size or 2, seq_len=model.max_positions or 1).non_embedding


def describe_parameters(model: ModelConfig, *, vocab_size: int, seq_len: int) -> str:
    """One line with the counts of `model` at this vocabulary and, where it differs, at the published one.

    Example:
        >>> config = ModelConfig(family="gpt2", role="decoder", n_layers=12, d_model=768, n_heads=12, d_ff=3072)
        >>> describe_parameters(config, vocab_size=256, seq_len=256)  # doctest: +NORMALIZE_WHITESPACE
        '85,449,216 parameters (85,056,000 non-embedding) at a vocabulary of 256;
        124,439,808 as published (gpt2/small, GPT2LMHeadModel at 50,257)'
    """
    vocab_size = model.vocab_size or vocab_size
    here = count_on_meta(model, vocab_size=vocab_size, seq_len=seq_len)
    text = f"{here.total:,} parameters ({here.non_embedding:,} non-embedding) at a vocabulary of {vocab_size:,}"
    published = published_size(model)
    if published is not None:
        name, size = published
        if here.total == size.parameters:
            return f"{text}, as published ({name})"
        return f"{text}; {size.parameters:,} as published ({name}, {size.architecture} at {size.model.vocab_size:,})"
    usual = FAMILIES.get(model.family).published_vocab_size
    if usual is None or usual == vocab_size or model.pretrained is not None:  # saved weights have one vocabulary
        return text
    there = count_on_meta(dataclasses.replace(model, vocab_size=usual), vocab_size=usual, seq_len=seq_len)
    return f"{text}; {there.total:,} at the published vocabulary of {usual:,}"
