"""Gains and caps of residual branches: what they do to the function, the weights, and the model that is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.models import build_model
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.training.scoring import score_run
from stackwise_ray.training.stabilisers import (
    cap_spectral_norms,
    fold_gains,
    residual_projections,
    scale_residuals,
    spectral_norm,
)
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import TRIAL, run, with_training

pytestmark = pytest.mark.usefixtures("module_cache")
PRE_NORM = {name: model for name, model in MODELS.items() if name != "bert"}
every_model = pytest.mark.parametrize("model", mostly_slow(PRE_NORM, quick=("gpt2", "modernbert")))
IDS = torch.arange(12).view(1, 12)


def growing(model: ModelConfig, **training: Any) -> TrialConfig:
    trial = replace(TRIAL, model=replace(model, n_layers=2))
    return with_training(trial, **{"regime": "depth_time", "budget": Budget(steps=8), "lr": 0.03} | training)


@every_model
def test_a_gain_scales_every_branch_and_folding_changes_no_logit(model: ModelConfig) -> None:
    built = build_model(replace(model, n_layers=1), vocab_size=20, seq_len=16).eval()
    with torch.no_grad():
        for module in residual_projections(built):
            for parameter in module.parameters():
                parameter.normal_()
        before = built(input_ids=IDS).logits
        scale_residuals(built, 0.5)
        scaled = built(input_ids=IDS).logits
        fold_gains(built)
        folded = built(input_ids=IDS).logits
        fold_gains(built)  # a second time changes nothing
    assert not torch.allclose(scaled, before, rtol=1e-2)
    torch.testing.assert_close(folded, scaled)
    assert torch.equal(built(input_ids=IDS).logits, folded)
    view = stack_view(built)
    assert view.residual_outputs is not None
    assert len(list(residual_projections(built))) == len(view.residual_outputs(view.blocks[0]))


TRAINED = [
    pytest.param(
        model,
        id=name,
        marks={"bk encoder": [pytest.mark.slow], "gpt2": [], "modernbert": []}.get(name, [pytest.mark.exhaustive]),
    )
    for name, model in PRE_NORM.items()
]


@pytest.mark.parametrize("model", TRAINED)
def test_the_model_that_is_saved_is_the_one_that_was_evaluated(model: ModelConfig, tmp_path: Path) -> None:
    _, result = run(growing(model, residual_gain=0.3, spectral_norm=True), tmp_path, keep_model=True)
    scored = score_run(tmp_path).metrics
    assert scored["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-5)


def norms(folder: Path) -> list[float]:
    weights = load_file(folder / "model" / "model.safetensors")
    return [float(torch.linalg.matrix_norm(w, 2)) for name, w in weights.items() if name.endswith("c_proj.weight")]


def test_a_cap_keeps_the_norms_of_what_trains_at_one(tmp_path: Path) -> None:
    free = growing(MODELS["gpt2"], lr=0.1, budget=Budget(steps=24))
    run(free, tmp_path / "free", keep_model=True)
    run(with_training(free, spectral_norm=True), tmp_path / "capped", keep_model=True)
    assert max(norms(tmp_path / "free")) > 1.3
    assert 0.9 < max(norms(tmp_path / "capped")) <= 1.01
    run(with_training(free, spectral_norm=True, residual_gain=0.5), tmp_path / "both", keep_model=True)
    assert 0.45 < max(norms(tmp_path / "both")) <= 0.505


def test_a_zero_matrix_stays_and_a_small_one_is_left_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    zero, small = torch.zeros(6, 4), 0.1 * torch.eye(4)
    large = torch.randn(48, 16, generator=generator)
    exact = float(torch.linalg.matrix_norm(large, 2))
    assert 0.95 * exact < float(spectral_norm(large)) <= exact * (1 + 1e-5)
    cap_spectral_norms([zero, small, large])
    assert not zero.any()
    assert torch.equal(small, 0.1 * torch.eye(4))
    assert float(torch.linalg.matrix_norm(large, 2)) == pytest.approx(1, abs=0.05)
