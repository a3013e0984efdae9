"""The loop on a real model of two blocks: losses, budgets, records, failures, workers, precision."""

from __future__ import annotations

import itertools
import json
import math
import time
import weakref
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from stackwise_ray.config.trial import (
    Budget,
    ExpertsChannelMixer,
    ModelConfig,
    NoMixer,
    Schedule,
    TrialConfig,
)
from stackwise_ray.core.calibration_store import Calibration
from stackwise_ray.core.errors import ConfigError, TrialError
from stackwise_ray.data import TrainingOrder, gather, prepare
from stackwise_ray.optim import build_optimizer, learning_rate
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.objectives import next_token
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.pending import PendingSteps
from stackwise_ray.training.step import TrainingStep
from tests.own_cache import own_cache
from tests.small_trials import TRIAL, run, step_losses, with_data, with_model, with_training

pytestmark = pytest.mark.usefixtures("module_cache")


@pytest.fixture(scope="module")
def plain(module_cache, tmp_path_factory):
    """What the trial reports as it is, and its result."""
    return run(TRIAL, tmp_path_factory.mktemp("plain"))


def test_the_loop_computes_what_a_loop_written_out_by_hand_computes(plain):
    """Same init, same data, mean cross-entropy, clipping, AdamW, schedule: losses to 1e-6 relative (float32 sums)."""
    records, _ = plain
    data = prepare(TRIAL.data)
    assembly = assemble(TRIAL, data, torch.device("cpu"))
    model = assembly.model
    optimizer = build_optimizer(model, TRIAL.optimizer, TRIAL.training.lr)
    order = TrainingOrder(data.splits["train"].n_tokens, 16, TRIAL.seed)
    for step in range(6):
        inputs, targets = map(torch.from_numpy, gather(data.splits["train"].tokens, order.windows(8 * step, 8), 16))
        loss = functional.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), targets.flatten())
        assert step_losses(records)[step + 1] == pytest.approx(loss.item(), rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 6, TRIAL.training.lr, TRIAL.training.schedule)
        optimizer.step()


@pytest.mark.parametrize("accumulation", [2, 3, 8])
def test_micro_batches_change_no_loss(tmp_path, plain, accumulation):
    whole, _ = plain
    parts, _ = run(with_training(accumulation=accumulation), tmp_path)
    assert step_losses(parts) == pytest.approx(step_losses(whole), rel=1e-5)


def test_micro_batches_of_an_encoder_share_one_denominator(tmp_path):
    """Masked positions differ between micro-batches: a mean of means would be off by per cents."""
    encoder = with_model(family="bert", role="encoder")
    whole, _ = run(encoder, tmp_path / "a")
    parts, _ = run(with_training(encoder, accumulation=8), tmp_path / "b")
    assert step_losses(parts) == pytest.approx(step_losses(whole), rel=1e-5)


def test_a_step_of_one_short_sequence_has_a_loss_at_the_lightest_masks(tmp_path):
    """The last step of a budget of tokens may hold one sequence: at 1 % of 16 tokens few would have a masked one."""
    light = with_training(with_model(family="bert", role="encoder"), mask_ratio=0.01, batch_tokens=16)
    records, result = run(light, tmp_path)
    assert (result.metrics["steps/total"], len(step_losses(records))) == (6, 6)
    assert all(math.isfinite(loss) and loss > 0 for loss in step_losses(records).values())


def experts(load_balance: float, **training) -> TrialConfig:
    channel_mixer = ExpertsChannelMixer(load_balance=load_balance)
    model = ModelConfig(
        family="bk", role="decoder", n_layers=1, d_model=16, d_ff=16, mixer=NoMixer(), channel_mixer=channel_mixer
    )
    return replace(with_training(**training), model=model)


