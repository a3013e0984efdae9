"""Going on from a checkpoint, on every family: what it costs, where it starts, what is refused before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import Cell, plan_cells
from stackwise_ray.planning.trial_plan import TrialPlan, plan_trial, split_by_cost
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.assembly import Assembly, StageTools, assemble
from stackwise_ray.training.budget import StageFlops
from stackwise_ray.training.initial import check_tokenizer, identify
from stackwise_ray.training.scoring import score_run
from stackwise_ray.training.stage import Stage
from stackwise_ray.training.stages import stage_plan
from tests.small_models import MODELS, cells, mostly_slow
from tests.small_trials import TRIAL, run, with_training

pytestmark = pytest.mark.usefixtures("module_cache")
CPU = torch.device("cpu")
every_model = pytest.mark.parametrize("name", mostly_slow({name: name for name in MODELS}))
QUICK_KINDS, SLOW_KINDS = (("gpt2", "finetune"), ("bert", "band")), (("gpt2", "band"), ("bert", "finetune"))
"""Families and kinds of hybrids: each kind once is quick."""

Checkpoints = Callable[[str], Path]


@pytest.fixture(scope="module")
def checkpoint(module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """From the name of a model to the folder of a classical run of it, of four steps."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("checkpoint") / "run"
            trial = with_training(replace(TRIAL, model=three(MODELS[name])), budget=Budget(steps=4), lr=1e-2)
            run(trial, made[name], keep_model=True)
        return made[name]

    return find


def three(model: ModelConfig) -> ModelConfig:
    return replace(model, n_layers=3)


def hybrid(name: str, folder: Path, **training: Any) -> TrialConfig:
    trial = replace(TRIAL, model=three(MODELS[name]))
    settings = {"regime": "hybrid", "init_from": str(folder), "budget": Budget(steps=10), "evaluations": 1}
    return with_training(trial, **settings | training)


def plan_of(trial: TrialConfig) -> TrialPlan:
    data = prepare(trial.data)
    return plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "outputs" / "metrics.json").read_text())["stages"]
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    cells(MODELS, ("finetune", "band"), quick=QUICK_KINDS, kinds=("gpt2", "bert")),
)
def test_a_checkpoint_goes_on_for_what_it_left_of_the_budget_as_planned(
    name: str, kind: str, checkpoint: Checkpoints, tmp_path: Path
) -> None:
    trial = hybrid(name, checkpoint(name), hybrid=kind)
    plan = plan_of(trial)
    _, result = run(trial, tmp_path, keep_model=True)
    metrics = result.metrics
    assert metrics["steps/total"] == plan.steps == 10 - 4
    assert metrics["flops/total"] == plan.flops_total
    assert metrics["model/params"] == plan.params
    assert metrics["memory/peak_bytes"] == pytest.approx(plan.live_peak_bytes, rel=0.05)
    before = json.loads((checkpoint(name) / "outputs" / "metrics.json").read_text())
    assert (metrics["init/charged"], metrics["init/steps"]) == (1.0, 4.0)
    assert metrics["init/flops"] == before["flops/total"]
    for row in rows(tmp_path):
        assert row["flops_counted"] == pytest.approx(row["flops_modelled"], rel=0.03)
    assert score_run(tmp_path).metrics["validation/loss"] == pytest.approx(metrics["validation/loss"], rel=1e-6)


