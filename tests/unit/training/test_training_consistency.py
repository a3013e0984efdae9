"""The consistency of depth-as-time: which positions, which target, over the whole global batch, on every family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.data import prepare
from stackwise_ray.metrics.losses import summed_cross_entropy, with_auxiliary
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.training.assembly import Assembly, assemble
from stackwise_ray.training.growth_options import Noise
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.step import TrainingStep
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import TRIAL, with_training

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("module_cache")
every_model = pytest.mark.parametrize("model", mostly_slow(MODELS))


def consistent(model: ModelConfig, **training: Any) -> TrialConfig:
    trial = replace(TRIAL, model=replace(model, n_layers=3))
    return with_training(trial, **{"regime": "depth_time", "budget": Budget(steps=6), "consistency": 0.5} | training)


def entered(trial: TrialConfig, number: int = 1) -> tuple[Assembly, Any]:
    assembly = assemble(trial, prepare(trial.data), CPU)
    for stage in assembly.plan.stages[: number + 1]:
        tools = assembly.enter(stage)
    return assembly, tools


def test_every_stack_but_the_first_to_train_and_the_finish_is_drawn_to_the_next_ones_input() -> None:
    stages = stage_plan(consistent(MODELS["bert"], finish=0.1)).stages
    assert [stage.next_level for stage in stages] == [None, pytest.approx(0.15), pytest.approx(0.55), None]
    assert all(stage.next_level is None for stage in stage_plan(consistent(MODELS["bert"], consistency=0.0)).stages)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_newly_revealed_is_what_is_masked_here_and_not_at_the_next_stacks_share(name: str) -> None:
    assembly, tools = entered(consistent(MODELS[name]))
    batch = tools.objective.training_batch(range(64))
    mask = assembly.data.special_ids["mask"]
    here, next_ = batch.inputs == mask, batch.clearer == mask
    assert (next_ <= here).all()
    assert here.mean() == pytest.approx(0.55, abs=0.06)
    assert next_.mean() == pytest.approx(0.15, abs=0.04)
    assert batch.revealed_positions == (here & ~next_).sum()
    clean = np.asarray(assembly.data.splits["train"].tokens)[assembly.order.windows(0, 64)[:, None] + np.arange(16)]
    assert (batch.clearer[~next_] == clean[~next_]).all()


def test_a_sequence_that_is_already_clearer_reveals_nothing() -> None:
    trial = consistent(MODELS["bert"], noise=Noise(kind="cumulative"))
    batch = entered(trial, 2)[1].objective.training_batch(range(64))
    shares = (batch.inputs == batch.inputs.max()).mean(1)
    revealed = (batch.inputs != batch.clearer).sum(1)
    assert (revealed[shares < 0.3] == 0).all()
    assert (revealed[shares > 0.8] > 0).all()


@every_model
def test_the_embeddings_view_is_what_the_first_block_gets(model: ModelConfig) -> None:
    assembly, _ = entered(consistent(model), 2)
    assembly.model.eval()
    seen = []
    view, tokens = stack_view(assembly.model), torch.arange(12).view(2, 6) % 5
    view.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        assembly.model(input_ids=tokens)
        assert torch.equal(view.embed(tokens), seen[0])


@every_model
@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_gradient_is_that_of_the_formula_over_the_whole_batch(model: ModelConfig, accumulation: int) -> None:
    assembly, tools = entered(consistent(model, accumulation=accumulation, gradient_clip=None))
    step = TrainingStep(assembly, tools, Alone())
    step.take(step=0, first_sequence=0, n_sequences=8, lr=1e-2)  # so that the stack that entered does something
    view, batch = stack_view(assembly.model), tools.objective.training_batch(range(8, 16))
    inputs, clearer, targets = (torch.from_numpy(a) for a in (batch.inputs, batch.clearer, batch.targets))
    seen: list[Any] = []
    handle = view.blocks[1].register_forward_hook(lambda _, __, given: seen.append(given))
    output = assembly.model(input_ids=inputs)
    handle.remove()
    hidden = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    revealed = inputs != clearer
    distance = (hidden - view.embed(clearer).detach())[revealed].square().sum() / revealed.sum()
    total, count = summed_cross_entropy(output.logits, targets)
    with_auxiliary(total / count + 0.5 * distance, assembly.model, output, 1.0).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in tools.parameters])
    assembly.model.zero_grad()
    values = step.take(step=1, first_sequence=8, n_sequences=8, lr=0.0)
    assert float(values.gradient_norm) == pytest.approx(float(expected), rel=1e-4)
    assert float(values.loss) == pytest.approx(
        total.item() / count.item(), rel=1e-5
    )  # reported without the consistency


def test_the_target_has_no_dropout_and_the_training_mode_stays() -> None:
    assembly, tools = entered(consistent(replace(MODELS["bert"], dropout=0.9)))
    from stackwise_ray.training.consistency import summed_distance

    view, batch = stack_view(assembly.model), tools.objective.training_batch(range(8))
    inputs, clearer = torch.from_numpy(batch.inputs), torch.from_numpy(batch.clearer)
    assert view.embeddings[0].training
    hidden = torch.zeros(*inputs.shape, 16)
    distances = {float(summed_distance(assembly.model, hidden, inputs, clearer)) for _ in range(3)}
    assert len(distances) == 1
    assert view.embeddings[0].training


def test_it_draws_the_stack_to_the_next_ones_input() -> None:
    """The mean distance over a fixed batch falls below that of the arm without."""
    found = []
    for weight in (0.0, 5.0):
        assembly, tools = entered(consistent(MODELS["bert"], consistency=weight))
        step = TrainingStep(assembly, tools, Alone())
        for number in range(20):
            step.take(step=number, first_sequence=8 * number, n_sequences=8, lr=1e-2)
        batch = entered(consistent(MODELS["bert"]))[1].objective.training_batch(range(8))
        inputs, clearer = torch.from_numpy(batch.inputs), torch.from_numpy(batch.clearer)
        view = stack_view(assembly.model)
        with torch.no_grad():
            hidden = view.blocks[1](view.embed(inputs))
            revealed = inputs != clearer
            found.append(float((hidden - view.embed(clearer))[revealed].square().sum(-1).mean()))
    assert found[1] < 0.8 * found[0]
