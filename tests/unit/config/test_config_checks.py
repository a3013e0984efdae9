"""Rules across the fields of a trial: those of every trial, and that the entries which it names are asked."""

from __future__ import annotations

from typing import Any

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import edit
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import FAMILIES, build_model

GPT2 = load_trial(["model=decoder/gpt2_family/tiny"])
BERT = load_trial(["model=encoder/bert_family/tiny"])
BK = {"model": {"family": "bk", "n_heads": None}, "model.mixer": {"kind": "attention"}}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"model.n_heads": 7}, "model.n_heads = 7 does not divide d_model = 64; choose 4, 8 or 16"),
        ({"model.n_heads": 100}, "model.n_heads = 100 does not divide d_model = 64; choose 16, 32 or 64"),
        ({"model.n_heads": None}, "model.n_heads: is missing: family gpt2 needs a number of attention heads"),
        ({"model.n_kv_heads": 3}, "model.n_kv_heads = 3, but family gpt2 does not take it; it goes with llama"),
        (
            {"model.family": "llama", "model.n_kv_heads": 3},
            "model.n_kv_heads = 3 does not divide n_heads = 4; choose 1, 2 or 4",
        ),
        (
            {"model.family": "llama", "model.max_positions": 8},
            "= 8, but family llama does not take it; it goes with bert or",
        ),
        ({"model.family": "gtp2"}, "model.family = gtp2 is an unknown model family; did you mean 'gpt2'?"),
        ({"model.role": "encoder"}, "model.role = encoder, but family gpt2 is built as decoder only; write decoder"),
        (
            {"model.mixer": {"kind": "none"}},
            "model.mixer = none, but family gpt2 does not take it; it goes with bk; remove it",
        ),
        (
            {"model.max_positions": 128},
            "data.seq_len = 256 is beyond the 128 learned positions of gpt2 (model.max_positions); choose",
        ),
        ({"data.corpus": "makrov"}, "data.corpus = makrov is an unknown corpus; did you mean 'markov'?"),
        ({"data.corpus": "markov"}, "data.markov: is required with corpus: markov"),
        (
            {"data.markov": {"order": 1}},
            "data.markov: has no effect in the corpus python_stdlib; it goes with m",
        ),
        ({"data.corpus": "associative_recall"}, "data.associative_recall: is required with corpus: associative_recall"),
        (
            {"data.associative_recall": {}},
            "data.associative_recall: has no effect in the corpus python_stdlib; it goes with associative_recall",
        ),
        (
            {"data.path": "x"},
            "data.path = x has no effect in the corpus python_stdlib; it goes with hub, ptb",
        ),
        ({"data.corpus": "hub"}, "data.path: is required with corpus: hub; give the dataset's name"),
        (
            {"data.corpus": "markov", "data.markov": {"n_symbols": 95}},
            "data.markov.n_symbols = 95: a source has 2",
        ),
        (
            {"data.corpus": "markov", "data.markov": {}, "data.tokenizer": "words"},
            "data.tokenizer = words: corpus markov has an exact floor per symbol, which needs one token per symbol",
        ),
        ({"data.corpus": "text_files"}, "data.path: is required with corpus: text_files"),
        ({"optimizer.kind": "adamv"}, "optimizer.kind = adamv is an unknown optimizer; did you mean 'adamw'?"),
        ({"training.regime": "clasical"}, "training.regime = clasical is an unknown regime; did you mean 'classical'?"),
        ({"flags": ["mixed_precison"]}, "flags = mixed_precison is an unknown flag; did you mean 'mixed_precision'?"),
        ({"flags": ["mixed_precision"] * 2}, "lists 'mixed_precision' twice"),
        (
            {"training.batch_tokens": 1000},
            "training.batch_tokens = 1000 is not a multiple of data.seq_len = 256; choose 768 or",
        ),
        ({"training.batch_tokens": 100}, "= 100 is not a multiple of data.seq_len = 256; choose 256"),
        (
            {"training.accumulation": 17},
            "training.accumulation = 17 micro-batches share 16 sequences per step; choose at most 16",
        ),
        ({"training.schedule": {"kind": "wsd", "warmup": 0.5, "decay": 0.6}}, "choose a decay of at most 0.5"),
        (
            {"training.parallel": "sharded", "optimizer.kind": "adamw_8bit"},
            "at other places; choose adamw",
        ),
        (
            {"training.memory_bytes": 10**9, "training.accumulation": 2},
            "= 2 has no effect beside training.memory_bytes",
        ),
        (
            {"training.parallel": "sharded", "training.regime": "append", "training.cache": True},
            "training.cache = true begins a forward pass inside the model, and shards are gathered where a whole one",
        ),
        (
            {"training.parallel": "sharded", "training.spectral_norm": True},
            "every worker has only a part of each; write false",
        ),
        (
            {"training.parallel": "sharded", "training.regime": "depth_time", "training.consistency": 0.1},
            "when the shards have been given back; choose 0, or",
        ),
        ({"training.compile": True, "training.parallel": "sharded"}, "a compiled pass cannot do that; choose"),
        (
            {"training.compile": True, "training.regime": "append", "training.cache": True},
            "training.cache = true begins a pass above the frozen prefix, and a compiled one begins at the tokens",
        ),
        (
            {"training.compile": True, "training.regime": "depth_time", "training.trunk": "qlora"},
            "training.trunk = qlora reads its matrices by operations of bitsandbytes",
        ),
        (
            {"training.compile": True, "training.regime": "depth_time", "training.consistency": 0.1},
            "training.consistency = 0.1 takes a stack's output out of the middle of the pass",
        ),
        ({"training.compile": True, "training.memory_bytes": 10**9}, "set training.accumulation, or training.compile"),
        ({"training.parallel": "sharded", "training.precision": "fp16"}, "would see different ones; c"),
        (
            {"training.tf32": True, "training.device": "cpu"},
            "training.tf32 = true is about the matrix products of a GPU, and training.device = cpu; write false",
        ),
    ],
)
def test_a_contradiction_names_both_values_and_what_to_choose(edits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_trial(edit(GPT2, edits))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "edits",
    [
        {"model.n_heads": 8},
        {"model.max_positions": 256},
        {"data.corpus": "markov", "data.markov": {}},
        {"training.accumulation": 16},
        {"flags": ["mixed_precision", "activation_checkpointing"]},
        {"training.schedule": {"kind": "cosine", "warmup": 0.9}},  # the decay of wsd would not fit in
        {"training.compile": True, "training.regime": "depth_time", "training.trunk": "lora"},
    ],
)
def test_what_fits_together_passes(edits: dict[str, Any]) -> None:
    check_trial(edit(GPT2, edits))


