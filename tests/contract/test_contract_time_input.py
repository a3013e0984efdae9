"""Time as input on every family: nothing changes at insertion, the time is the share of masks, and it comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from stackwise_ray.config.trial import Budget, ModelConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import build_model
from stackwise_ray.models.growth.sampling import rounds
from stackwise_ray.models.growth.time_input import TIME, make_timed
from stackwise_ray.training.growth_options import Noise
from stackwise_ray.training.objectives.masked_denoising import MaskedDenoising
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.scoring import load_model, score_run
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.step import TrainingStep
from tests.contract.test_contract_regimes import assembled, growing
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import run

pytestmark = pytest.mark.usefixtures("module_cache")
TOKENS = torch.randint(4, 50, (2, 16), generator=torch.Generator().manual_seed(0))
every_model = pytest.mark.parametrize("model", mostly_slow(MODELS))
every_regime = pytest.mark.parametrize("regime", ["append", "classical_random_ratio"])


def timed(model: ModelConfig, regime: str = "append", **training: Any) -> Any:
    return growing(model, regime, **{"time": "input"} | training)


def built(model: ModelConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return build_model(model, vocab_size=50, seq_len=16).eval()


@every_model
def test_a_model_that_begins_to_take_time_gives_what_it_gave_and_never_runs_without_it(model: ModelConfig) -> None:
    network = built(model)
    before = network(input_ids=TOKENS).logits
    make_timed(network)
    network.eval()
    assert torch.equal(network(input_ids=TOKENS, times=torch.tensor([0.2, 0.9])).logits, before)
    with pytest.raises(ValueError, match="this model takes time: pass input_ids"):
        network(input_ids=TOKENS)


@every_model
def test_the_embedding_of_time_learns_in_the_first_stage_and_then_is_frozen_with_the_prefix(
    model: ModelConfig,
) -> None:
    assembly = assembled(timed(model))
    moved = []
    for stage in assembly.plan.stages:
        step = TrainingStep(assembly, assembly.enter(stage), Alone())
        before = [p.detach().clone() for p in getattr(assembly.model, TIME).parameters()]
        for number in range(2):  # the last projection is 0, so the one before it gets its first gradient second
            step.take(step=number, first_sequence=8 * number, n_sequences=8, lr=1e-2)
        after = getattr(assembly.model, TIME).parameters()
        moved.append([not torch.equal(p, q) for p, q in zip(after, before, strict=True)])
    assert moved == [[True] * 4, [False] * 4, [False] * 4]
    assembly.model.eval()
    early, late = (assembly.model(input_ids=TOKENS, times=torch.full((2,), t)).logits for t in (0.1, 0.9))
    assert not torch.equal(early, late)


@every_regime
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_sequence_is_masked_at_the_time_that_the_model_is_told(name: str, regime: str) -> None:
    assembly = assembled(timed(MODELS[name], regime, noise=Noise(r_first=0.9, r_last=0.2)))
    objective = assembly.enter(assembly.plan.stages[-1]).objective
    batch = objective.training_batch(range(400))
    assert batch.times is not None
    assert (batch.times.min(), batch.times.max()) == pytest.approx((0.2, 0.9), abs=0.01)
    assert batch.times.mean() == pytest.approx(0.55, abs=5 * 0.7 / np.sqrt(12 * 400))
    masked = (batch.inputs == assembly.data.special_ids["mask"]).mean(axis=1)
    ordinary = 1 - np.isin(batch.inputs, [assembly.data.special_ids["eos"]]).mean(axis=1)
    errors = masked - batch.times * ordinary
    assert abs(errors.mean()) < 5 * 0.5 / np.sqrt(400 * 16)
    assert np.abs(errors).max() < 5 * 0.5 / np.sqrt(16)


def test_a_model_is_evaluated_at_the_time_of_the_masks_it_sees_and_on_clean_text_at_zero() -> None:
    encoder, decoder = assembled(timed(MODELS["bert"])), assembled(timed(MODELS["gpt2"]))
    denoising = MaskedDenoising(encoder.trial, encoder.plan.stages[-1], encoder.data, encoder.order)
    times = denoising.masked_at(encoder.validation_windows, 0.3).times
    assert times is not None
    assert (times == np.float32(0.3)).all()
    clean = decoder.enter(decoder.plan.stages[-1]).objective.validation_batch(decoder.validation_windows)
    assert clean.times is not None
    assert not clean.times.any()


@pytest.mark.parametrize("name", ["bert", "gpt2", pytest.param("bk encoder", marks=pytest.mark.slow)])
def test_a_timed_model_is_evaluated_after_loading_as_at_the_end_of_its_run(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    _, result = run(timed(model, budget=Budget(steps=9), lr=1e-2), tmp_path, keep_model=True)
    assert score_run(tmp_path).metrics["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-6)
    loaded = load_model(str(tmp_path / "model"), model.role).eval()
    early, late = (loaded(input_ids=TOKENS, times=torch.full((2,), t)).logits for t in (0.1, 0.9))
    assert not torch.equal(early, late)
    auto: Any = AutoModelForMaskedLM if model.role == "encoder" else AutoModelForCausalLM
    _, told = auto.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert {name for name in told["unexpected_keys"] if name.startswith(TIME)} == {
        f"{TIME}.{name}" for name in ("hidden.weight", "hidden.bias", "out.weight", "out.bias")
    }


def test_a_sampler_tells_the_share_that_is_masked_before_each_pass() -> None:
    network = built(MODELS["bert"])
    make_timed(network)
    told: list[list[float]] = []
    network.register_forward_pre_hook(lambda _, __, kwargs: told.append(kwargs["times"].tolist()), with_kwargs=True)
    tokens = TOKENS.clone()
    tokens[0, :8] = tokens[1, :12] = 3
    filled = rounds(network, tokens, mask_id=3, n_rounds=2)
    assert told == [[8 / 16, 12 / 16], [5 / 16, 8 / 16]]  # cos(π/4) of 8 and of 12, rounded down, are left
    assert not bool((filled.tokens == 3).any())


def test_every_stage_draws_from_the_whole_range_and_an_empty_one_is_refused() -> None:
    for regime in ("append", "classical_random_ratio"):
        for stage in stage_plan(timed(MODELS["bert"], regime)).stages:
            assert stage.noise == ((0.15, 0.95),)
    finish = stage_plan(timed(MODELS["bert"], finish=0.2)).stages[-1]
    assert (finish.name, finish.noise) == ("finish", ((0.15, 0.95),))
    with pytest.raises(ConfigError, match=r"training\.noise\.r_last = 0\.5 and r_first = 0\.5 do not form a range"):
        stage_plan(timed(MODELS["bert"], noise=Noise(r_first=0.5, r_last=0.5)))


def test_a_control_without_time_draws_as_before() -> None:
    told = replace(growing(MODELS["bert"], "classical_random_ratio"))
    assert stage_plan(told).stages[0].noise == ((0.95, 0.95), (0.55, 0.55), (0.15, 0.15))


@pytest.mark.parametrize("regime", ["classical", "append"])
def test_weights_that_take_time_are_refused_where_nothing_tells_it(regime: str, tmp_path: Path) -> None:
    run(timed(MODELS["bert"]), tmp_path, keep_model=True)
    start = replace(MODELS["bert"], pretrained=str(tmp_path / "model"), tie_embeddings=False)
    with pytest.raises(ConfigError, match=r"training\.time = depth, but the initial weights are of"):
        assembled(growing(start, regime))
    assembled(timed(start, regime="append"))
