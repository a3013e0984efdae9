"""The cache of a frozen prefix on every family: the same losses as without it, its size and cost stated before."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.core.errors import ConfigError, DiskFullError
from stackwise_ray.data import prepare
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.planning.counted_costs import stage_flops
from stackwise_ray.planning.modelled_flops import modelled_prefix_flops
from stackwise_ray.planning.plan_display import plan_table
from stackwise_ray.planning.preparation import DataFacts
from stackwise_ray.planning.sweep_plan import Cell, plan_cells
from stackwise_ray.planning.trial_plan import TrialPlan, plan_trial
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.prefix_cache import PrefixCache
from stackwise_ray.training.scoring import score_run
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.step import TrainingStep, model_inputs
from tests.contract.test_contract_regimes import assembled, growing, result_rows
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import run, with_data

pytestmark = pytest.mark.usefixtures("module_cache")
FIXED = mostly_slow({name: name for name in MODELS if name != "bk with experts"})
"""Not the one whose load-balance loss is of the prefix as well."""
WINDOWS, PER_STEP = 24, 8


def cached(model: ModelConfig, **training: Any) -> TrialConfig:
    """24 windows in the train split: a stage of four steps has seen all of them, and some twice."""
    trial = growing(model, "append", **{"cache": True, "budget": Budget(steps=15), "lr": 1e-2} | training)
    return with_data(trial, markov=MarkovSource(order=1, n_symbols=4, n_tokens=WINDOWS * 16 + 1))


def drain(generator: Any) -> Any:
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def planned(trial: TrialConfig) -> TrialPlan:
    data = prepare(trial.data)
    splits = {name: split.n_tokens for name, split in data.splits.items()}
    return plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids, split_tokens=splits)


def losses(trial: TrialConfig, directory: Path, *, cache: bool) -> list[float]:
    """Of six steps in every stage, which go twice through the windows, with the trial's masks."""
    assembly, found = assembled(trial), []
    for stage in assembly.plan.stages:
        tools, read = assembly.enter(stage), None
        if stage.cached and cache:
            kept = PrefixCache(assembly, Alone(), directory, attempt=1)
            drain(kept.fill(stage, tools.objective, 5))
            read = kept.read
        step = TrainingStep(assembly, tools, Alone(), read)
        for number in range(6):
            value = step.take(step=len(found), first_sequence=PER_STEP * number, n_sequences=PER_STEP, lr=1e-2)
            found.append(float(value.loss))
    return found


@pytest.mark.parametrize("time", ["depth", "input"])
@pytest.mark.parametrize("name", FIXED)
def test_with_a_cache_every_step_has_the_loss_that_it_has_without(name: str, time: str, tmp_path: Path) -> None:
    trial = cached(MODELS[name], time=time)
    assert losses(trial, tmp_path, cache=True) == pytest.approx(losses(trial, tmp_path, cache=False), rel=1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_in_half_precision_too(name: str, tmp_path: Path) -> None:
    trial = cached(MODELS[name], precision="bf16", accumulation=2)
    assert losses(trial, tmp_path, cache=True) == pytest.approx(losses(trial, tmp_path, cache=False), rel=1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_masks_stay_the_same_in_every_epoch_with_a_cache_alone(name: str) -> None:
    for trial, same in ((cached(MODELS[name]), True), (cached(MODELS[name], cache=False), False)):
        assembly = assembled(trial)
        objective = assembly.enter(assembly.plan.stages[1]).objective
        rows = []
        for epoch in range(2):
            sequences = range(WINDOWS * epoch, WINDOWS * (epoch + 1))
            order = np.argsort(assembly.order.windows(sequences.start, WINDOWS))
            rows.append(objective.training_batch(sequences).inputs[order])
        assert (rows[0] == rows[1]).all() == same


@pytest.mark.parametrize("name", ["bert", "llama", pytest.param("bk diagonal", marks=pytest.mark.slow)])
def test_filling_costs_what_the_cost_model_says_and_is_counted_as_training(name: str, tmp_path: Path) -> None:
    trial = cached(MODELS[name])
    fills = []
    for stage in stage_plan(trial).stages[1:]:
        counted = stage_flops(trial, stage, vocab_size=50).prefix_per_sequence
        assert counted == pytest.approx(modelled_prefix_flops(trial, stage, 50), rel=0.03)
        fills.append(WINDOWS * counted)
    plan, (_, result) = planned(trial), run(trial, tmp_path, keep_model=True)
    assert result.metrics["flops/cache"] == sum(fills)
    assert result.metrics["flops/total"] == plan.flops_total
    assert result_rows(tmp_path)[1]["active_blocks"] == [0, 1]  # its FLOPs and those of the filling: within 3 %
    without = run(cached(MODELS[name], cache=False), tmp_path / "without")[1].metrics
    assert "flops/cache" not in without
    assert score_run(tmp_path).metrics["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-6)


def test_the_plan_and_the_log_state_the_size_and_the_file_is_gone_at_the_end(tmp_path: Path) -> None:
    trial = cached(MODELS["bert"])
    plan, size = planned(trial), WINDOWS * 16 * 16 * 4
    assert plan.cache_bytes == size
    assert plan.disk_bytes == planned(cached(MODELS["bert"], cache=False)).disk_bytes + size
    data = prepare(trial.data)
    cell = Cell(arm="cached", role="replicate", trial=trial, trials=1, data=DataFacts.of(data))
    sweep = plan_cells("s", [cell], slots=1, threads=1)
    assert sweep.to_dict()["rows"][0]["cache_bytes"] == size
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(plan_table(sweep))
    assert f"cached: the cache of the frozen prefix takes {size} bytes (24.0 KiB)" in console.export_text()
    run(trial, tmp_path)
    log = (tmp_path / "logs" / "train.log").read_text()
    assert log.index(f"the cache of the frozen prefix: 24 windows, {size} bytes") < log.index("attempt 1 begins")
    assert not list(tmp_path.glob("prefix_cache*"))


def test_a_file_that_an_earlier_attempt_left_is_removed_and_a_later_attempt_keeps_its_own(tmp_path: Path) -> None:
    assembly = assembled(cached(MODELS["bert"]))
    for number in (1, 2, 3):
        (tmp_path / f"prefix_cache.{number}").write_bytes(b"left")
    PrefixCache(assembly, Alone(), tmp_path, attempt=2).drop()
    assert [file.name for file in tmp_path.glob("prefix_cache.*")] == ["prefix_cache.3"]


def test_a_cache_that_does_not_fit_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = cached(MODELS["bert"], cache_bytes=24_575)
    with pytest.raises(ConfigError, match=r"training\.cache_bytes = 24575, but the cache .* needs 24576 bytes"):
        planned(small)
    with pytest.raises(ConfigError, match="raise it to 24576"):
        run(small, tmp_path / "limit")
    assert planned(cached(MODELS["bert"], cache_bytes=24_576)).cache_bytes == 24_576
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))  # a disk that is almost full
    with pytest.raises(DiskFullError, match=r"needs 24\.0 KiB, but the disk has only 1000 B left"):
        run(cached(MODELS["bert"]), tmp_path / "disk")
    assert "attempt 1 begins" not in (tmp_path / "disk" / "logs" / "train.log").read_text()


def test_the_file_of_a_killed_attempt_takes_no_room_from_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "prefix_cache.1"
    left.write_bytes(b"left")
    # A disk that the file left behind has filled.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0 if left.exists() else 24_576))
    PrefixCache(assembled(cached(MODELS["bert"])), Alone(), tmp_path, attempt=2).check_room()
    assert not left.exists()


def test_a_cache_that_saves_nothing_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"training\.cache = true saves nothing: stack 2 of 3 trains on 24 sequences"):
        planned(cached(MODELS["bert"], budget=Budget(steps=9)))
    assert planned(cached(MODELS["bert"], budget=Budget(steps=12))).steps == 12