def test_an_encoder_with_learned_positions_has_the_same_limit() -> None:
    check_trial(edit(BERT, {"data.seq_len": 512}))
    with pytest.raises(ConfigError, match=r"data.seq_len = 1024 is beyond the 512 learned positions of bert"):
        check_trial(edit(BERT, {"data.seq_len": 1024}))


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"model.mixer": None}, "model.mixer: is required in the family bk"),
        (
            {"model.n_heads": 4},
            "= 4, but family bk does not take it (its mixer has heads of its own: m",
        ),
        (
            {"model.mixer": {"n_heads": 5}},
            "model.mixer.n_heads = 5 does not cut d_model = 64 into heads of",
        ),
    ],
)
def test_the_mixer_belongs_to_the_bk_family(edits: dict[str, Any], message: str) -> None:
    trial = edit(GPT2, BK)
    check_trial(trial)
    with pytest.raises(ConfigError) as caught:
        check_trial(edit(trial, edits))
    assert message in str(caught.value)


def test_families_whose_blocks_end_in_a_norm_say_so() -> None:
    from stackwise_ray.models.stack_view import stack_view
    from tests.small_models import MODELS

    for model in MODELS.values():
        built = build_model(model, vocab_size=20, seq_len=16, device="meta")
        assert FAMILIES.get(model.family).blocks_end_in_norm is (stack_view(built).residual_outputs is None)


def test_an_encoder_has_no_exact_likelihood_of_a_split() -> None:
    check_trial(edit(BERT, {"data.final_evaluation": "fixed"}))
    with pytest.raises(ConfigError, match=r"data\.final_evaluation = full scores every token .* write fixed"):
        check_trial(edit(BERT, {"data.final_evaluation": "full"}))
