"""Training that starts from saved weights, on every family: planned without reading them, begun with all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.data import PreparedData, prepare
from stackwise_ray.models import build_model
from stackwise_ray.models.growth.insertion import GATE
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.scoring import load_model
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import TRIAL, run, step_losses, with_training

pytestmark = pytest.mark.usefixtures("module_cache")
CPU = torch.device("cpu")
every_model = pytest.mark.parametrize("model", mostly_slow(MODELS, quick=("bert", "gpt2", "bk apply")))


def pretrained(model: ModelConfig, folder: Path) -> TrialConfig:
    return with_training(replace(TRIAL, model=replace(model, pretrained=str(folder))), budget=Budget(steps=3))


def saved(model: ModelConfig, folder: Path, data: PreparedData) -> Path:
    torch.manual_seed(5)
    built = build_model(model, vocab_size=data.vocab_size, seq_len=16, special_ids=data.special_ids)
    built.save_pretrained(folder)
    return folder


@every_model
def test_a_trial_begins_with_the_saved_weights_and_costs_what_was_planned(model: ModelConfig, tmp_path: Path) -> None:
    data = prepare(TRIAL.data)
    trial = pretrained(model, saved(model, tmp_path / "weights", data))
    plan = plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)
    records, result = run(trial, tmp_path / "run")
    metrics = result.metrics
    assert (plan.flops_total, plan.steps, plan.params) == tuple(
        metrics[name] for name in ("flops/total", "steps/total", "model/params")
    )
    assert metrics["memory/peak_bytes"] == pytest.approx(plan.live_peak_bytes, rel=0.05)
    assert metrics["memory/saved_activation_bytes"] == pytest.approx(plan.saved_activation_bytes, rel=0.02)

    assembly = assemble(trial, data, CPU)
    batch = assembly.enter(assembly.plan.stages[0]).objective.training_batch(range(8))
    loaded = load_model(trial.model.pretrained or "", model.role).eval()
    with torch.no_grad():
        logits = loaded(input_ids=torch.from_numpy(batch.inputs)).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
    assert step_losses(records)[1] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
def test_a_model_that_grew_goes_on_with_its_gates_and_its_own_head(name: str, tmp_path: Path) -> None:
    growing = with_training(replace(TRIAL, model=MODELS[name]), regime="depth_time", lr=1e-2)
    run(growing, tmp_path / "grown", keep_model=True)
    folder = tmp_path / "grown" / "model"
    data = prepare(TRIAL.data)
    trial = pretrained(MODELS[name], folder)
    plan = plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)
    assembly = assemble(trial, data, CPU)
    parameters = dict(assembly.model.named_parameters())
    stored = load_file(folder / "model.safetensors")
    assert parameters.keys() == stored.keys()
    assert all(torch.equal(parameters[key], tensor) for key, tensor in stored.items())
    gates = [float(value) for key, value in stored.items() if key.endswith(GATE)]
    assert len(gates) == (2 if name == "bert" else 0)
    assert all(gate not in (0.0, 1.0) for gate in gates[:1])
    _, result = run(trial, tmp_path / "run", keep_model=True)
    assert plan.params == result.metrics["model/params"]
    assert plan.flops_total == result.metrics["flops/total"]
    again = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert again.keys() == stored.keys()
    assert any(not torch.equal(again[key], stored[key]) for key in stored)
