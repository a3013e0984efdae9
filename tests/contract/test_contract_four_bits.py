"""A trunk in four bits under its adapters, on every family; needs bitsandbytes (the extra `qlora`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from stackwise_ray.config.trial import Budget, ModelConfig
from stackwise_ray.models.growth.quantised import QuantisedLinear
from stackwise_ray.models.stack_view import ADAPTER, stack_view
from stackwise_ray.planning.counted_costs import stage_bytes
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.training.checkpoints import Checkpoint
from stackwise_ray.training.growth_options import Lora
from stackwise_ray.training.scoring import score_run
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.state import capture, restore
from tests.contract.test_contract_adapters import (
    adapted,
    assembled,
    every_kind,
    every_model,
    every_regime,
    train_a_stage,
)
from tests.small_models import MODELS, cells
from tests.small_trials import GROWING, check_cost_model, run

pytestmark = [
    pytest.mark.usefixtures("module_cache"),
    pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="the extra qlora is not installed"),
]


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_a_quantised_matrix_is_near_and_passes_the_gradient_of_what_it_computes(kind: Any) -> None:
    torch.manual_seed(0)
    matrix = kind(48, 81)  # rows that end inside a block, and a last block that is not full
    quantised = QuantisedLinear(matrix)
    plain = quantised.restored()
    assert type(plain) is kind
    assert plain.weight.shape == matrix.weight.shape
    error = (plain.weight - matrix.weight).norm() / matrix.weight.norm()
    assert 0.05 < error < 0.12  # 9 % for a normal distribution, 7 % for a uniform one
    x = torch.randn(2, 5, quantised.in_features, requires_grad=True)
    weights = torch.randn(2, 5, quantised.out_features)
    gradients = []
    for module in (quantised, plain):
        y = module(x)
        gradients.append(torch.autograd.grad((y * weights).sum(), x)[0])
        torch.testing.assert_close(y, quantised(x))
    torch.testing.assert_close(*gradients)
    assert quantised.packed.numel() == 61 * 64 / 2  # 48 * 81 weights in blocks of 64


@every_regime
@every_model
def test_the_trunk_is_in_four_bits_and_stays_while_every_adapter_learns(model: ModelConfig, regime: str) -> None:
    assembly = assembled(adapted(model, regime, trunk="qlora"))
    view = stack_view(assembly.model)
    for number, stage in enumerate(assembly.plan.stages):
        assembly.enter(stage)
        buffers = {name: tensor.clone() for name, tensor in assembly.model.named_buffers()}
        before = train_a_stage(assembly, number)
        adapters = {name for name in before if f".{ADAPTER}" in name}
        changed = {n for n, p in assembly.model.named_parameters() if not torch.equal(p, before[n])}
        assert adapters <= changed
        assert all(torch.equal(tensor, buffers[name]) for name, tensor in assembly.model.named_buffers())
        for block in stage.active_blocks:
            inside = [m for m in view.blocks[block].modules() if isinstance(m, QuantisedLinear)]
            wanted = 0 if block in stage.trainable.blocks else len(view.projections(view.blocks[block]))
            assert len(inside) == wanted


@pytest.mark.parametrize(("name", "regime"), cells(MODELS, GROWING))
def test_the_cost_model_is_what_is_counted_within_three_per_cent(name: str, regime: str) -> None:
    check_cost_model(adapted(MODELS[name], regime, trunk="qlora", finish=0.2))


@every_kind
def test_the_run_costs_what_was_planned_and_what_is_kept_computes_what_was_trained(
    model: ModelConfig, tmp_path: Path
) -> None:
    trial = adapted(model, trunk="qlora", lr=1e-2, finish=0.2)
    assembly = assembled(trial)
    _, result = run(trial, tmp_path, keep_model=True)
    plan = plan_trial(trial, vocab_size=assembly.data.vocab_size, special_ids=assembly.data.special_ids)
    metrics = result.metrics
    assert (metrics["flops/total"], metrics["model/params"]) == (plan.flops_total, plan.params)
    assert metrics["memory/peak_bytes"] == pytest.approx(plan.live_peak_bytes, rel=0.05)
    assert metrics["memory/saved_activation_bytes"] == pytest.approx(plan.saved_activation_bytes, rel=0.02)
    assert score_run(tmp_path).metrics["validation/loss"] == pytest.approx(metrics["validation/loss"], rel=1e-6)


def test_a_checkpoint_brings_the_four_bits_back() -> None:
    trial = adapted(MODELS["gpt2"], trunk="qlora", n_layers=3)
    first, second = assembled(trial), assembled(trial)
    for number in range(2):
        train_a_stage(first, number)
    tools = first.enter(first.plan.stages[2])
    state = capture(first, tools)
    tensors = {file: {n: t.clone() for n, t in held.items()} for file, held in state.tensors.items()}
    again = second.enter(second.plan.stages[2])
    restore(Checkpoint(step=1, tensors=tensors, state={"torch": state.plain}), second, again)
    tokens = torch.randint(4, (2, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.model(input_ids=tokens).logits, second.model(input_ids=tokens).logits)


def test_no_matrix_read_back_is_kept_for_the_backward_pass() -> None:
    saved = {}
    for trunk in ("lora", "qlora"):
        trial = adapted(MODELS["bert"], trunk=trunk, lora=Lora(rank=2), budget=Budget(steps=3))
        saved[trunk] = stage_bytes(trial, stage_plan(trial).stages[-1], vocab_size=50).saved_activations
    assert saved["qlora"] == saved["lora"]  # where float32 matrices are parameters, which do not count