def test_a_budget_of_flops_pays_for_the_filling() -> None:
    amount = planned(cached(MODELS["bert"])).flops_total
    assert amount is not None
    both = [planned(cached(MODELS["bert"], cache=on, budget=Budget(flops=2 * amount))) for on in (True, False)]
    assert [plan.flops_total for plan in both] == pytest.approx([2 * amount] * 2, rel=0.01)
    data = cached(MODELS["bert"]).data
    trial = replace(cached(MODELS["bert"]), data=replace(data, markov=MarkovSource(order=1, n_symbols=4, n_tokens=700)))
    with pytest.raises(ConfigError, match=r"saves nothing|cannot be met"):  # the filling takes what would be trained
        planned(replace(trial, training=replace(trial.training, budget=Budget(flops=amount))))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "llama"])
def test_no_tensor_below_the_trained_block_requires_a_gradient(name: str, cache: bool, tmp_path: Path) -> None:
    assembly = assembled(cached(MODELS[name], time="input"))
    view = stack_view(assembly.model)
    asked: list[bool] = []

    def ask(module: Any, given: Any, output: Any = None) -> None:
        asked.append(_first(given if output is None else output).requires_grad)

    for stage in assembly.plan.stages[1:]:
        tools = assembly.enter(stage)
        asked.clear()
        handles = [m.register_forward_hook(ask) for m in [*view.embeddings, *list(view.blocks)[: stage.lowest_trained]]]
        handles.append(view.blocks[stage.lowest_trained].register_forward_pre_hook(ask))
        kept = PrefixCache(assembly, Alone(), tmp_path, attempt=1)
        if cache:
            drain(kept.fill(stage, tools.objective, PER_STEP))
        TrainingStep(assembly, tools, Alone(), kept.read if cache else None).take(
            step=0, first_sequence=0, n_sequences=PER_STEP, lr=1e-2
        )
        assert asked
        assert not any(asked)
        for handle in handles:
            handle.remove()


def _first(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2"])
def test_no_tie_is_left_after_saving_and_loading(name: str, tmp_path: Path) -> None:
    trial = cached(MODELS[name])
    assembly = assembled(trial)
    assert assembly.model.get_output_embeddings().weight is assembly.model.get_input_embeddings().weight
    run(trial, tmp_path, keep_model=True)
    auto: Any = AutoModelForMaskedLM if trial.model.role == "encoder" else AutoModelForCausalLM
    loaded = auto.from_pretrained(tmp_path / "model")
    head, table = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert head is not table
    assert not torch.equal(head, table)  # the head went on training, the frozen embeddings did not


def test_a_stage_on_a_cache_does_not_run_the_prefix(tmp_path: Path) -> None:
    assembly = assembled(cached(MODELS["bert"]))
    stage = assembly.plan.stages[2]
    tools, kept = assembly.enter(stage), PrefixCache(assembly, Alone(), tmp_path, attempt=1)
    drain(kept.fill(stage, tools.objective, PER_STEP))
    inputs = model_inputs(assembly.model, tools.objective.training_batch(range(3)), assembly.device)
    ran: list[int] = []
    for number, block in enumerate(stack_view(assembly.model).blocks):
        block.attention.register_forward_hook(lambda _, __, ___, number=number: ran.append(number))
    TrainingStep(assembly, tools, Alone(), kept.read).take(step=0, first_sequence=0, n_sequences=8, lr=0.0)
    assert ran == [2]
    assembly.model(**inputs)
    assert ran == [2, 0, 1, 2], "a step on the cache leaves the prefix switched off"