def pretrained_within(name: str, kind: str, **training: Any) -> TrialConfig:
    """Four of ten steps train the checkpoint of the fixture, on the same seed; the rest goes on from it."""
    own: dict[str, Any] = {"init_from": None, "pretraining_share": 0.4, "hybrid": kind, "lr": 1e-2}
    return hybrid(name, Path("unread"), **own | training)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gpt2", "finetune"), ("bert", "band")]
    + [pytest.param(name, "band", marks=pytest.mark.slow) for name in ("llama", "modernbert", "bk encoder")],
)
def test_a_hybrid_trains_its_own_checkpoint_out_of_the_one_budget_and_goes_on_from_it(
    name: str, kind: str, checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[dict[str, torch.Tensor]] = []
    enter = Assembly.enter

    def watched(self: Assembly, stage: Stage) -> StageTools:
        entered.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return enter(self, stage)

    trial = pretrained_within(name, kind)
    plan = plan_of(trial)
    stored = load_file(checkpoint(name) / "model" / "model.safetensors")
    monkeypatch.setattr(Assembly, "enter", watched)  # looks on; the method itself runs
    _, result = run(trial, tmp_path, keep_model=True)
    assert result.metrics["steps/total"] == plan.steps == 10
    assert result.metrics["flops/total"] == plan.flops_total
    assert result.metrics["memory/peak_bytes"] == pytest.approx(plan.live_peak_bytes, rel=0.05)
    assert "init/charged" not in result.metrics
    before = json.loads((checkpoint(name) / "outputs" / "metrics.json").read_text())
    assert rows(tmp_path)[0]["tokens"] == before["tokens/total"]
    assert entered[1].keys() == stored.keys()
    assert all(torch.equal(entered[1][name], stored[name]) for name in stored)
    assert len(rows(tmp_path)) == {"finetune": 2, "band": 4}[kind]
    for row in rows(tmp_path):
        assert row["flops_counted"] == pytest.approx(row["flops_modelled"], rel=0.03)
    assert score_run(tmp_path).metrics["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("bert", "band"), ("gpt2", "finetune")])
def test_a_hybrid_stopped_round_the_end_of_its_pretraining_continues_to_the_bit(
    name: str, kind: str, tmp_path: Path
) -> None:
    trial = pretrained_within(name, kind, checkpoint_seconds=0.0)
    run(trial, tmp_path / "whole", keep_model=True)
    for attempt, last in enumerate((3, 4, 5), start=1):
        generator = run_trial(trial, tmp_path / "pieces", trial_id="t", attempt=attempt)
        while next(generator).step < last:
            pass
        generator.close()
    run(trial, tmp_path / "pieces", attempt=4, keep_model=True)
    assert (tmp_path / "pieces" / "logs" / "train.log").read_text().count("continues after step") == 3
    weights = [(tmp_path / folder / "model" / "model.safetensors").read_bytes() for folder in ("whole", "pieces")]
    assert weights[0] == weights[1]


def test_the_share_of_pretraining_comes_before_all_others_and_equal_tokens_are_of_the_rest() -> None:
    trial = pretrained_within("bert", "band", finish=0.5, budget=Budget(flops=1e9))
    stages = stage_plan(trial).stages
    assert [stage.name for stage in stages] == ["classical", *(f"stack {k} of 3" for k in (3, 2, 1)), "finish"]
    assert [stage.share for stage in stages] == pytest.approx([0.4, 0.1, 0.1, 0.1, 0.3])
    assert (stages[0].noise, stages[0].objective) == (((0.15, 0.15),), "masked_lm")
    split = split_by_cost(trial := with_training(trial, stage_split="flop_proportional"), stage_plan(trial), costs(3))
    shares = [stage.share for stage in split.stages]
    assert (shares[0], sum(shares[1:4]), shares[4]) == pytest.approx((0.4, 0.3, 0.3))
    assert shares[2] / shares[1] == pytest.approx(2, rel=1e-3)


def costs(n_stacks: int) -> list[StageFlops]:
    """As dear as the stage's number, with a pretraining and a finish that are dearer than all."""
    return [
        StageFlops(forward_per_sequence=n, backward_per_sequence=0, evaluation_per_sequence=n, optimizer_per_step=0)
        for n in (100, *range(1, n_stacks + 1), 100)
    ]


@every_model
def test_the_band_begins_every_stage_with_the_weights_of_the_checkpoint(name: str, checkpoint: Checkpoints) -> None:
    trial = hybrid(name, checkpoint(name), hybrid="band")
    assembly = assemble(trial, prepare(trial.data), CPU)
    stored = load_file(checkpoint(name) / "model" / "model.safetensors")
    names = {id(p): n for n, p in assembly.model.named_parameters()}
    assert set(names.values()) == stored.keys()
    seen = []
    for stage in assembly.plan.stages:
        assembly.enter(stage)
        seen.append(stage.active_blocks)
        blocks = stack_view(assembly.model).blocks
        for number in stage.trainable.blocks:
            assert all(torch.equal(p, stored[names[id(p)]]) for p in blocks[number].parameters())
            assert all(p.requires_grad for p in blocks[number].parameters())
    assert seen == [(2,), (1, 2), (0, 1, 2)]


def test_the_band_draws_round_the_share_of_the_stack_and_finetuning_from_all_of_them() -> None:
    trial = hybrid("bert", Path("unread"), hybrid="band")
    bands = [stage.noise[0] for stage in stage_plan(trial).stages if stage.noise]
    assert np.array(bands) == pytest.approx(np.array([(0.15, 0.35), (0.35, 0.75), (0.75, 0.95)]))
    (stage,) = stage_plan(with_training(trial, hybrid="finetune")).stages
    assert (stage.noise, stage.widening, stage.trainable.blocks) == (((0.15, 0.95),), True, (0, 1, 2))


def test_finetuning_begins_on_the_lightest_masks_and_reaches_the_heaviest(
    checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackwise_ray.training.objectives.masked_denoising import MaskedDenoising

    drawn: list[tuple[float, float]] = []
    corrupt = MaskedDenoising.corrupt

    def watched(self: Any, windows: Any, **draws: Any) -> Any:
        if draws["epoch"]:
            drawn.append((float(np.min(draws["ratios"])), float(np.max(draws["ratios"]))))
        return corrupt(self, windows, **draws)

    monkeypatch.setattr(MaskedDenoising, "corrupt", watched)  # looks on; the method itself runs
    trial = hybrid("bert", checkpoint("bert"), budget=Budget(steps=24), batch_tokens=1024)
    run(trial, tmp_path)
    tops = [high for _, high in drawn]
    assert len(drawn) == 20
    assert drawn[0] == (0.15, 0.15)
    for step, (low, high) in enumerate(drawn):
        assert 0.15 <= low <= high <= 0.15 + 0.8 * step / 20
    assert tops[10] == pytest.approx(0.55, abs=0.05)
    assert tops[-1] == pytest.approx(0.91, abs=0.05)
    assert drawn[-1][0] < 0.3  # light masks stay among them


@pytest.mark.parametrize(
    ("name", "kind"), [*QUICK_KINDS, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_KINDS)]
)
def test_a_run_that_is_stopped_and_goes_on_has_the_weights_of_one_that_was_not(
    name: str, kind: str, checkpoint: Checkpoints, tmp_path: Path
) -> None:
    trial = hybrid(name, checkpoint(name), hybrid=kind, checkpoint_seconds=0.0)
    run(trial, tmp_path / "whole", keep_model=True)
    for attempt in (1, 2):
        generator = run_trial(trial, tmp_path / "pieces", trial_id="t", attempt=attempt)
        while next(generator).step < 2 * attempt + 1:
            pass
        generator.close()
    run(trial, tmp_path / "pieces", attempt=3, keep_model=True)
    assert "continues after step" in (tmp_path / "pieces" / "logs" / "train.log").read_text()
    weights = [(tmp_path / folder / "model" / "model.safetensors").read_bytes() for folder in ("whole", "pieces")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("unit", ["flops", "tokens", "wall_seconds"])
def test_what_a_checkpoint_cost_is_charged_in_the_unit_of_the_budget(unit: str, checkpoint: Checkpoints) -> None:
    before = json.loads((checkpoint("gpt2") / "outputs" / "metrics.json").read_text())
    spent = before[{"flops": "flops/total", "tokens": "tokens/total", "wall_seconds": "time/train_s"}[unit]]
    trial = hybrid("gpt2", checkpoint("gpt2"), budget=Budget(**{unit: 3.0 * spent}))
    left = assemble(trial, prepare(trial.data), CPU).trial.training.budget
    assert left == Budget(**{unit: 3.0 * spent - spent})
    free = with_training(trial, charge_init=False)
    assert assemble(free, prepare(trial.data), CPU).trial.training.budget == trial.training.budget
    if unit == "tokens":
        assert (plan_of(trial).tokens_total, plan_of(free).tokens_total) == (2 * spent, 3 * spent)


def test_a_budget_that_the_checkpoint_has_used_up_is_refused_with_both_numbers(checkpoint: Checkpoints) -> None:
    trial = hybrid("gpt2", checkpoint("gpt2"), budget=Budget(steps=4))
    with pytest.raises(ConfigError, match=r"training\.budget\.steps = 4, but .* has cost 4 and nothing is left"):
        plan_of(trial)


def test_a_saved_model_has_no_cost_to_charge_and_the_report_says_so(checkpoint: Checkpoints, tmp_path: Path) -> None:
    trial = hybrid("gpt2", checkpoint("gpt2") / "model")
    with pytest.raises(
        ConfigError, match=r"no recorded cost .*; give the run's folder, .*/run, or set .*charge_init: false"
    ):
        plan_of(trial)
    _, result = run(with_training(trial, charge_init=False), tmp_path)
    assert (result.metrics["init/charged"], result.metrics["steps/total"]) == (0.0, 10.0)
    assert "init/flops" not in result.metrics
    report = (tmp_path / "outputs" / "evaluation_report.md").read_text()
    assert "their cost: unknown, **not charged to this budget**" in report


def test_what_came_before_a_checkpoint_is_charged_with_it(checkpoint: Checkpoints, tmp_path: Path) -> None:
    run(hybrid("gpt2", checkpoint("gpt2")), tmp_path / "second", keep_model=True)
    third = hybrid("gpt2", tmp_path / "second", budget=Budget(steps=13))
    assert plan_of(third).steps == 13 - 4 - 6
    run(hybrid("gpt2", checkpoint("gpt2") / "model", charge_init=False), tmp_path / "free", keep_model=True)
    with pytest.raises(ConfigError, match="no recorded cost"):
        plan_of(hybrid("gpt2", tmp_path / "free", budget=Budget(steps=99)))


def test_the_same_path_with_other_weights_is_another_trial(checkpoint: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(checkpoint("gpt2"), folder)
    trial = hybrid("gpt2", folder)
    first = identify(trial, "data")
    assert identify(trial, "data") == first
    file = folder / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    second = identify(trial, "data")
    metrics = folder / "outputs" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"flops/total": 1}))
    assert len({first, second, identify(trial, "data")}) == 3


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another depth": ({"model": {"n_layers": 2}}, r"model\.n_layers = 2, but .* has 3"),
    "another family": ({"model": {"family": "llama"}}, r"model\.family = llama, but .* is a gpt2 model"),
    "another vocabulary": ({"model": {"vocab_size": 300}}, r"model\.vocab_size = 300, but .* has 260"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_another_architecture_is_refused_before_training(
    changes: dict[str, Any], message: str, checkpoint: Checkpoints
) -> None:
    trial = hybrid("gpt2", checkpoint("gpt2"))
    with pytest.raises(ConfigError, match=message):
        plan_of(replace(trial, model=replace(trial.model, **changes["model"])))


def test_another_tokenizer_is_refused_though_its_size_is_the_same(checkpoint: Checkpoints, tmp_path: Path) -> None:
    trial = hybrid("gpt2", checkpoint("gpt2"))
    mine = prepare(trial.data).directory / "tokenizer"
    check_tokenizer(trial, mine)
    content = json.loads((mine / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=r"training\.init_from = .* has another tokenizer than data\.tokenizer = bytes"
    ):
        check_tokenizer(trial, tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint("gpt2") / "model", bare)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json beside its weights"):
        assemble(hybrid("gpt2", bare, charge_init=False), prepare(trial.data), CPU)


def test_the_plan_of_a_sweep_refuses_the_weights_of_another_tokenizer(checkpoint: Checkpoints, tmp_path: Path) -> None:
    theirs = tmp_path / "model"
    shutil.copytree(checkpoint("gpt2") / "model", theirs)
    content = json.loads((theirs / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (theirs / "tokenizer.json").write_text(json.dumps(content))
    trials = [hybrid("gpt2", folder, charge_init=False) for folder in (checkpoint("gpt2"), theirs)]
    corpora = PreparedCorpora()
    cells = [
        Cell(arm=f"arm {i}", role="replicate", trial=t, trials=1, data=corpora.facts(t)) for i, t in enumerate(trials)
    ]
    mine, other = plan_cells("two", cells, slots=1, threads=1).rows
    assert mine.refused is None
    assert "has another tokenizer than data.tokenizer = bytes" in str(other.refused)


def test_a_run_that_has_not_finished_or_is_none_is_refused(checkpoint: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contains neither a finished run .* nor a saved model"):
        plan_of(hybrid("gpt2", tmp_path))
    shutil.copytree(checkpoint("gpt2"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(ConfigError, match="weights were not kept"):
        plan_of(hybrid("gpt2", tmp_path / "run"))
    (tmp_path / "run" / "outputs" / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="has not finished"):
        plan_of(hybrid("gpt2", tmp_path / "run"))
