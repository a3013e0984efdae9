"""What every component does in a run, asked of every registered one beside `contracts.components_contract`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.config.trial.component_rules import component_problems
from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import REGIMES
from stackwise_ray.data import prepare
from stackwise_ray.models.component import COMPONENTS, Attached, Component, attached
from stackwise_ray.models.saved import load_saved
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.training.stages import stage_plan
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import TRIAL, run, step_losses, with_data, with_model, with_training

pytestmark = pytest.mark.usefixtures("module_cache")

TIMES = ("time/", "throughput/", "memory/process")


def _with(name: str, **training: Any) -> TrialConfig:
    """Ten steps of three blocks with a component."""
    trial = with_model(TRIAL, n_layers=3, components=NamedOptions({name: COMPONENTS.get(name).options()}))
    return with_training(trial, **{"budget": Budget(steps=10)} | training)


def _plan(trial: TrialConfig) -> Any:
    data = prepare(trial.data)
    tokens = {split: stream.n_tokens for split, stream in data.splits.items()}
    return plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids, split_tokens=tokens)


def _exact(metrics: Any) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(TIMES)}


@pytest.fixture(scope="module", params=COMPONENTS.names())
def finished(request: Any, tmp_path_factory: Any) -> tuple[str, Any, Path]:
    """(component, result, folder) of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("component")
    _, result = run(_with(request.param), folder, keep_model=True)
    return request.param, result, folder


@pytest.mark.parametrize("name", COMPONENTS.names())
def test_what_a_component_does_not_go_with_is_refused_with_both_names(name):
    for conflict in COMPONENTS.get(name).conflicts:
        _, field = conflict.path.split(".")
        trial = with_training(_with(name), **{field: conflict.values[0]})
        path, problem, component = next(component_problems(trial))
        assert (path, component) == (conflict.path, name)
        assert f"model.components.{name}" in problem
        with pytest.raises(ConfigError):
            check_trial(trial)


@pytest.mark.parametrize("regime", REGIMES.names())
@pytest.mark.parametrize("name", COMPONENTS.names())
def test_a_component_that_needs_one_stage_is_refused_with_several_and_both_are_named(name, regime):
    changes = {"regime": regime, **REGIMES.get(regime).example}
    n_stages = len(stage_plan(with_training(with_model(TRIAL, n_layers=3), **changes)).stages)
    if COMPONENTS.get(name).one_stage is None or n_stages == 1:
        stage_plan(_with(name, **changes))
        return
    with pytest.raises(ConfigError, match=f"{regime}.*model.components.{name}"):
        stage_plan(_with(name, **changes))


def test_a_saved_model_has_its_component_again_in_our_loader_and_loads_plainly_in_transformers(finished):
    from transformers import AutoModelForCausalLM

    name, result, folder = finished
    model = load_saved(folder / "model", "decoder", path="--model").eval()
    record = json.loads((folder / "model" / "config.json").read_text())["stackwise_components"]
    state = record[name]["state"]
    assert attached(model)[name].state() == state
    paths = {metric.path for metric in COMPONENTS.get(name).metrics}
    for key in (key for key in state if f"{name}/{key}" in paths):  # an entry that a metric is called after
        assert state[key] == result.metrics.get(f"{name}/{key}"), key
    stored = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(parameter, stored[own]) for own, parameter in model.named_parameters())
    plain = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    tokens = torch.arange(16)[None] % 40
    with torch.no_grad():
        assert torch.equal(plain(input_ids=tokens).logits, model(input_ids=tokens).logits)


@pytest.mark.parametrize("name", COMPONENTS.names())
@pytest.mark.parametrize("model", mostly_slow(MODELS, quick=("bert",)))
def test_every_family_trains_with_a_component_at_the_planned_cost(name, model, tmp_path):
    trial = dataclasses.replace(_with(name, budget=Budget(steps=4), evaluations=1), model=model)
    trial = with_model(trial, n_layers=3, components=NamedOptions({name: COMPONENTS.get(name).options()}))
    plan = _plan(trial)
    _, result = run(trial, tmp_path)
    assert plan.flops_least <= result.metrics["flops/total"] <= plan.flops_total
    assert result.metrics["flops/evaluation"] <= plan.flops_evaluation
    assert result.metrics["memory/peak_bytes"] <= plan.live_peak_bytes
    (stage,) = json.loads((tmp_path / "outputs" / "metrics.json").read_text())["stages"]
    assert stage["flops_counted"] == pytest.approx(stage["flops_modelled"], rel=0.01)
    assert "WARNING" not in (tmp_path / "logs" / "train.log").read_text()


@pytest.mark.parametrize("name", COMPONENTS.names())
def test_a_budget_of_flops_is_spent_within_one_per_cent(name, tmp_path):
    steps = _plan(_with(name))
    budget = 2.0 * steps.flops_total
    trial = _with(name, budget=Budget(flops=budget))
    plan = _plan(trial)
    _, result = run(trial, tmp_path)
    assert math.isclose(result.metrics["flops/total"], budget, rel_tol=0.01)
    assert plan.flops_least <= result.metrics["flops/total"] <= plan.flops_total
    assert plan.steps <= result.metrics["steps/total"] <= plan.steps_most
    assert result.metrics["progress"] == 1


class _Nothing(Component):
    """A component whose every hook is the protocol's own."""

    name = "nothing"
    observable = ""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class options:  # noqa: N801 (an attribute of the protocol)
        pass

    def attach(self, model: Any, options: Any, *, seed: int) -> Attached:
        return Attached()


def test_the_protocol_by_itself_changes_no_number(tmp_path):
    plain_records, plain = run(TRIAL, tmp_path / "plain")
    with COMPONENTS.registered("nothing", _Nothing()):
        records, result = run(
            with_model(TRIAL, components=NamedOptions({"nothing": _Nothing.options()})), tmp_path / "on"
        )
    assert step_losses(records) == step_losses(plain_records)
    assert _exact(result.metrics) == _exact(plain.metrics)


def test_a_component_is_told_the_number_of_every_step_and_the_used_share_of_the_budget(tmp_path):
    told: list[tuple[int, float]] = []

    class _Listening(Attached):
        def begin_step(self, *, step: int, share: float) -> str:
            told.append((step, share))
            return ""

    class _Told(_Nothing):
        name = "told"

        def attach(self, model: Any, options: Any, *, seed: int) -> Attached:
            return _Listening()

    with COMPONENTS.registered("told", _Told()):
        run(with_model(TRIAL, components=NamedOptions({"told": _Told.options()})), tmp_path)
    assert told == [(step, pytest.approx(step / 6)) for step in range(6)]


@pytest.mark.parametrize("name", COMPONENTS.names())
def test_a_validation_split_without_windows_to_calibrate_on_is_refused_before_anything_trains(name):
    component, trial = COMPONENTS.get(name), with_data(_with(name), validation_tokens=100_000)
    if not component.held_out_tokens(component.options()):
        _plan(trial)
        return
    with pytest.raises(ConfigError, match=f"100000 uses all windows .* model.components.{name} needs"):
        _plan(trial)


def test_the_report_of_a_trial_shows_what_its_component_measured(finished):
    name, result, folder = finished
    report = (folder / "outputs" / "evaluation_report.md").read_text()
    assert f"## {name}" in report
    for line in COMPONENTS.get(name).report(result.metrics):
        assert line in report
