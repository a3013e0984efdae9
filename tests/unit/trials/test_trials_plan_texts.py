"""Whole plans, word by word and number by number: of every regime, of designs, searches and seeds that decide."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import stackwise_ray as sw
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.calibration_store import CPU, Calibration, Sample
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.planning.plan_display import plan_table, stages_text
from tests.golden import Golden
from tests.unit.trials.test_trials_proposals import SEARCH, TUNE, sweep

BASE = """
base:
  model: decoder/gpt2_family/tiny
  data: markov
  overrides: {model.n_layers: 2, model.d_model: 16, model.n_heads: 2, model.d_ff: 32, data.markov.n_tokens: 20000,
    data.seq_len: 32, data.validation_tokens: 512, training.batch_tokens: 256, training.budget: {flops: 2.0e+9}}
"""
REGIMES = f"""{BASE}
name: regimes
design:
  kind: arms
  baseline: classical
  arms:
    classical: {{}}
    micro_batches: {{training.accumulation: 2, training.activation_checkpointing: true}}
    depth_time: {{training: depth_time}}
    cached: {{training: append, training.cache: true, training.stage_split: uniform}}
    adapters: {{training: depth_time, training.trunk: lora}}
    hybrid: {{training: hybrid, training.pretraining_share: 0.4}}
    exits: {{flags: [early_exit]}}
    too_little: {{training.budget: {{flops: 1.0e+3}}}}
replicates: {{seeds: 3}}
"""
MODELS = f"""{BASE.replace("model.n_heads: 2, ", "")}
name: models
design:
  kind: arms
  baseline: gpt2
  arms:
    gpt2: {{}}
    llama: {{model.family: llama, model.n_kv_heads: 1}}
    bf16: {{training.precision: bf16}}
    bk: {{model: decoder/bk_family/tiny}}
replicates: {{seeds: {{min: 3, max: 8, until: decided}}}}
analysis: [{{compare: {{metric: validation/loss, margin: 0.05}}}}]
"""
LADDER = f"""{BASE.replace("training.budget: {flops: 2.0e+9}", "training.evaluations: 2")}
name: ladder
design:
  kind: isoflop
  flops: [1.0e+9, 4.0e+9]
  sizes: {{d16: {{model.d_model: 16}}, d32: {{model.d_model: 32}}, d64: {{model.d_model: 64}}}}
"""
TUNED = REGIMES.split("    cached")[0].replace("name: regimes", "name: tuned") + "replicates: {seeds: 2}\n" + TUNE
PLANS = {"regimes": REGIMES, "models": MODELS, "ladder": LADDER, "search": SEARCH, "tuned": TUNED}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calibration:
    """Two processors that were measured, no GPU, and the resolvent in torch: wherever the test runs."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STACKWISE_GPUS", "0")
    monkeypatch.setenv("STACKWISE_BK_BACKEND", "torch")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("stackwise_ray.planning.demand.usable_cores", lambda: 2)
    known = Calibration()
    known.add_start(20.0)
    return known


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_as_on_file(name: str, machine: Calibration, golden: Golden, tmp_path: Path) -> None:
    asked = sweep(tmp_path, PLANS[name])
    design = expand(asked)
    for arm in design.arms[:-1]:  # the last one's speed is not known
        key = calibration_key(arm.trial, device=CPU, threads=1, backend=None)
        machine.add(
            key, Sample(flops_per_step=1e8, flops_per_s=1e9, startup_s=2.0, baseline_bytes=4e8, memory_ratio=1.1)
        )
    plan = sw.plan(asked)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(plan_table(plan))
    stages = [f"{row.name}\n{stages_text(row)}" for row in plan.accepted if len(row.stages) > 1]
    golden.check(f"plans/{name}.text", "\n".join([console.export_text(), repr(plan), *stages, ""]))
    golden.check_json(f"plans/{name}.json", plan.to_dict())
