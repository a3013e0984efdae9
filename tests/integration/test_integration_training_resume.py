"""A trial that is killed (kill -9, a real process, at any step) and continued equals one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stackwise_ray.config.trial import Budget, Schedule, TrialConfig
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.training.growth_options import Lora
from tests import warm_processes
from tests.small_trials import with_data, with_model, with_training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_cache")]

DECODER = with_training(
    replace(with_data(final_evaluation=None), seed=3),
    budget=Budget(tokens=12 * 128 + 48),  # 12 full steps and a short one
    evaluations=4,
    checkpoint_seconds=0.0,
    schedule=Schedule(warmup=0.4),
)

CASES = {
    "a decoder": DECODER,
    "dropout and micro-batches": with_training(with_model(DECODER, dropout=0.3), accumulation=3),
    "a masked encoder with dropout": with_model(DECODER, family="bert", role="encoder", dropout=0.2),
    "recomputed activations with dropout": with_training(
        with_model(DECODER, dropout=0.3), activation_checkpointing=True
    ),
    "fp16 with a loss scale": with_training(DECODER, precision="fp16"),
    "a post-norm encoder that grows, with dropout": with_training(
        with_model(DECODER, family="bert", role="encoder", dropout=0.2), regime="depth_time", budget=Budget(steps=13)
    ),
    "an encoder drawn to the next stack's input": with_training(
        with_model(DECODER, family="modernbert", role="encoder", d_ff=24, dropout=0.2),
        regime="depth_time",
        consistency=0.5,
        accumulation=3,
        budget=Budget(steps=13),
    ),
    "stabilisers": with_training(
        DECODER, regime="depth_time", spectral_norm=True, residual_gain=0.5, lr=0.03, budget=Budget(steps=13)
    ),
    "adapters on a trunk, with a finish": with_training(
        with_model(DECODER, family="bert", role="encoder"),
        regime="depth_time",
        trunk="lora",
        finish=0.3,
        lora=Lora(rank=4, dual=1),
        budget=Budget(steps=13),
    ),
    "an encoder on a cached prefix": with_training(
        with_data(
            with_model(DECODER, family="bert", role="encoder"),
            markov=MarkovSource(order=1, n_symbols=4, n_tokens=400),
        ),
        regime="append",
        cache=True,
        budget=Budget(steps=13),
    ),
    "a decoder that is told the time": with_training(DECODER, regime="append", time="input"),
    "a decoder that grows over a random trunk": with_training(DECODER, regime="depth_time", trunk="random_frozen"),
}

VARIES = ("time/", "throughput/", "memory/")
"""Metrics that measure the machine, not the training (memory: of the steps that this attempt happened to take)."""


def train_in_process(trial: TrialConfig, directory: Path, attempt: int, pipe: Connection) -> None:
    import torch

    from stackwise_ray.running.run import run_trial

    torch.set_num_threads(1)
    (directory / "attempt").write_text(str(attempt))
    for record in run_trial(trial, directory, trial_id="t", attempt=attempt):
        pipe.send((record.step, record.tokens, record.flops, dict(record.metrics)))
    pipe.send(None)


def attempt(trial: TrialConfig, directory: Path, number: int, kill_after: int | None) -> list:
    """Records of one attempt; where `kill_after` is given, its process is killed some time after that step."""
    directory.mkdir(exist_ok=True)
    ours, theirs = Pipe(duplex=False)
    process = warm_processes.process(train_in_process, trial, directory, number, theirs)
    process.start()
    theirs.close()
    records = []
    try:
        while (record := ours.recv()) is not None:
            records.append(record)
            if kill_after is not None and record[0] >= kill_after:
                time.sleep(random.uniform(0, 0.03))  # somewhere in the steps, writes and evaluations that follow
                os.kill(process.pid, 9)
                break
    except EOFError:
        raise AssertionError(f"attempt {number} ended by itself after {records[-1:]}") from None
    process.join(timeout=60)
    assert process.exitcode == (0 if kill_after is None else -9)
    return records


def lasting(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(VARIES)}


WITHIN_OTHERS = ("a decoder", "a masked encoder with dropout")
"""Cases of which others have all parts."""
CELLS = [
    pytest.param(trial, id=name, marks=pytest.mark.exhaustive if name in WITHIN_OTHERS else ())
    for name, trial in CASES.items()
]


@pytest.mark.parametrize("trial", CELLS)
def test_a_trial_killed_at_several_steps_equals_the_uninterrupted_one_bit_for_bit(trial, tmp_path):
    whole = attempt(trial, tmp_path / "whole", 1, None)
    pieces = []
    for number, kill_after in enumerate((4, 9, None), start=1):
        pieces.append(attempt(trial, tmp_path / "pieces", number, kill_after))
    log = (tmp_path / "pieces" / "logs" / "train.log").read_text()
    assert log.count("continues after step") >= 2

    expected = {step: (tokens, flops, lasting(metrics)) for step, tokens, flops, metrics in whole if metrics}
    seen = set()
    for records in pieces:
        for step, tokens, flops, metrics in records:
            tokens_then, flops_then, metrics_then = expected[step]
            assert (tokens, flops) == (tokens_then, flops_then)
            if "train/loss" in metrics and "flops/total" not in metrics and "validation/loss" not in metrics:
                assert metrics["train/lr"] == metrics_then["train/lr"]
                seen.add(step)
    assert len(seen) >= 6

    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "pieces")]
    assert weights[0] == weights[1]
    results = [json.loads((tmp_path / name / "outputs" / "metrics.json").read_text()) for name in ("whole", "pieces")]
    assert lasting(results[0]) == lasting(results[1])
    assert json.loads((tmp_path / "pieces" / "metadata" / "environment.json").read_text())["bit_exact"] is True


def test_the_losses_of_every_step_are_those_of_the_uninterrupted_run(tmp_path):
    """With one evaluation, at the end, each record holds one step's loss."""
    trial = with_training(with_model(DECODER, dropout=0.3), evaluations=1)
    whole = {step: metrics["train/loss"] for step, _, _, metrics in attempt(trial, tmp_path / "a", 1, None)[:-2]}
    assert len(whole) == 13
    for number, kill_after in enumerate((1, 8, None), start=1):
        for step, _, _, metrics in attempt(trial, tmp_path / "b", number, kill_after):
            if step in whole and "validation/loss" not in metrics:
                assert metrics["train/loss"] == whole[step]