def test_the_load_balance_of_experts_is_trained_on_and_not_reported(tmp_path):
    """A loop by hand on loss + 0.5 · balance; what is reported is the loss."""
    trial = experts(0.5)
    records, _ = run(trial, tmp_path)
    data = prepare(trial.data)
    model = assemble(trial, data, torch.device("cpu")).model
    optimizer = build_optimizer(model, trial.optimizer, trial.training.lr)
    order = TrainingOrder(data.splits["train"].n_tokens, 16, trial.seed)
    for step in range(6):
        inputs, targets = map(torch.from_numpy, gather(data.splits["train"].tokens, order.windows(8 * step, 8), 16))
        output = model(input_ids=inputs)
        loss = functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
        assert step_losses(records)[step + 1] == pytest.approx(loss.item(), rel=1e-6)
        optimizer.zero_grad()
        (loss + 0.5 * output.aux_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 6, trial.training.lr, trial.training.schedule)
        optimizer.step()
    without, _ = run(experts(0.0), tmp_path / "without")
    assert step_losses(without)[6] != pytest.approx(step_losses(records)[6], rel=1e-6)


def test_micro_batches_change_no_load_balance(tmp_path):
    """Weighty enough that a balance counted once a micro-batch, or over each of them, would show."""
    whole, _ = run(experts(5.0), tmp_path / "whole")
    for accumulation in (3, 8):
        parts, _ = run(experts(5.0, accumulation=accumulation), tmp_path / str(accumulation))
        assert step_losses(parts) == pytest.approx(step_losses(whole), rel=1e-5)


def test_a_trial_leaves_its_tree_and_every_metric(tmp_path):
    records, result = run(with_data(final_evaluation=None), tmp_path, keep_model=True)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml",
        "logs/train.log",
        "metadata/data.json",
        "metadata/environment.json",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "outputs/evaluation_report.md",
        "outputs/metrics.json",
    }
    assert not (tmp_path / "checkpoints").exists()
    assert not [name for name in files if "tmp" in name]
    stored = json.loads((tmp_path / "outputs" / "metrics.json").read_text())
    (stage,) = stored.pop("stages")
    assert stored.pop("trial_id") == "t"
    assert stored == result.metrics == records[-1].metrics
    assert set(stored) >= {
        "train/loss",
        "train/lr",
        "train/grad_norm",
        "validation/loss",
        "validation/perplexity",
        "validation/oracle_loss",
        "validation/entropy_rate",
        "validation/perplexity_token",
        "test/loss",
        "test/perplexity_token",
        "test/perplexity_word",
        "test/perplexity_byte",
        "flops/forward",
        "flops/backward",
        "flops/optimizer",
        "flops/step",
        "flops/total",
        "flops/evaluation",
        "flops/recomputed",
        "tokens/total",
        "memory/peak_bytes",
        "memory/process_peak_bytes",
        "memory/saved_activation_bytes",
        "throughput/tokens_per_s",
        "model/params",
        "model/params_non_embedding",
        "model/bytes",
        "time/build_s",
        "time/train_s",
        "time/evaluation_s",
        "time/checkpoint_s",
        "time/total_s",
        "progress",
    }
    assert all(math.isfinite(value) for value in stored.values())
    assert stage["name"] == "classical"
    assert stage["active_blocks"] == [0, 1]
    assert stage["tokens"] == stored["tokens/total"] == 6 * 128
    assert stage["flops_counted"] == stage["flops_modelled"] == 6 * (stored["flops/forward"] + stored["flops/backward"])
    assert stage["trainable_params"] == stored["model/params"]
    assert stored["flops/total"] == 6 * stored["flops/step"]
    assert stored["flops/backward"] == 2 * stored["flops/forward"]


def test_reports_rise_in_steps_tokens_and_flops_and_validate_where_asked(tmp_path):
    records, result = run(with_training(evaluations=3), tmp_path)
    assert [r.step for r in records if "validation/loss" in r.metrics][:-1] == [2, 4, 6]
    for before, after in itertools.pairwise(records):
        assert (before.step, before.tokens, before.flops) <= (after.step, after.tokens, after.flops)
    assert records[-1].flops == result.metrics["flops/total"]
    assert [r.metrics["progress"] for r in records[:3]] == pytest.approx([1 / 6, 2 / 6, 2 / 6])


def test_the_final_train_loss_is_the_mean_since_the_last_validation_but_one(plain):
    records, result = plain
    losses = step_losses([r for r in records if "validation/loss" not in r.metrics])
    assert result.metrics["train/loss"] == pytest.approx(sum(losses[step] for step in (4, 5, 6)) / 3, rel=1e-12)


