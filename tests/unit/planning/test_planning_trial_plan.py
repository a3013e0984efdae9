"""The plan: equal to the run to the unit for every family and mode, refusals, and sizes by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial import (
    Budget,
    ExpertsChannelMixer,
    ModelConfig,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
    TrialConfig,
    training_config,
)
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import format_seconds
from stackwise_ray.data import prepare
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.flags import apply_flags
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.planning.counted_costs import _stage_flops, stage_bytes, stage_flops
from stackwise_ray.planning.plan_display import plan_table
from stackwise_ray.planning.sweep_plan import PlanRow, SweepPlan
from stackwise_ray.planning.trial_plan import TrialPlan, plan_trial, planned_steps, split_by_cost
from stackwise_ray.training.growth_options import Noise
from stackwise_ray.training.loop import TrainingLoop
from stackwise_ray.training.stages import stage_plan
from tests.small_models import mostly_slow
from tests.small_trials import GROWING, run, with_data, with_model, with_training

pytestmark = pytest.mark.usefixtures("module_cache")

FEW = MarkovSource(order=1, n_symbols=4, n_tokens=400)
TRIAL = with_training(with_data(validation_tokens=272, final_evaluation=None), budget=Budget(tokens=128 * 3 + 48))


def model(**changes: Any) -> TrialConfig:
    return with_model(TRIAL, **changes)


def training(**changes: Any) -> TrialConfig:
    return with_training(TRIAL, **changes)


CASES = {
    "gpt2": TRIAL,
    "llama": model(family="llama", d_ff=24),
    "bert": model(family="bert", role="encoder"),
    "modernbert": model(family="modernbert", role="encoder", d_ff=24),
    "bk apply": model(family="bk", n_heads=None, mixer=ResolventApplyMixer(n_heads=2, d_value=8)),
    "bk diagonal": model(family="bk", n_heads=None, mixer=ResolventDiagonalMixer(n_heads=4)),
    "bk without a mixer": model(family="bk", n_heads=None, mixer=NoMixer()),
    "bk with experts": model(
        family="bk", n_heads=None, mixer=ResolventApplyMixer(n_heads=2), channel_mixer=ExpertsChannelMixer(top_k=2)
    ),
    "micro-batches": training(accumulation=3),
    "recomputed activations": training(activation_checkpointing=True),
    "dropout": model(dropout=0.1),
    "bf16": training(precision="bf16"),
    "a flag": replace(TRIAL, flags=("activation_checkpointing",)),
    "a budget of FLOPs": training(budget=Budget(flops=2e8)),
    "an encoder that grows": with_training(
        model(family="bert", role="encoder"), regime="depth_time", budget=Budget(flops=3e8)
    ),
    "an encoder drawn to the next stack's input": with_training(
        model(family="modernbert", role="encoder", d_ff=24, dropout=0.1),
        regime="depth_time",
        consistency=0.5,
        accumulation=2,
        activation_checkpointing=True,
        budget=Budget(steps=6),
    ),
    "a decoder drawn to the next stack's input": training(
        regime="depth_time", consistency=0.5, precision="bf16", budget=Budget(steps=6)
    ),
    "an encoder entered where the masks belong": with_training(
        model(family="bk", role="encoder", n_heads=None, mixer=ResolventApplyMixer(n_heads=2), n_layers=4),
        regime="depth_time",
        blocks_per_stack=2,
        entry="nearest_r",
        finish=0.2,
        budget=Budget(steps=12),
    ),
    "stabilisers": training(
        regime="depth_time", spectral_norm=True, residual_gain=0.5, accumulation=2, budget=Budget(flops=3e8)
    ),
    "a decoder that fills in masks": training(
        regime="depth_time", decoder_objective="bidirectional", entry="nearest_r", budget=Budget(steps=6)
    ),
    "stages of equal tokens": with_training(
        model(family="bert", role="encoder", n_layers=3),
        regime="depth_time",
        stage_split="flop_proportional",
        finish=0.2,
        budget=Budget(flops=1e9),
    ),
    "adapters on a trunk, with a finish": with_training(
        model(family="bert", role="encoder"), regime="depth_time", trunk="lora", finish=0.3, budget=Budget(flops=5e8)
    ),
    "adapters on a prefix in bf16, with a finish": training(
        regime="append", trunk="lora", precision="bf16", finish=0.3, budget=Budget(steps=6)
    ),
    "an encoder that is told the time": with_training(
        model(family="bert", role="encoder"), regime="append", time="input", budget=Budget(flops=3e8)
    ),
    "a cached prefix": with_training(
        with_data(model(family="bert", role="encoder"), markov=FEW),
        regime="append",
        cache=True,
        budget=Budget(flops=3e8),
    ),
    "a decoder that grows": training(regime="depth_time", trunk="random_frozen", budget=Budget(steps=6)),
}


def plan_of(trial: TrialConfig, **options) -> TrialPlan:
    data = prepare(trial.data)
    splits = {name: split.n_tokens for name, split in data.splits.items()}
    return plan_trial(
        trial, vocab_size=data.vocab_size, special_ids=data.special_ids, **({"split_tokens": splits} | options)
    )


QUICK_CASES = (
    "gpt2",
    "bert",
    "llama",
    "modernbert",
    "bk apply",
    "a flag",
    "a budget of FLOPs",
    "an encoder that grows",
)


@pytest.mark.parametrize("trial", mostly_slow(CASES, quick=QUICK_CASES))
def test_the_run_costs_what_was_planned_to_the_unit(trial, tmp_path):
    plan = plan_of(trial)
    metrics = run(trial, tmp_path)[1].metrics
    assert metrics["flops/total"] == plan.flops_total
    assert metrics["flops/evaluation"] == plan.flops_evaluation
    assert metrics["tokens/total"] == plan.tokens_total
    assert metrics["steps/total"] == plan.steps
    assert metrics["model/params"] == plan.params
    assert metrics["model/params_non_embedding"] == plan.params_non_embedding
    assert metrics["model/bytes"] == plan.model_bytes
    assert metrics["memory/saved_activation_bytes"] == plan.saved_activation_bytes
    assert metrics["memory/peak_bytes"] == plan.live_peak_bytes


@pytest.mark.parametrize("regime", GROWING)
def test_shares_in_proportion_to_cost_give_all_stages_equal_tokens(regime):
    """The finish keeps its own share, and the stages before it what that leaves."""
    trial = with_training(
        model(n_layers=3), regime=regime, stage_split="flop_proportional", finish=0.2, budget=Budget(flops=3e9)
    )
    plan = stage_plan(trial)
    flops = [stage_flops(trial, stage, vocab_size=20) for stage in plan.stages]
    split = split_by_cost(trial, plan, flops)
    steps = planned_steps(trial, split, flops, 0)
    tokens = [stage.sequences_total for stage in steps]
    assert max(tokens[:3]) - min(tokens[:3]) <= 1
    assert planned_steps(trial, plan, flops, 0)[0].sequences_total > 1.1 * tokens[0]  # uniform
    shares = [stage.share for stage in split.stages]
    assert shares[3] == 0.2
    assert shares[0] < shares[1] < shares[2]


def test_a_budget_of_time_is_split_by_cost_in_the_run_as_well(tmp_path, monkeypatch):
    trial = with_training(
        model(n_layers=3), regime="depth_time", stage_split="flop_proportional", budget=Budget(wall_seconds=0.01)
    )
    seen = []
    original = TrainingLoop.__init__

    def remember(self, assembly, **options):
        seen.append([stage.share for stage in assembly.plan.stages])
        original(self, assembly, **options)

    monkeypatch.setattr(TrainingLoop, "__init__", remember)
    run(trial, tmp_path)
    assert seen[0][0] < seen[0][1] < seen[0][2]


def test_a_tuning_trial_plans_no_final_evaluation():
    fixed = with_data(TRIAL, final_evaluation="fixed")
    assert plan_of(TRIAL, final_evaluation=False) == plan_of(fixed)
    assert plan_of(TRIAL).flops_evaluation > plan_of(fixed).flops_evaluation


def test_flops_by_hand_for_a_model_without_a_mixer():
    """Per token and layer two or three products with the channel mixer, and the head: 2mn forward each."""
    trial = model(family="bk", n_heads=None, mixer=NoMixer(), n_layers=1)
    deeper = model(family="bk", n_heads=None, mixer=NoMixer(), n_layers=2)
    one, two = plan_of(trial), plan_of(deeper)
    weights = two.params_non_embedding - one.params_non_embedding
    block = two.flops_forward_per_token - one.flops_forward_per_token
    vectors = weights - block / 2
    assert 0 <= vectors <= 8 * 16  # norms, gains and biases are the only parameters without a product
    assert two.flops_backward_per_token == 2 * two.flops_forward_per_token
    assert two.flops_optimizer_per_step == 15 * two.params


def test_a_budget_of_flops_is_met_within_one_per_cent():
    plan = plan_of(training(budget=Budget(flops=1e9)))
    assert plan.flops_total == pytest.approx(1e9, rel=0.01)


def test_a_budget_that_no_number_of_sequences_meets_is_refused_with_the_smallest_that_can():
    with pytest.raises(
        ConfigError, match=r"training\.budget\.flops = 1000 cannot be met within 1%.* give at least"
    ) as e:
        plan_of(training(budget=Budget(flops=1000)))
    least = int(str(e.value).rpartition(" ")[2])
    assert plan_of(training(budget=Budget(flops=least))).flops_total == least


def test_a_budget_of_time_leaves_open_what_the_clock_decides():
    plan = plan_of(training(budget=Budget(wall_seconds=60)))
    assert (plan.steps, plan.tokens_total, plan.flops_total, plan.flops_evaluation) == (None, None, None, None)
    assert plan.flops_forward_per_token == plan_of(TRIAL).flops_forward_per_token


def test_disk_holds_three_checkpoints_and_the_model():
    """Weights and two moments, each 4 bytes a parameter, three times (one is being written), and the weights."""
    plan = plan_of(TRIAL)
    assert plan.disk_bytes == pytest.approx(4 * plan.params * (3 * 3 + 1), rel=0.01)


def test_planning_allocates_no_weights():
    """A model of 1.7 billion parameters on any machine."""
    trial = replace(
        TRIAL,
        model=ModelConfig(family="llama", role="decoder", n_layers=8, d_model=4096, n_heads=32, d_ff=11008),
        training=training_config(budget=Budget(steps=1), batch_tokens=16),
    )
    plan = plan_trial(trial, vocab_size=32_000)
    assert plan.params > 1.7e9
    assert plan.live_peak_bytes > 4 * 4 * plan.params  # weights, gradients, two moments


def test_planning_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    plan_trial(model(d_ff=48), vocab_size=100)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("flag", ["mixed_precision", "activation_checkpointing"])
def test_a_run_is_filed_under_the_kind_that_the_plan_looks_up_whatever_flags_do(flag: str) -> None:
    trial = load_trial(["model=decoder/gpt2_family/tiny", "data=markov", f"flags=[{flag}]"])
    kind = calibration_key(trial, device="cpu", threads=1, backend=None)
    assert kind == calibration_key(apply_flags(trial), device="cpu", threads=1, backend=None)
    assert kind.precision == apply_flags(trial).training.precision


def test_a_run_on_a_gpu_is_filed_where_the_plan_looks_whatever_the_threads() -> None:
    trial = load_trial(["model=decoder/gpt2_family/tiny", "data=markov"])
    planned, measured = (calibration_key(trial, device="NVIDIA H200", threads=n, backend=None) for n in (4, 16))
    assert planned == measured
    assert planned.threads == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_float32_on_a_gpu_plans_for_repeated_keys_and_values_of_grouped_heads(checkpointing: bool) -> None:
    llama = with_model(family="llama", d_ff=24, n_heads=4, n_kv_heads=2)

    def costs(device: str, precision: str) -> tuple[int, int]:  # FLOPs per sequence, bytes saved per step
        trial = with_training(llama, device=device, precision=precision, activation_checkpointing=checkpointing)
        (stage,) = stage_plan(trial).stages
        flops = stage_flops(trial, stage, vocab_size=256)
        memory = stage_bytes(trial, stage, vocab_size=256)  # with checkpointing, recomputation has to save the same
        return flops.forward_per_sequence + flops.backward_per_sequence, memory.saved_activations

    assert costs("cuda", "float32")[0] == costs("cpu", "float32")[0]
    more = costs("cuda", "float32")[1] - costs("cpu", "float32")[1]
    assert (more == 0) if checkpointing else (more > 0)  # checkpoints keep what goes into a block
    assert costs("cuda", "bf16") == costs("cpu", "bf16")


def test_arms_that_differ_in_their_masks_alone_are_counted_once() -> None:
    def misses(**changes: Any) -> int:
        trial = training(regime="depth_time", **changes)
        before = _stage_flops.cache_info().misses
        stage_flops(trial, stage_plan(trial).stages[1], vocab_size=37)
        return _stage_flops.cache_info().misses - before

    assert [misses(), misses(noise=Noise(kind="cumulative"), evaluations=1, lr=1e-4)] == [1, 0]
    assert misses(embeddings="untied_all") == 1


def caption_of(*rows: PlanRow) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(SweepPlan(name="s", rows=rows, slots=2)))
    return console.file.getvalue()


def test_a_plan_names_the_arms_that_nothing_measured_predicts_and_gives_the_hours_of_the_rest() -> None:
    cell = PlanRow(
        arm="a", role="replicate", trials=3, budget={"steps": 8}, params=9, flops=10, seconds=3600.0, peak_bytes=1e6
    )
    other = replace(cell, arm="b", seconds=None)
    tuning = replace(cell, arm="b", role="tuning", seconds=None, peak_bytes=None)
    refused = replace(other, arm="c", refused="too large", peak_bytes=None)

    assert "calibrated" not in caption_of(cell, replace(cell, arm="b"), refused)
    assert f"about {format_seconds(10800.0)}\n" in caption_of(cell, replace(cell, arm="b")).replace(" \n", "\n")

    text = caption_of(cell, other, refused)
    assert f"about {format_seconds(5400.0)} without b\n" in text
    assert "time of b: not calibrated" in text

    text = caption_of(cell, other, tuning)
    assert f"about {format_seconds(5400.0)} without b, b (tuning)" in text
    assert "time of b, b (tuning): not calibrated" in text
    assert "peak of b (tuning): not calibrated" in text

    text = caption_of(replace(other, peak_bytes=None), tuning)
    assert "time and peak: not calibrated" in text
    assert "about" not in text


def test_a_budget_of_time_leaves_the_flops_of_a_plan_open() -> None:
    timed = PlanRow(arm="a", role="replicate", trials=1, budget={"wall_seconds": 5})
    counted = replace(timed, arm="b", trials=2, flops=10)
    assert "1 trial, training FLOPs open (a budget of time), 2 at once" in caption_of(timed)
    assert "3 trials, 20 training FLOPs without a (a budget of time)" in caption_of(timed, counted)
    assert SweepPlan(name="s", rows=(timed, counted), slots=2).to_dict()["totals"]["flops"] is None


def test_a_plan_advises_against_whole_splits_only_where_they_are_scored() -> None:
    row = PlanRow(arm="a", role="replicate", trials=1, budget={"steps": 8}, flops=10, flops_evaluation=20)
    assert "try fewer training.evaluations" in caption_of(row)
    assert "try data.final_evaluation=fixed, fewer" in caption_of(replace(row, whole_splits=True))


def test_a_plan_that_is_refused_as_a_whole_is_its_reasons_alone() -> None:
    refused = PlanRow(arm="a", role="replicate", trials=1, budget={"steps": 8}, refused="too large")
    assert caption_of(refused).strip() == "refused: a: too large"
