"""What growing owes on every family: what trains and what stays, identity at insertion, FLOPs by formula, saving."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from stackwise_ray.config.trial import Budget, ModelConfig, Schedule, TrialConfig
from stackwise_ray.data import prepare
from stackwise_ray.metrics.losses import IGNORED
from stackwise_ray.models import FAMILIES
from stackwise_ray.models.growth.insertion import GATE
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.planning.counted_costs import stage_bytes
from stackwise_ray.training.assembly import Assembly, assemble
from stackwise_ray.training.noise import MASKED_RATIOS, entered_blocks
from stackwise_ray.training.objectives.masked_denoising import MaskedDenoising
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.scoring import score_run
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.step import TrainingStep
from tests.small_models import KINDS, MODELS, cells, mostly_exhaustive, mostly_slow
from tests.small_trials import GROWING, TRIAL, check_cost_model, run, with_data, with_training

CPU = torch.device("cpu")
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
pytestmark = pytest.mark.usefixtures("module_cache")


every_regime = pytest.mark.parametrize("regime", GROWING)


def growing(model: ModelConfig, regime: str = "depth_time", **training: Any) -> TrialConfig:
    trial = replace(TRIAL, model=replace(model, n_layers=3))
    return with_training(trial, **{"regime": regime, "budget": Budget(steps=6)} | training)


def assembled(trial: TrialConfig) -> Assembly:
    return assemble(trial, prepare(trial.data), CPU)


def test_every_family_is_here() -> None:
    assert {model.family for model in MODELS.values()} == set(FAMILIES.names())


@every_regime
@pytest.mark.parametrize("model", mostly_slow(MODELS, quick=("gpt2", "bert", "bk encoder")))
def test_a_stage_changes_what_it_declares_and_not_a_bit_of_anything_else(model: ModelConfig, regime: str) -> None:
    assembly = assembled(growing(model, regime))
    view = stack_view(assembly.model)
    for stage in assembly.plan.stages:
        tools = assembly.enter(stage)
        before = {name: p.detach().clone() for name, p in assembly.model.named_parameters()}
        step = TrainingStep(assembly, tools, Alone())
        for number in range(3):  # a block that enters as the identity learns its way in: its inner weights move second
            step.take(step=number, first_sequence=8 * number, n_sequences=8, lr=1e-2)
        changed = {n for n, p in assembly.model.named_parameters() if not torch.equal(p, before[n])}
        trained = {id(p) for number in stage.trainable.blocks for p in view.blocks[number].parameters()}
        names = {id(p): name for name, p in assembly.model.named_parameters()}
        assert {names[i] for i in trained} <= changed, "a trained block has a parameter that does not move"
        declared, trainable = set(trained), stage.trainable
        for wanted, part in ((trainable.embeddings, view.embeddings), (trainable.head, view.head)):
            declared |= {id(p) for module in part for p in module.parameters()} if wanted else set()
        if trainable.norm and view.final_norm is not None:
            declared |= {id(p) for p in view.final_norm.parameters()}
        assert changed <= {names[i] for i in declared}
        assert {id(p) for p in tools.parameters} == declared
        for number in set(range(3)) - set(stage.trainable.blocks):
            assert all(p.grad is None and not p.requires_grad for p in view.blocks[number].parameters())
            assert not view.blocks[number].training


@every_regime
@every_model
def test_a_block_that_enters_changes_no_logit(model: ModelConfig, regime: str) -> None:
    assembly = assembled(growing(model, regime))
    tokens = torch.randint(4, (2, 16), generator=torch.Generator().manual_seed(0))
    logits = None
    for stage in assembly.plan.stages:
        assembly.enter(stage)
        assembly.model.eval()
        with torch.no_grad():
            now = assembly.model(input_ids=tokens).logits
        if logits is not None:
            assert torch.equal(now, logits)
        logits = now


POLICIES: dict[str, dict[str, Any]] = {
    "right to left": {},
    "right to left, tied": {"embeddings": "tied_frozen"},
    "right to left, all embeddings": {"embeddings": "untied_all"},
    "right to left over a random trunk": {"trunk": "random_frozen"},
    "right to left, the suffix training": {"trunk": "trainable"},
    "right to left with a finish": {"finish": 0.2},
    "left to right": {"regime": "append"},
    "left to right, all embeddings": {"regime": "append", "embeddings": "untied_all"},
    "left to right, the prefix training": {"regime": "append", "trunk": "trainable"},
    "left to right, told the time": {"regime": "append", "time": "input"},
    "left to right on a cache": {"regime": "append", "cache": True},
    "end to end": {"regime": "classical_random_ratio"},
    "end to end, told the time": {"regime": "classical_random_ratio", "time": "input"},
}


EVERYWHERE = ("right to left", "right to left, tied", "left to right", "left to right, told the time", "end to end")
"""On every family; the others on one whose head is tied and whose blocks end in a norm."""
FORMULAS = ("right to left", "left to right")
"""The two formulas of growing, from which the others differ by what is said to train."""


@pytest.mark.parametrize(
    ("name", "policy"),
    cells(MODELS, FORMULAS, quick=KINDS)
    + cells(MODELS, [policy for policy in EVERYWHERE if policy not in FORMULAS], quick=["bert"])
    + cells(["bert"], [policy for policy in POLICIES if policy not in EVERYWHERE], quick=["bert"]),
)
def test_the_cost_model_is_what_is_counted_within_three_per_cent(name: str, policy: str) -> None:
    check_cost_model(growing(MODELS[name], **POLICIES[policy]))


@pytest.mark.parametrize(
    "model", mostly_exhaustive(MODELS, ("gpt2", "bert", "modernbert", "bk encoder", "bk with experts"))
)
def test_the_model_that_is_kept_is_the_one_that_was_evaluated(model: ModelConfig, tmp_path: Path) -> None:
    trial = growing(model, budget=Budget(steps=9), lr=1e-2)
    _, result = run(trial, tmp_path, keep_model=True)
    metrics = score_run(tmp_path).metrics
    assert metrics["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-6)
    rows = [(row["name"], row["active_blocks"]) for row in result_rows(tmp_path)]
    assert rows == [("stack 3 of 3", [2]), ("stack 2 of 3", [1, 2]), ("stack 1 of 3", [0, 1, 2])]


@pytest.mark.parametrize("name", ["bert", "modernbert", "bk encoder"])
def test_an_encoder_is_entered_where_its_input_belongs_also_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    """Shares .95, .55, .15: losses at 15 and 30 % are those of the last stack, 50 % of two, more of all."""
    losses = {}
    for entry in ("full", "nearest_r"):
        trial = growing(MODELS[name], budget=Budget(steps=9), lr=3e-2, entry=entry)
        _, result = run(trial, tmp_path / entry, keep_model=True)
        scored = score_run(tmp_path / entry).metrics
        losses[entry] = [result.metrics[f"validation/masked_loss_{r}"] for r in (15, 30, 50, 75, 90)]
        assert losses[entry] == pytest.approx([scored[f"validation/masked_loss_{r}"] for r in (15, 30, 50, 75, 90)])
        assert scored["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-6)
    changed = [a != b for a, b in zip(losses["full"], losses["nearest_r"], strict=True)]
    assert changed == [True, True, True, False, False]
    trial = growing(MODELS[name], entry="nearest_r")
    assert [entered_blocks(trial, r) for r in (0.15, 0.3, 0.5, 0.75, 0.9)] == [(2,), (2,), (1, 2), (0, 1, 2), (0, 1, 2)]


def result_rows(folder: Path) -> list[dict[str, Any]]:
    import json

    rows: list[dict[str, Any]] = json.loads((folder / "outputs" / "metrics.json").read_text())["stages"]
    for row in rows:
        assert row["flops_counted"] == pytest.approx(row["flops_modelled"], rel=0.03)
    return rows


@every_model
def test_no_tie_is_left_once_the_head_is_frozen_also_after_saving(model: ModelConfig, tmp_path: Path) -> None:
    run(growing(model), tmp_path, keep_model=True)
    auto = AutoModelForMaskedLM if model.role == "encoder" else AutoModelForCausalLM
    loaded = auto.from_pretrained(tmp_path / "model")
    head, table = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert head is not table
    assert not torch.equal(head, table)  # the embeddings went on training


def test_a_post_norm_block_has_a_gate_that_learns_and_others_have_none() -> None:
    for name, gates in (("bert", 3), ("gpt2", 0)):
        assembly = assembled(growing(MODELS[name]))
        assert sum(n.endswith(GATE) for n, _ in assembly.model.named_parameters()) == gates


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_dropout_is_off_in_what_is_frozen_and_on_in_what_trains(name: str) -> None:
    trial = growing(replace(MODELS[name], dropout=0.5))
    assembly = assembled(trial)
    assembly.enter(assembly.plan.stages[1])
    view = stack_view(assembly.model)
    dropouts = [[m.training for m in block.modules() if isinstance(m, torch.nn.Dropout)] for block in view.blocks]
    assert all(dropouts[1])
    assert not any(dropouts[2])


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
@pytest.mark.parametrize("policy", [{"regime": "append"}, {"embeddings": "tied_frozen"}], ids=["append", "tied_frozen"])
def test_frozen_embeddings_are_the_same_in_every_step_and_trained_ones_have_dropout(
    name: str, policy: dict[str, Any]
) -> None:
    assembly = assembled(growing(replace(MODELS[name], dropout=0.5), **policy))
    tokens = torch.randint(4, (2, 16), generator=torch.Generator().manual_seed(0))
    for number, same in ((0, False), (1, True)):
        stage, seen = assembly.plan.stages[number], []
        assembly.enter(stage)
        first = stack_view(assembly.model).blocks[stage.active_blocks[0]]
        hook = first.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].detach().clone()))
        assembly.model(input_ids=tokens)
        assembly.model(input_ids=tokens)
        hook.remove()
        assert torch.equal(*seen) is same


def test_a_gate_is_not_decayed_and_learns_at_the_rate_of_the_rest() -> None:
    assembly = assembled(growing(MODELS["bert"]))
    groups = assembly.enter(assembly.plan.stages[0]).optimizer.param_groups
    gate = dict(assembly.model.named_parameters())[f"bert.encoder.layer.2.{GATE}"]
    (own,) = [group for group in groups if any(p is gate for p in group["params"])]
    assert own["weight_decay"] == 0
    assert {group["lr"] for group in groups} == {assembly.trial.training.lr}


def test_a_random_trunk_stays_as_it_was_drawn() -> None:
    assembly = assembled(growing(MODELS["bert"], trunk="random_frozen"))
    fresh = assembled(growing(MODELS["bert"], trunk="random_frozen"))
    for stage in assembly.plan.stages:
        TrainingStep(assembly, assembly.enter(stage), Alone()).take(step=0, first_sequence=0, n_sequences=8, lr=0.1)
    mine, theirs = stack_view(assembly.model).blocks, stack_view(fresh.model).blocks
    for number, same in ((0, False), (1, True), (2, True)):
        pairs = zip(mine[number].parameters(), theirs[number].parameters(), strict=True)
        assert all(torch.equal(p, q) for p, q in pairs) is same


@pytest.mark.slow
def test_a_trunk_that_never_trained_is_worse(tmp_path: Path) -> None:
    """A source of order 2, so that a block has something to learn; both arms take the same steps."""
    losses = {}
    for trunk in ("frozen", "random_frozen"):
        trial = with_data(growing(replace(MODELS["bk encoder"], d_model=32, d_ff=64), trunk=trunk), seq_len=32)
        trial = with_training(trial, budget=Budget(steps=240), lr=1e-2, report_seconds=9.0, batch_tokens=512)
        losses[trunk] = run(trial, tmp_path / trunk)[1].metrics["validation/masked_loss"]
    assert losses["frozen"] < losses["random_frozen"] - 0.01


def test_a_budget_of_time_goes_through_all_stages(tmp_path: Path) -> None:
    trial = growing(MODELS["bert"], budget=Budget(wall_seconds=0.01), evaluations=1)  # over before the first step ends
    _, result = run(trial, tmp_path)
    assert [row["name"] for row in result_rows(tmp_path)] == ["stack 3 of 3", "stack 2 of 3", "stack 1 of 3"]
    assert result.metrics["progress"] == 1.0


def test_recomputed_activations_are_saved_in_the_frozen_suffix_as_well() -> None:
    for model in (MODELS["bert"], MODELS["gpt2"]):
        saved = []
        for checkpointing in (False, True):
            trial = growing(model, activation_checkpointing=checkpointing)
            saved.append(stage_bytes(trial, stage_plan(trial).stages[-1], vocab_size=50).saved_activations)
        assert saved[1] < 0.5 * saved[0]


def test_a_decoder_in_noise_predicts_the_true_next_token_from_what_is_masked() -> None:
    assembly = assembled(growing(MODELS["gpt2"]))
    objective = assembly.enter(assembly.plan.stages[2]).objective
    batch = objective.training_batch(range(64))
    clean = assembly.order.windows(0, 64)[:, None] + np.arange(17)
    tokens = np.asarray(assembly.data.splits["train"].tokens)[clean]
    masked = batch.inputs == assembly.data.special_ids["mask"]
    assert (batch.targets == tokens[:, 1:]).all()
    assert (batch.inputs[~masked] == tokens[:, :-1][~masked]).all()
    assert masked.mean() == pytest.approx(0.95, abs=0.03)
    validation = objective.validation_batch(assembly.validation_windows)
    assert not (validation.inputs == assembly.data.special_ids["mask"]).any()


def test_masked_losses_are_measured_at_their_shares_with_nested_masks_of_all_seeds() -> None:
    shares = []
    for seed in (0, 1):
        assembly = assembled(replace(growing(MODELS["bert"]), seed=seed))
        objective = MaskedDenoising(assembly.trial, assembly.plan.stages[-1], assembly.data, assembly.order)
        batches = [objective.masked_at(assembly.validation_windows, r) for r in MASKED_RATIOS]
        found = [batch.targets != IGNORED for batch in batches]
        assert all((low <= high).all() for low, high in itertools.pairwise(found))
        shares.append([float(masked.mean()) for masked in found])
    assert shares[0] == shares[1] == pytest.approx(MASKED_RATIOS, abs=0.08)


def test_every_stage_warms_up_and_decays(tmp_path: Path) -> None:
    records, _ = run(growing(MODELS["bert"], budget=Budget(steps=12), schedule=Schedule(warmup=0.3)), tmp_path)
    rates = [r.metrics["train/lr"] for r in records if "train/lr" in r.metrics and "validation/loss" not in r.metrics]
    assert rates[:4] * 3 == pytest.approx(rates)
    assert rates[3] < rates[1]
