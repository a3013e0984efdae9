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
        ({"model.n_heads": None}, "model.n_heads: is absent: the family gpt2 needs a number of attention heads"),
        (
            {"model.n_kv_heads": 3},
            "model.n_kv_heads = 3, but the family gpt2 has no such option; leave it out, or choose the family llama",
        ),
        (
            {"model.family": "llama", "model.n_kv_heads": 3},
            "model.n_kv_heads = 3 does not divide n_heads = 4; choose 1, 2 or 4",
        ),
        (
            {"model.family": "llama", "model.max_positions": 8},
            "= 8, but the family llama has no such option; leave it out, or choose the family bert or",
        ),
        ({"model.family": "gtp2"}, "model.family = gtp2 is an unknown model family; did you mean 'gpt2'?"),
        ({"model.role": "encoder"}, "model.role = encoder, but the family gpt2 can only be decoder; write decoder"),
        (
            {"model.mixer": {"kind": "none"}},
            "model.mixer = none, but the family gpt2 has no such option; leave it out, or choose the family bk",
        ),
        (
            {"model.max_positions": 128},
            "data.seq_len = 256 is more than the 128 learned positions of gpt2 (model.max_positions); choose",
        ),
        ({"data.corpus": "makrov"}, "data.corpus = makrov is an unknown corpus; did you mean 'markov'?"),
        ({"data.corpus": "markov"}, "data.markov: is required with corpus: markov"),
        (
            {"data.markov": {"order": 1}},
            "data.markov: has no effect in the corpus python_stdlib; choose the corpus m",
        ),
        ({"data.corpus": "associative_recall"}, "data.associative_recall: is required with corpus: associative_recall"),
        (
            {"data.associative_recall": {}},
            "data.associative_recall: has no effect in the corpus python_stdlib; choose the corpus associative_recall",
        ),
        (
            {"data.path": "x"},
            "data.path = x has no effect in the corpus python_stdlib; choose the corpus hub, ptb",
        ),
        ({"data.corpus": "hub"}, "data.path: is required with corpus: hub, but it is absent; give the dataset's name"),
        (
            {"data.corpus": "markov", "data.markov": {"n_symbols": 95}},
            "data.markov.n_symbols = 95: the symbols are printable characters; choose 2",
        ),
        (
            {"data.corpus": "markov", "data.markov": {}, "data.tokenizer": "words"},
            "data.tokenizer = words: the exact floor of the corpus markov is per symbol, so each symbol "
            "must be one token",
        ),
        ({"data.corpus": "text_files"}, "data.path: is required with corpus: text_files"),
        ({"optimizer.kind": "adamv"}, "optimizer.kind = adamv is an unknown optimizer; did you mean 'adamw'?"),
        ({"training.regime": "clasical"}, "training.regime = clasical is an unknown regime; did you mean 'classical'?"),
        ({"flags": ["mixed_precison"]}, "flags = mixed_precison is an unknown flag; did you mean 'mixed_precision'?"),
        ({"flags": ["mixed_precision"] * 2}, "contains 'mixed_precision' twice"),
        (
            {"training.batch_tokens": 1000},
            "training.batch_tokens = 1000 is not a multiple of data.seq_len = 256; choose 768 or",
        ),
        ({"training.batch_tokens": 100}, "= 100 is not a multiple of data.seq_len = 256; choose 256"),
        (
            {"training.accumulation": 17},
            "training.accumulation = 17 micro-batches, but a step has only 16 sequences; choose at most 16",
        ),
        ({"training.schedule": {"kind": "wsd", "warmup": 0.5, "decay": 0.6}}, "choose a decay of at most 0.5"),
        (
            {"training.parallel": "sharded", "optimizer.kind": "adamw_8bit"},
            "blocks of 256 entries; choose adamw",
        ),
        (
            {"training.memory_bytes": 10**9, "training.accumulation": 2},
            "= 2 has no effect: training.memory_bytes chooses",
        ),
        (
            {"training.parallel": "sharded", "training.regime": "append", "training.cache": True},
            "training.cache = true does not go with training.parallel: sharded",
        ),
        (
            {"training.parallel": "sharded", "training.spectral_norm": True},
            "a worker has only a part; write false",
        ),
        (
            {"training.parallel": "sharded", "training.regime": "depth_time", "training.consistency": 0.1},
            "after their shards are freed; choose 0, or",
        ),
        (
            {"training.compile": True, "training.parallel": "sharded"},
            "a compiled pass cannot gather and free weights; choose",
        ),
        (
            {"training.compile": True, "training.regime": "append", "training.cache": True},
            "training.cache = true does not go with training.compile: true",
        ),
        (
            {"training.compile": True, "training.regime": "depth_time", "training.trunk": "qlora"},
            "training.trunk = qlora does not go with training.compile: true",
        ),
        (
            {"training.compile": True, "training.regime": "depth_time", "training.consistency": 0.1},
            "training.consistency = 0.1 does not go with training.compile: true",
        ),
        ({"training.compile": True, "training.memory_bytes": 10**9}, "set training.accumulation, or training.compile"),
        ({"training.parallel": "sharded", "training.precision": "fp16"}, "its own overflows; c"),
        (
            {"training.tf32": True, "training.device": "cpu"},
            "training.tf32 = true has no effect with training.device: cpu, because TF32 is a format of "
            "GPUs; write false",
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
    with pytest.raises(ConfigError, match=r"data.seq_len = 1024 is more than the 512 learned positions of bert"):
        check_trial(edit(BERT, {"data.seq_len": 1024}))


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"model.mixer": None}, "model.mixer: is required in the family bk"),
        (
            {"model.n_heads": 4},
            "= 4, but the family bk has no such option; leave it out, and set the heads of its mixer by m",
        ),
        (
            {"model.mixer": {"n_heads": 5}},
            "model.mixer.n_heads = 5 does not divide d_model = 64 into heads of",
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
    with pytest.raises(ConfigError, match=r"data\.final_evaluation = full needs a model that reads .* write fixed"):
        check_trial(edit(BERT, {"data.final_evaluation": "full"}))
