"""Training that starts from saved weights, on every family: planned without reading them, begun with all of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import PreparedData, prepare
from stackwise_ray.models import build_model
from stackwise_ray.models.growth.insertion import GATE
from stackwise_ray.planning.preparation import DataFacts
from stackwise_ray.planning.sweep_plan import Cell, plan_cells
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.initial import check_tokenizer
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
    shutil.copytree(data.directory / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def test_weights_of_another_tokenizer_are_refused_in_the_plan_and_before_training(tmp_path: Path) -> None:
    data = prepare(TRIAL.data)
    folder = saved(MODELS["gpt2"], tmp_path / "weights", data)
    trial = pretrained(MODELS["gpt2"], folder)
    check_tokenizer(trial, data.directory / "tokenizer")
    content = json.loads((folder / "tokenizer.json").read_text())
    first, second = list(content["model"]["vocab"])[:2]
    vocabulary = content["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    message = r"model\.pretrained = .* has another tokenizer than data\.tokenizer = bytes .*: data\.tokenizer=/"
    with pytest.raises(ConfigError, match=message):
        assemble(trial, data, CPU)
    cell = Cell(arm="one", role="replicate", trial=trial, trials=1, data=DataFacts.of(data))
    (row,) = plan_cells("a sweep", [cell], slots=1, threads=1).rows
    assert re.search(message, str(row.refused))


def test_weights_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    data = prepare(TRIAL.data)
    folder = saved(MODELS["gpt2"], tmp_path / "weights", data)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ConfigError, match=r"model\.pretrained = .* has no tokenizer\.json beside its weights"):
        assemble(pretrained(MODELS["gpt2"], folder), data, CPU)


def test_a_tokenizer_larger_than_the_embeddings_is_one_message(tmp_path: Path) -> None:
    data = prepare(TRIAL.data)
    folder = saved(MODELS["gpt2"], tmp_path / "weights", data)
    message = r"weights has 260 token embeddings, but the tokenizer has 263 entries: .*resize_token_embed"
    for rows in (None, 263, 320):
        model = replace(MODELS["gpt2"], pretrained=str(folder), vocab_size=rows)
        with pytest.raises(ConfigError, match=message):
            build_model(model, vocab_size=263, seq_len=16)


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
