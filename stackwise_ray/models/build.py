"""Builds transformers models from a `ModelConfig`: random initialisation, or weights from a path or the hub.

Planning builds on the meta device (no weights), assembly on the CPU. What is the same for every family is
here: dropout, ties, no cache in training, special-token ids, scaled-dot-product attention, float32 weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.component import forget_saved
from stackwise_ray.models.family import FAMILIES, ModelFamily, special_token_settings
from stackwise_ray.models.saved import auto_class, load_saved, saved_config, saved_folder, stored_names

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

ATTENTION = "sdpa"
"""`torch.nn.functional.scaled_dot_product_attention`: fused where the device has a kernel, counted everywhere."""


def check_model(model: ModelConfig, *, seq_len: int) -> ModelFamily:
    """The family of `model`, once its fields have been found to fit it; loads no torch.

    Raises:
        ConfigError: Unknown family, or a field that it forbids, needs or contradicts.
    """
    try:
        family = FAMILIES.get(model.family)
    except ConfigError as error:
        raise error.at(path="model.family") from None
    family.check(model, seq_len=seq_len)
    return family


def build_model(
    model: ModelConfig,
    *,
    vocab_size: int,
    seq_len: int,
    special_ids: Mapping[str, int] | None = None,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """A float32 model in training mode: `AutoModelForCausalLM` for decoders, `AutoModelForMaskedLM` for encoders.

    Args:
        vocab_size: Rows of the token embedding (the tokenizer's size); `model.vocab_size` must be None or at least
            as large, and is then used instead (padded vocabularies).
        seq_len: Tokens in a training window; also the rows of a position table where `max_positions` is None.
        special_ids: The tokenizer's special tokens, e.g. ``{"eos": 0, "pad": 1}``.
        device: "meta" builds shapes without weights, and so does any device inside a `FakeTensorMode`. Random weights
            draw from torch's default generator of the device: the caller seeds it.

    Raises:
        ConfigError: A field does not fit the family, the vocabulary or the pretrained weights.

    Example:
        >>> from stackwise_ray.config.trial import ModelConfig
        >>> config = ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=32, n_heads=4, d_ff=128)
        >>> build_model(config, vocab_size=256, seq_len=16, device="meta").num_parameters()
        34176
    """
    family = check_model(model, seq_len=seq_len)
    if model.pretrained is not None:
        _check_rows(str(model.pretrained), entries=vocab_size)
    if model.vocab_size is not None:
        if model.vocab_size < vocab_size:
            raise ConfigError(
                f"= {model.vocab_size} is smaller than the tokenizer's {vocab_size}; leave it out, or raise it",
                path="model.vocab_size",
            )
        vocab_size = model.vocab_size
    built: PreTrainedModel
    if model.pretrained is None:
        config = configure(model, vocab_size=vocab_size, seq_len=seq_len, special_ids=special_ids)
        built = _from_config(config, model.role, device)
    else:
        built = _from_pretrained(family, model, vocab_size=vocab_size, seq_len=seq_len, device=device)
    import stackwise_ray.models.grouped_heads  # noqa: F401 (transformers then repeats heads where torch needs it)
    from stackwise_ray.models.unpacked import skip_search_for_packing

    skip_search_for_packing(built)
    built.train()
    return built


def configure(
    model: ModelConfig, *, vocab_size: int, seq_len: int, special_ids: Mapping[str, int] | None = None
) -> PretrainedConfig:
    """The transformers config of a randomly initialised `model`, which must have passed `check_model`."""
    family = FAMILIES.get(model.family)
    return family.transformers_config(
        model,
        vocab_size=vocab_size,
        seq_len=seq_len,
        tie_word_embeddings=family.ties_embeddings if model.tie_embeddings is None else model.tie_embeddings,
        **_training_settings(family, model),
        **special_token_settings(family, vocab_size=vocab_size, special_ids=special_ids),
    )


def _training_settings(family: ModelFamily, model: ModelConfig) -> dict[str, Any]:
    return {"use_cache": False} | dict.fromkeys(family.dropout_fields, model.dropout)


def _from_config(config: PretrainedConfig, role: str, device: str | torch.device) -> PreTrainedModel:
    import torch
    from transformers.initialization import no_init_weights

    device = torch.device(device)
    # Meta and fake tensors have no values to initialise, and truncated-normal schemes read what they drew.
    shapes_alone = device.type == "meta" or torch._guards.detect_fake_mode() is not None
    # A device that is the default anyway is not named: the context would look at every call of torch.
    place = nullcontext() if device == torch.get_default_device() else device
    with place, no_init_weights() if shapes_alone else nullcontext():
        model: PreTrainedModel = auto_class(role).from_config(
            config, attn_implementation=ATTENTION, dtype=torch.float32
        )
    if shapes_alone:
        model.tie_weights()  # a part of the initialisation that was left out
    return model


def _check_rows(source: str, *, entries: int) -> None:
    """Refuses saved weights that have no embedding for some entries of the tokenizer."""
    rows = saved_config(saved_folder(source, path="model.pretrained"), path="model.pretrained").vocab_size
    if rows < entries:
        raise ConfigError(
            f"{source} has {rows} token embeddings, but the tokenizer has {entries} entries: ids from {rows} on have "
            "no embedding. Resize the model and save it again (model.resize_token_embeddings(len(tokenizer))), or use "
            "the tokenizer that it was trained with",
        )


def _from_pretrained(
    family: ModelFamily, model: ModelConfig, *, vocab_size: int, seq_len: int, device: str | torch.device
) -> PreTrainedModel:
    """Weights from `model.pretrained`, refused where their shape is not the configured one.

    On the meta device and inside a `FakeTensorMode` the same shapes come without a weight being read.
    """
    import torch

    from stackwise_ray.models.growth.insertion import take_form  # with torch, which planning starts without

    source = str(model.pretrained)
    folder = saved_folder(source, path="model.pretrained")
    config = saved_config(folder, path="model.pretrained")
    if config.model_type != family.name:
        raise ConfigError(
            f"= {family.name}, but {source} is a {config.model_type} model; write model.family: {config.model_type}",
            path="model.family",
        )
    expected = configure(model, vocab_size=vocab_size, seq_len=seq_len)
    have_all, want_all = _shape(family, config), _shape(family, expected)
    if model.tie_embeddings is None:
        del want_all["tie_embeddings"]  # not asked for: as the weights are
    for field, want in want_all.items():
        have = have_all[field]
        if have != want:
            raise ConfigError(f"= {want}, but {source} has {have}; write model.{field}: {have}", path=f"model.{field}")
    if family.has_position_table and seq_len > config.max_position_embeddings:
        raise ConfigError(
            f"= {seq_len} is more than the {config.max_position_embeddings} learned positions of {source};"
            f" choose data.seq_len <= {config.max_position_embeddings}",
            path="data.seq_len",
        )
    for name, value in _training_settings(family, model).items():
        setattr(config, name, value)
    forget_saved(config)
    if torch.device(device).type == "meta" or torch._guards.detect_fake_mode() is not None:
        built = _from_config(config, model.role, device)
        take_form(built, stored_names(folder))
        return built
    loaded = load_saved(
        folder, model.role, path="model.pretrained", config=config, attn_implementation=ATTENTION, dtype=torch.float32
    )
    result: PreTrainedModel = loaded.to(device)  # type: ignore[arg-type]  # its stub wraps the method
    return result


def _shape(family: ModelFamily, config: PretrainedConfig) -> dict[str, Any]:
    """What weights and `ModelConfig` must agree on, by the field's name."""
    causal: bool | None = getattr(config, "causal", None)  # of a family that has both roles
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": getattr(config, "num_attention_heads", None),
        "n_kv_heads": getattr(config, "num_key_value_heads", None),
        "d_ff": family.width_of_channel_mixer(config),
        "vocab_size": config.vocab_size,
        "tie_embeddings": config.tie_word_embeddings,
        "mixer": getattr(config, "mixer", None),
        "channel_mixer": getattr(config, "channel_mixer", None),
        "role": None if causal is None else "decoder" if causal else "encoder",
    }
