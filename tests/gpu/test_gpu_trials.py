"""Trials on a real CUDA device: each family classically and grown, an interruption, and a sweep of two arms."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.running.run import run_trial
from tests.small_models import MODELS
from tests.small_trials import run, step_losses, with_training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.usefixtures("module_cache"),
]

FAMILIES = {name: MODELS[name] for name in ("bert", "modernbert", "gpt2", "llama", "bk apply", "bk encoder")}

SWEEP = """
name: gpu
question: Does a sweep run on a GPU?
base:
  model: decoder/gpt2_family/tiny
  data: markov
  training: classical
  overrides:
    training.budget: {steps: 40}
    training.device: cuda
    training.precision: bf16
    training.compile: true
    training.evaluations: 2
design:
  kind: arms
  arms:
    gpt2: {}
    llama: {model: decoder/llama_family/tiny}
replicates: {seeds: 2}
resources: {cpus_per_trial: 1, gpus_per_trial: 1}
"""


def on_gpu(name: str, **training: object) -> TrialConfig:
    trial = with_training(device="cuda", **{"precision": "bf16", "budget": Budget(steps=12)} | training)
    return replace(trial, model=replace(FAMILIES[name], n_layers=3))


@pytest.mark.parametrize("regime", ["classical", "depth_time"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_trial_costs_and_learns_as_on_a_cpu(name: str, regime: str, tmp_path: Path) -> None:
    """Float32, so that losses can be compared: matrix products of a GPU round in another order."""
    trial = on_gpu(name, regime=regime, precision="float32")
    records, result = run(trial, tmp_path / "gpu")
    on_cpu, expected = run(with_training(trial, device="cpu"), tmp_path / "cpu")
    assert result.metrics["flops/total"] == expected.metrics["flops/total"]
    assert step_losses(records) == pytest.approx(step_losses(on_cpu), rel=1e-3)
    assert result.metrics["memory/peak_bytes"] > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_learns_what_float32_learns(name: str, tmp_path: Path) -> None:
    _, half = run(on_gpu(name), tmp_path / "bf16")
    _, whole = run(on_gpu(name, precision="float32"), tmp_path / "float32")
    assert half.metrics["validation/loss"] == pytest.approx(whole.metrics["validation/loss"], rel=0.02)


def test_fp16_of_a_loss_scale_that_overflows_goes_on(tmp_path: Path) -> None:
    _, result = run(on_gpu("gpt2", precision="fp16"), tmp_path)
    assert result.metrics["steps/total"] == 12


def test_an_interrupted_trial_ends_with_the_same_losses(tmp_path: Path) -> None:
    trial = on_gpu("gpt2", precision="float32")
    _, whole = run(trial, tmp_path / "whole")
    generator = run_trial(trial, tmp_path / "cut", trial_id="t", attempt=1, keep_model=False)
    while next(generator).step < 5:
        pass
    with pytest.raises(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt())
    _, rest = run(trial, tmp_path / "cut", attempt=2)
    assert rest.metrics["validation/loss"] == pytest.approx(whole.metrics["validation/loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_of_two_arms_in_bf16_compiled(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(SWEEP)
    words = [sys.executable, "-m", "stackwise_ray.sweep", str(tmp_path / "gpu.yaml"), "--output", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    written = list((tmp_path / "out").rglob("outputs/metrics.json"))
    assert len(written) == 4
    for path in written:
        environment = json.loads((path.parents[1] / "metadata" / "environment.json").read_text())
        assert environment["device"] == torch.cuda.get_device_name()
