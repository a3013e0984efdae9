"""Decoders that fill in masks from both sides: what they see, what they are asked, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stackwise_ray.config.trial import TRAINING, Budget, TrialConfig
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.models import FAMILIES
from stackwise_ray.models.growth.insertion import set_two_sided
from stackwise_ray.models.growth.sampling import sweep
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.noise import levels
from stackwise_ray.training.scoring import load_model, score_model, score_run
from tests.small_models import MODELS
from tests.small_trials import TRIAL, run, with_data, with_training

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("module_cache")
TWO_SIDED = tuple(name for name, family in FAMILIES.items() if family.can_be_two_sided)
WITH_OBJECTIVE = TRAINING.entries_with("decoder_objective")


def two_sided(name: str, **training: Any) -> TrialConfig:
    trial = with_data(replace(TRIAL, model=MODELS[name]), final_evaluation=None)
    changes = {"regime": "depth_time", "decoder_objective": "bidirectional", "budget": Budget(steps=6)}
    return with_training(trial, **changes | training)


@torch.no_grad()
def sees_its_future(model: Any) -> bool:
    tokens = torch.arange(10).view(1, 10) % 4
    other = tokens.clone()
    other[0, -1] += 1
    model.eval()
    return not torch.allclose(model(input_ids=tokens).logits[0, 0], model(input_ids=other).logits[0, 0], rtol=1e-4)


@pytest.mark.parametrize("name", TWO_SIDED)
def test_a_bidirectional_decoder_sees_both_sides_and_any_other_its_past(name: str) -> None:
    for trial, both in ((two_sided(name), True), (two_sided(name, decoder_objective="noisy_context"), False)):
        assembly = assemble(trial, prepare(trial.data), CPU)
        assembly.enter(assembly.plan.stages[0])
        assert sees_its_future(assembly.model) is both
        set_two_sided(assembly.model, not both)  # as with weights that were trained the other way
        assert sees_its_future(assembly.model) is not both


TRAINED = [
    pytest.param(name, regime, marks=() if name == "gpt2" or regime == "append" else pytest.mark.exhaustive)
    for name in TWO_SIDED
    for regime in WITH_OBJECTIVE
]
"""One family in every regime, and every family in one."""


@pytest.mark.parametrize(("name", "regime"), TRAINED)
def test_it_is_evaluated_on_masks_and_saved_as_it_is(name: str, regime: str, tmp_path: Path) -> None:
    _, result = run(two_sided(name, regime=regime), tmp_path, keep_model=True)
    scored = score_run(tmp_path).metrics
    masked = {metric for metric in result.metrics if metric.startswith("validation/masked_loss")}
    assert len(masked) == 6
    for metric in (*masked, "validation/loss"):
        assert scored[metric] == pytest.approx(result.metrics[metric], rel=1e-6)
    assert not [metric for metric in (*scored, *result.metrics) if "perplexity" in metric or metric.startswith("test/")]
    assert sees_its_future(load_model(str(tmp_path / "model"), "decoder"))
    with pytest.raises(ConfigError, match=r"is a decoder that sees both sides .* so it has no next-token loss"):
        score_model(str(tmp_path / "model"), ["data=python_stdlib"])
    one_sided = two_sided(name, decoder_objective="noisy_context")
    one_sided = replace(one_sided, model=replace(one_sided.model, pretrained=str(tmp_path / "model")))
    with pytest.raises(ConfigError, match=r"model.pretrained: names weights of a decoder that sees both sides"):
        assemble(one_sided, prepare(one_sided.data), CPU)


def test_its_inputs_differ_from_the_targets_at_the_masked_positions_alone() -> None:
    trial = two_sided("gpt2")
    assembly = assemble(trial, prepare(trial.data), CPU)
    batch = assembly.enter(assembly.plan.stages[0]).objective.training_batch(range(32))
    asked = batch.targets != -100
    assert (batch.inputs[asked] == assembly.data.special_ids["mask"]).all()
    assert asked.mean() == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("name", TWO_SIDED)
def test_it_fills_in_masks(name: str) -> None:
    trial = two_sided(name, entry="nearest_r")
    check_trial(trial)
    assembly = assemble(trial, prepare(trial.data), CPU)
    for stage in assembly.plan.stages:
        assembly.enter(stage)
    mask_id = assembly.data.special_ids["mask"]
    filled = sweep(
        assembly.model.eval(), torch.full((2, 8), mask_id), mask_id=mask_id, levels=levels(trial.training.noise, 2)
    )
    assert not (filled.tokens == mask_id).any()
    assert filled.block_passes == 3


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (two_sided("bert"), r"= bidirectional has no effect: an encoder fills in masks"),
        (
            two_sided("bk apply"),
            r"= bidirectional would make an encoder of the family bk; write model\.role: encoder",
        ),
        (
            with_data(two_sided("gpt2"), final_evaluation="full"),
            r"final_evaluation = full .* this one sees both sides",
        ),
    ],
    ids=["an encoder", "bk", "whole splits"],
)
def test_what_has_no_meaning_is_refused(trial: TrialConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trial(trial)