def test_a_budget_of_time_goes_on_with_the_time_that_is_left(tmp_path):
    trial = with_training(DECODER, budget=Budget(wall_seconds=1.5), evaluations=2)
    attempt(trial, tmp_path / "t", 1, 20)
    attempt(trial, tmp_path / "t", 2, None)
    metrics = json.loads((tmp_path / "t" / "outputs" / "metrics.json").read_text())
    assert 1.5 <= metrics["time/train_s"] < 2.0
    assert metrics["progress"] == 1.0


def test_a_growing_trial_killed_at_random_steps_of_all_stages_keeps_its_weights_to_the_bit(tmp_path, pytestconfig):
    """``--kills 20`` is the long form."""
    trial = with_training(with_model(DECODER, n_layers=3), regime="depth_time", budget=Budget(steps=60), evaluations=3)
    attempt(trial, tmp_path / "whole", 1, None)
    kills, rng = pytestconfig.getoption("--kills"), random.Random(11)
    steps = sorted(rng.sample(range(1, 58), kills))
    for number, kill_after in enumerate([*steps, None], start=1):
        attempt(trial, tmp_path / "pieces", number, kill_after)
    folders = [tmp_path / name for name in ("whole", "pieces")]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    stages = [json.loads((folder / "outputs" / "metrics.json").read_text())["stages"] for folder in folders]
    assert stages[0] == stages[1]