def test_the_root_seed_decides_everything(tmp_path, plain):
    same = [result.metrics["validation/loss"] for _, result in (plain, run(TRIAL, tmp_path / "a"))]
    other = run(replace(TRIAL, seed=1), tmp_path / "b")[1].metrics["validation/loss"]
    assert same[0] == same[1] != other


def test_dropout_changes_neither_the_init_nor_the_data(tmp_path, plain):
    dropout = with_model(dropout=0.5)
    with_it, _ = run(dropout, tmp_path)
    without, _ = plain
    first = [next(iter(step_losses(records).values())) for records in (with_it, without)]
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.2)


def test_a_loss_that_is_not_finite_fails_the_trial_with_its_numbers(tmp_path):
    wild = with_training(lr=1e30, gradient_clip=None, budget=Budget(steps=20), schedule=Schedule(warmup=0.0))
    with pytest.raises(TrialError, match=r"non-finite \w+ at step \d+: loss = .*, lr = \S+e\+29, gradient norm = "):
        run(wild, tmp_path)
    assert "failed: non-finite" in (tmp_path / "logs" / "train.log").read_text()
    assert not (tmp_path / "outputs").exists()


def test_a_model_that_sees_its_targets_fails_as_a_leak(tmp_path, monkeypatch):
    """A real leak: targets that were not shifted are the inputs themselves, which any model learns to copy."""
    monkeypatch.setattr(next_token, "gather", lambda *arguments: (gather(*arguments)[0],) * 2)
    trial = with_training(budget=Budget(steps=100), lr=1e-2, evaluations=2, report_seconds=1.0)
    with pytest.raises(TrialError, match="leak: the validation loss"):
        run(trial, tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_float32_and_keeps_master_weights(tmp_path, plain, precision):
    exact, _ = plain
    half, result = run(with_training(precision=precision), tmp_path)
    assert step_losses(half) == pytest.approx(step_losses(exact), rel=0.02)  # bf16 has 8 bits: 0.4 % a rounding
    assert step_losses(half) != step_losses(exact)
    assert result.metrics["model/bytes"] == 4 * result.metrics["model/params"]


def test_recomputed_activations_change_no_bit_and_are_reported_apart(tmp_path, plain):
    plain_records, kept = plain
    records, result = run(with_training(activation_checkpointing=True), tmp_path)
    assert step_losses(records) == step_losses(plain_records)
    assert result.metrics["memory/saved_activation_bytes"] < kept.metrics["memory/saved_activation_bytes"]
    assert result.metrics["flops/recomputed"] > kept.metrics["flops/recomputed"]
    assert result.metrics["flops/total"] == kept.metrics["flops/total"]


def test_an_overflowing_fp16_gradient_skips_the_step_and_halves_the_scale(tmp_path):
    """The scaler starts at 65,536: a loss scaled by it overflows where the gradient is large."""
    trial = with_training(precision="fp16", gradient_clip=None, budget=Budget(steps=3))
    data = prepare(trial.data)
    assembly = assemble(trial, data, torch.device("cpu"))
    tools = assembly.enter(assembly.plan.stages[0])
    assert tools.scaler is not None
    tools.scaler.load_state_dict(tools.scaler.state_dict() | {"scale": 2.0**40})
    before = [parameter.detach().clone() for parameter in tools.parameters]
    values = TrainingStep(assembly, tools, Alone()).take(step=0, first_sequence=0, n_sequences=8, lr=1e-3)
    assert values.scales is not None
    assert [float(scale) for scale in values.scales] == [2.0**40, 2.0**39]
    assert tools.scaler.get_scale() == 2.0**39
    assert all(a.equal(b) for a, b in zip(before, tools.parameters, strict=True))


def test_a_run_leaves_the_process_as_it_found_it(tmp_path):
    assert not torch.are_deterministic_algorithms_enabled()
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1)
    next(generator)
    assert torch.are_deterministic_algorithms_enabled()
    generator.close()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gradient_that_is_not_finite_fails_the_trial_though_the_loss_is(tmp_path, monkeypatch):
    take = TrainingStep.take

    def overflowing(self, **arguments):
        values = take(self, **arguments)
        return replace(values, gradient_norm=torch.tensor(math.inf)) if arguments["step"] == 2 else values

    monkeypatch.setattr(TrainingStep, "take", overflowing)
    with pytest.raises(TrialError, match="non-finite gradient at step 2"):
        run(TRIAL, tmp_path)


