"""The size ladder: published counts, presets of the same shape, both counts for another vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from stackwise_ray.config.reading.presets import compose, list_presets
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.config.trial.validation import validate
from stackwise_ray.models import build_model
from stackwise_ray.models.build import configure
from stackwise_ray.models.counting import count_parameters
from stackwise_ray.models.sizes import SIZES, count_on_meta, describe_parameters, published_size

PRESETS = Path(__file__).resolve().parents[3] / "stackwise_ray" / "presets" / "model"

# Written out again on purpose: the published numbers, not the registry's.
EXPECTED = {
    "bert/tiny": ("BertModel", 14_350_248),
    "bert/base": ("BertModel", 109_482_240),
    "bert/large": ("BertModel", 335_141_888),
    "gpt2/small": ("GPT2LMHeadModel", 124_439_808),
    "gpt2/medium": ("GPT2LMHeadModel", 354_823_168),
    "gpt2/large": ("GPT2LMHeadModel", 774_030_080),
    "modernbert/base": ("ModernBertForMaskedLM", 149_655_232),
    "llama/1B": ("LlamaForCausalLM", 1_235_814_400),
}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_published_size_has_its_published_count(name: str) -> None:
    size = SIZES[name]
    assert size.model.vocab_size is not None
    config = configure(size.model, vocab_size=size.model.vocab_size, seq_len=size.model.max_positions or 1)
    with torch.device("meta"):
        published = getattr(transformers, size.architecture)(config)
    assert sum(parameter.numel() for parameter in published.parameters()) == size.parameters
    if name in EXPECTED:
        assert (size.architecture, size.parameters) == EXPECTED[name]


def test_the_expected_sizes_are_all_there() -> None:
    assert set(EXPECTED) <= set(SIZES)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_preset_of_a_published_size_has_its_shape(name: str) -> None:
    size = SIZES[name]
    family, of_size = name.split("/")
    preset = compose({"model": f"{size.model.role}/{family}_family/{of_size}"})["model"]
    model = ModelConfig(**{key: value for key, value in preset.items() if value is not None})
    assert model == replace(size.model, vocab_size=None)


@pytest.mark.parametrize("name", list_presets("model"))
def test_every_model_preset_is_valid_builds_and_states_its_source(name: str) -> None:
    file = PRESETS / f"{name}.yaml"
    model = validate(ModelConfig, load_yaml(file))
    assert file.read_text().startswith("# ")
    assert build_model(model, vocab_size=1000, seq_len=256, device="meta").config.num_hidden_layers == model.n_layers


BK_SIZES = [name for name in list_presets("model") if "/bk_family/" in name]


def test_bk_comes_in_every_size_of_llama_and_bert() -> None:
    matched = {"decoder": "llama_family", "encoder": "bert_family"}
    want = {
        name.replace(matched[role], "bk_family")
        for role in matched
        for name in list_presets("model")
        if name.startswith(f"{role}/{matched[role]}/")
    }
    assert set(BK_SIZES) == want
    assert {"decoder/bk_family/1B", "encoder/bk_family/tiny"} <= want


@pytest.mark.parametrize("name", BK_SIZES)
def test_a_bk_size_has_the_parameters_of_the_llama_or_bert_of_that_name_within_two_per_cent(name: str) -> None:
    """Non-embedding ones (by which families are compared) and all of them, on the meta device."""
    counterpart = name.replace("bk_family", "llama_family" if name.startswith("decoder") else "bert_family")
    own, other = (
        count_on_meta(validate(ModelConfig, load_yaml(PRESETS / f"{preset}.yaml")), vocab_size=32_000, seq_len=512)
        for preset in (name, counterpart)
    )
    assert own.non_embedding == pytest.approx(other.non_embedding, rel=0.02)
    assert own.total == pytest.approx(other.total, rel=0.02)
    assert f"{own.non_embedding:,} non-embedding parameters" in (PRESETS / f"{name}.yaml").read_text()


def test_no_weights_are_allocated_to_count() -> None:
    size = SIZES["llama/1B"].model
    assert count_on_meta(size, vocab_size=1000, seq_len=64).total > 1e9 - 1


def test_a_published_size_is_found_by_its_shape() -> None:
    small = SIZES["gpt2/small"].model
    found = published_size(replace(small, vocab_size=None, max_positions=None))
    assert found is not None
    assert found[0] == "gpt2/small"
    assert published_size(replace(small, n_layers=11)) is None


def test_both_counts_are_printed_for_another_vocabulary() -> None:
    small = replace(SIZES["gpt2/small"].model, vocab_size=None)
    assert describe_parameters(small, vocab_size=256, seq_len=1024) == (
        "86,039,040 parameters (85,056,000 non-embedding) at a vocabulary of 256;"
        " 124,439,808 as published (gpt2/small, GPT2LMHeadModel at 50,257)"
    )
    assert describe_parameters(small, vocab_size=50_257, seq_len=1024).endswith("50,257, as published (gpt2/small)")


def test_an_unpublished_shape_is_counted_at_the_vocabulary_of_its_family() -> None:
    tiny = ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=2, d_ff=32)
    at_published = count_on_meta(tiny, vocab_size=50_257, seq_len=16).total
    text = describe_parameters(tiny, vocab_size=100, seq_len=16)
    assert text.endswith(f"; {at_published:,} at the published vocabulary of 50,257")


def test_parameters_are_counted_by_hand() -> None:
    # d = 8, d_ff = 32: q, k, v, o 4·(64 + 8); ffn 2·256 + 32 + 8; two norms 32; final norm 16.
    tiny = ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=2, d_ff=32)
    blocks = 4 * 72 + 2 * 256 + 40 + 32 + 16
    tied = count_parameters(build_model(tiny, vocab_size=100, seq_len=16, device="meta"))
    assert (tied.total, tied.non_embedding) == (blocks + 100 * 8 + 16 * 8, blocks)
    untied = build_model(replace(tiny, tie_embeddings=False), vocab_size=100, seq_len=16, device="meta")
    assert count_parameters(untied).total == tied.total + 100 * 8
    assert count_parameters(untied).non_embedding == blocks


def test_frozen_parameters_count_too() -> None:
    tiny = ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=2, d_ff=32)
    model = build_model(tiny, vocab_size=100, seq_len=16, device=torch.device("meta"))
    before = count_parameters(model)
    assert count_parameters(model.requires_grad_(False)) == before
