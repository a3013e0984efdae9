"""What every model family owes: run over the registry and the presets named tiny, so that newcomers are found."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial import ExpertsChannelMixer, Mixer, ModelConfig
from stackwise_ray.config.trial.validation import validate
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import FAMILIES, build_model
from stackwise_ray.models.counting import count_parameters
from stackwise_ray.models.stack_view import enable_activation_checkpointing, stack_view

PRESETS = Path(__file__).resolve().parents[2] / "stackwise_ray" / "presets" / "model"
VOCAB_SIZE = 97


def tiny_models() -> dict[str, ModelConfig]:
    """Every preset named tiny; a family with a choice of mixers comes once with each, and once with experts."""
    found: dict[str, ModelConfig] = {}
    for name in list_presets("model"):
        if not name.endswith("/tiny"):
            continue
        model = validate(ModelConfig, load_yaml(PRESETS / f"{name}.yaml"))
        if FAMILIES.get(model.family).takes_mixer:
            for kind in get_args(get_args(Mixer)[0]):
                found[f"{name}-{kind().kind}"] = replace(model, mixer=kind())
            found[f"{name}-experts"] = replace(model, channel_mixer=ExpertsChannelMixer(top_k=2))
        else:
            found[name] = model
    return found


MODELS = tiny_models()
DECODERS = {name: model for name, model in MODELS.items() if model.role == "decoder"}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
every_decoder = pytest.mark.parametrize("model", DECODERS.values(), ids=DECODERS.keys())


def build(model: ModelConfig, *, seq_len: int = 24, device: str = "cpu") -> PreTrainedModel:
    torch.manual_seed(0)
    return build_model(model, vocab_size=VOCAB_SIZE, seq_len=seq_len, device=device)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(1))


def test_every_family_has_a_preset_named_tiny() -> None:
    assert {model.family for model in MODELS.values()} == set(FAMILIES.names())


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_family_is_registered_under_its_own_name(name: str) -> None:
    assert FAMILIES.get(name).name == name


@every_model
def test_a_model_finds_its_family_by_its_transformers_type(model: ModelConfig) -> None:
    assert build(model, device="meta").config.model_type == model.family


def leaks(model: PreTrainedModel, inputs: torch.Tensor, positions: range | list[int]) -> list[int]:
    """Positions whose token changes a logit before them; each must at least change its own."""
    found = []
    with torch.no_grad():
        before = model(input_ids=inputs).logits
        for position in positions:
            perturbed = inputs.clone()
            perturbed[:, position] = (perturbed[:, position] + 13) % VOCAB_SIZE
            after = model(input_ids=perturbed).logits
            assert not torch.equal(after[:, position], before[:, position]), f"token {position} is not read at all"
            if not torch.equal(after[:, :position], before[:, :position]):
                found.append(position)
    return found


@every_decoder
def test_no_future_token_changes_an_earlier_logit_by_a_bit(model: ModelConfig) -> None:
    assert leaks(build(model, seq_len=40).double(), tokens(1, 40), range(40)) == []


@every_decoder
def test_causality_holds_over_the_blocks_of_the_attention_kernel(model: ModelConfig) -> None:
    # The CPU kernel cuts keys into blocks of 512 and queries into blocks of 32 to 256.
    assert leaks(build(model, seq_len=600).double(), tokens(1, 600), [1, 32, 255, 256, 511, 512, 599]) == []


@every_model
def test_the_stack_view_holds_every_parameter(model: ModelConfig) -> None:
    built = build(model)
    view = stack_view(built)
    names = [name for name, _ in view.parts()]
    assert len(set(names)) == len(names)
    assert len(view.blocks) == model.n_layers
    held = {id(parameter) for _, part in view.parts() for parameter in part.parameters()}
    assert held == {id(parameter) for parameter in built.parameters()}


@every_model
def test_blocks_share_no_parameter(model: ModelConfig) -> None:
    held = [id(p) for block in stack_view(build(model)).blocks for p in block.parameters()]
    assert len(set(held)) == len(held)


@every_model
def test_the_head_of_the_view_gives_the_logits_of_the_model(model: ModelConfig) -> None:
    built, inputs = build(model).eval(), tokens(2, 24)
    with torch.no_grad():
        hidden = built.base_model(input_ids=inputs).last_hidden_state
        assert torch.equal(stack_view(built).logits(hidden), built(input_ids=inputs).logits)


def gradients(model: PreTrainedModel, inputs: torch.Tensor) -> list[torch.Tensor]:
    loss = torch.nn.functional.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), inputs.flatten())
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))


@every_model
def test_activation_checkpointing_gives_the_same_gradients_bit_for_bit(model: ModelConfig) -> None:
    plain = build(model)
    checkpointed = copy.deepcopy(plain)
    enable_activation_checkpointing(checkpointed)
    inputs = tokens(2, 24)
    pairs = zip(gradients(plain, inputs), gradients(checkpointed, inputs), strict=True)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


@every_model
def test_every_parameter_that_is_read_gets_a_gradient(model: ModelConfig) -> None:
    built = build(model)
    named = zip(built.named_parameters(), gradients(built, tokens(2, 24)), strict=True)
    assert [name for (name, _), gradient in named if gradient is None or not gradient.isfinite().all()] == []


@every_model
def test_a_saved_model_is_reloaded_by_transformers_with_the_same_logits(model: ModelConfig, tmp_path: Path) -> None:
    built, inputs = build(model).eval(), tokens(2, 24)
    built.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))  # safetensors only
    auto = AutoModelForCausalLM if model.role == "decoder" else AutoModelForMaskedLM
    reloaded = auto.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(reloaded(input_ids=inputs).logits, built(input_ids=inputs).logits)


@every_model
def test_a_saved_model_can_be_trained_on(model: ModelConfig, tmp_path: Path) -> None:
    built, inputs = build(model), tokens(2, 24)
    built.save_pretrained(tmp_path)
    again = build(replace(model, pretrained=str(tmp_path)))
    assert again.training
    with torch.no_grad():
        assert torch.equal(again(input_ids=inputs).logits, built(input_ids=inputs).logits)


@every_model
def test_a_saved_checkpointed_model_has_the_names_of_a_plain_one(model: ModelConfig) -> None:
    plain = build(model)
    names = set(plain.state_dict())
    enable_activation_checkpointing(plain)
    assert set(plain.state_dict()) == names


@every_model
def test_parameters_count_the_same_on_the_meta_device(model: ModelConfig) -> None:
    assert count_parameters(build(model, device="meta")) == count_parameters(build(model))


@every_model
def test_non_embedding_parameters_depend_on_neither_vocabulary_nor_context(model: ModelConfig) -> None:
    small = build_model(model, vocab_size=50, seq_len=8, device="meta")
    large = build_model(model, vocab_size=5000, seq_len=64, device="meta")
    assert count_parameters(small).non_embedding == count_parameters(large).non_embedding
    assert count_parameters(small).total < count_parameters(large).total


@every_model
def test_special_tokens_lie_inside_a_small_vocabulary(model: ModelConfig) -> None:
    config = build_model(model, vocab_size=17, seq_len=8, device="meta").config
    ids = {name: value for name, value in config.to_dict().items() if name.endswith("_token_id")}
    assert all(value is None or 0 <= value < 17 for value in ids.values()), ids


@every_model
def test_special_tokens_are_those_of_the_tokenizer(model: ModelConfig) -> None:
    config = build_model(model, vocab_size=17, seq_len=8, special_ids={"eos": 3, "pad": 5}, device="meta").config
    assert (config.eos_token_id, config.pad_token_id, getattr(config, "bos_token_id", None)) == (3, 5, None)


@every_model
def test_models_are_built_without_dropout_and_without_a_cache(model: ModelConfig) -> None:
    built = build(model)
    assert all(module.p == 0 for module in built.modules() if isinstance(module, torch.nn.Dropout))
    assert not getattr(built.config, "use_cache", False)  # ModernBERT knows no cache
    inputs = tokens(2, 24)
    with torch.no_grad():
        assert torch.equal(built(input_ids=inputs).logits, built(input_ids=inputs).logits)


@every_model
def test_the_seed_alone_decides_the_weights(model: ModelConfig) -> None:
    first, second = build(model).state_dict(), build(model).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_model
def test_weights_are_float32_and_attention_is_scaled_dot_product(model: ModelConfig) -> None:
    built = build(model)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    assert built.config._attn_implementation == "sdpa"


@every_model
def test_a_role_that_the_family_lacks_is_refused(model: ModelConfig) -> None:
    roles = FAMILIES.get(model.family).roles
    for role in {"encoder", "decoder"} - set(roles):
        with pytest.raises(ConfigError, match=r"model\.role"):
            build(replace(model, role=role))  # type: ignore[arg-type]
    assert model.role in roles


def test_the_tiny_decoders_agree_in_non_embedding_parameters() -> None:
    # The mixers of one family differ by design; the preset's own mixer is the one that is matched.
    own = [name for name in list_presets("model") if name.startswith("decoder/") and name.endswith("/tiny")]
    sizes = {
        name: count_parameters(build(validate(ModelConfig, load_yaml(PRESETS / f"{name}.yaml")), device="meta"))
        for name in own
    }
    counts = [size.non_embedding for size in sizes.values()]
    assert max(counts) <= 1.02 * min(counts), sizes
    assert 180_000 < min(counts) < 220_000