def test_a_step_that_costs_other_flops_than_planned_ends_a_budget_of_flops_and_is_logged_under_others(
    tmp_path, monkeypatch
):
    # The plan is counted as the run is, so that no trial that can be written gives another number.
    counted = Meter.flops_of
    monkeypatch.setattr(Meter, "flops_of", lambda self, *of: replace(counted(self, *of), forward=7))
    with pytest.raises(TrialError, match="the budget of FLOPs would not be met"):
        run(with_training(budget=Budget(flops=1e8)), tmp_path / "flops")
    run(TRIAL, tmp_path / "steps")
    assert " FLOPs and was planned with " in (tmp_path / "steps" / "logs" / "train.log").read_text()


def test_a_trial_that_is_no_replicate_scores_no_whole_split(tmp_path):
    whole = with_data(final_evaluation="full")
    _, replicate = run(whole, tmp_path / "a")
    _, tuning = run(whole, tmp_path / "b", final_evaluation=False)
    assert "test/perplexity_token" in replicate.metrics
    assert "test/perplexity_token" not in tuning.metrics


def test_a_run_stores_what_it_measured_for_later_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("STACKWISE_CACHE", str(own_cache(tmp_path / "cache")))
    assert not Calibration().path.exists()
    assert list(run_trial(TRIAL, tmp_path / "t", trial_id="t", attempt=1))
    assert Calibration().path.is_file()


def test_a_calibration_that_cannot_be_written_fails_no_trial(tmp_path, monkeypatch):
    def damaged(self, kind, size):
        raise ValueError("calibration sample: flops_per_step = -1 is no measurement")

    monkeypatch.setattr(Calibration, "measured", damaged)
    _, result = run(TRIAL, tmp_path, calibrate=True)
    assert result.metrics["progress"] == 1.0
    assert "the calibration at" in (tmp_path / "logs" / "train.log").read_text()


def test_the_logits_do_not_live_through_the_backward_pass(monkeypatch):
    """They are the largest tensor of a small model: holding on to them would be seen in every peak."""
    assembly = assemble(TRIAL, prepare(TRIAL.data), torch.device("cpu"))
    step = TrainingStep(assembly, assembly.enter(assembly.plan.stages[0]), Alone())
    forward, logits, alive = assembly.model.forward, [], []

    def watched(**arguments):
        output = forward(**arguments)
        logits.append(weakref.ref(output.logits))
        return output

    monkeypatch.setattr(assembly.model, "forward", watched)
    assembly.model.get_input_embeddings().weight.register_hook(lambda _: alive.append(logits[-1]() is not None))
    step.take(step=0, first_sequence=0, n_sequences=8, lr=1e-3)
    assert alive
    assert not any(alive)


def test_an_encoder_asked_for_the_likelihood_of_whole_splits_fails_and_does_not_skip_them(tmp_path):
    encoder = with_model(with_data(final_evaluation="full"), family="bert", role="encoder")
    with pytest.raises(TrialError, match="needs a model that reads from left to right"):
        run(encoder, tmp_path)


def test_one_worker_has_nobody_to_share_the_model_with(tmp_path):
    with pytest.raises(
        ConfigError, match=r"training\.parallel = sharded divides the model among several workers, but this"
    ):
        run(with_training(parallel="sharded"), tmp_path)


class _LateLoss(torch.Tensor):
    """A loss on a device that is still at work when its step returns: reading it, with others, waits."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.stack:
            time.sleep(0.05)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs or {})


def test_waiting_for_a_device_is_time_of_the_steps_waited_for(tmp_path, monkeypatch):
    take = TrainingStep.take

    def late(self, **options):
        values = take(self, **options)
        return replace(values, loss=values.loss.as_subclass(_LateLoss))

    monkeypatch.setattr(TrainingStep, "take", late)
    monkeypatch.setattr(PendingSteps, "full", False)  # as on a GPU, whose steps are left waiting
    trial = with_training(budget=Budget(steps=12), report_seconds=9.0, evaluations=1)
    metrics = run(trial, tmp_path)[1].metrics
    assert metrics["time/train_s"] >= 12 * 0.05
    assert metrics["throughput/tokens_per_s"] <= 128 / 0.05
