"""A real sweep that adds seeds until it has decided, killed on the way; and a real ladder that ends in its law."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.sweep_processes import BASE, SweepProcess, results, results_alone, trials, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ADAPTIVE = f"""{BASE}
    training.budget: {{steps: 25}}
    data.final_evaluation: fixed
name: adaptive
question: Which learning rate is better?
design:
  kind: arms
  arms:
    base: {{}}
    slow: {{training.lr: 1.0e-4}}
    near: {{training.lr: 1.1e-2}}
  baseline: base
replicates: {{seeds: {{min: 3, max: 6, until: decided}}}}
tracking: {{keep_models: none}}
analysis:
  - compare: {{metric: validation/loss}}
"""
LADDER = f"""{BASE}
    data.final_evaluation: fixed
    model.d_ff: 32
name: ladder
question: How does the loss fall with parameters and tokens?
design:
  kind: ladder
  tokens_per_parameter: [4, 8, 16]
  sizes:
    d8: {{model.d_model: 8, model.n_heads: 2}}
    d12: {{model.d_model: 12, model.n_heads: 2}}
    d16: {{model.d_model: 16, model.n_heads: 2}}
    d24: {{model.d_model: 24, model.n_heads: 2}}
replicates: {{seeds: 1}}
tracking: {{keep_models: none}}
analysis:
  - scaling_law: {{law: power}}
"""


def test_a_killed_adaptive_sweep_goes_on_until_it_has_decided_on_the_numbers_of_uninterrupted_trials(
    tmp_path: Path,
) -> None:
    file = tmp_path / "adaptive.yaml"
    file.write_text(ADAPTIVE)
    killed = SweepProcess(file, tmp_path)
    done = tmp_path / "adaptive"
    wait_until(lambda: sum(trial.status == "finished" for trial in trials(done)) >= 7, killed)
    killed.kill()
    again = SweepProcess(file, tmp_path)
    assert again.wait() == 0, again.text()

    found, alone = results(done), results_alone(file, tmp_path / "alone")
    assert found == {key: alone[key] for key in found}
    n = {arm: sum(name == arm for name, _ in found) for arm in ("base", "slow", "near")}
    assert n["slow"] == 4  # seeds_possible at 0.05 / 2: a tenth of the learning rate is seen at once
    assert n["base"] == max(n["slow"], n["near"])
    assert "slow is worse (" in again.text()
    assert "decided at n = 4 of 4, with seed 3)" in " ".join(again.text().split())
    plan = json.loads((done / "plan.json").read_text())
    assert plan["seeds_possible"] == 4
    assert (plan["totals_least"]["trials"], plan["totals"]["trials"]) == (12, 18)


def test_a_ladder_ends_in_a_law_with_its_certificate_and_tokens_in_proportion(tmp_path: Path) -> None:
    file = tmp_path / "ladder.yaml"
    file.write_text(LADDER)
    sweep = SweepProcess(file, tmp_path)
    assert sweep.wait(400) == 0, sweep.text()
    for trial in trials(tmp_path / "ladder"):
        ratio = float(trial.arm.rpartition("=")[2])
        wanted = ratio * trial.metrics["model/params_non_embedding"]
        assert trial.metrics["tokens/total"] == pytest.approx(wanted, rel=0.01)
    report = (tmp_path / "ladder/report/report.md").read_text()
    assert "## Scaling laws" in report
    assert "loss = A / flops^alpha on 12 runs" in report
    assert "certificate: holds" in report or "certificate: DOES NOT HOLD" in report
    assert "certificate" in sweep.text()
