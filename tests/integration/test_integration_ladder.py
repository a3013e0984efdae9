"""A real ladder of sizes and tokens that ends in its law."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.sweep_processes import BASE, SweepProcess, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LADDER = f"""{BASE}
    data.final_evaluation: fixed
    model.d_ff: 32
name: ladder
question: How does the loss fall with parameters and tokens?
design:
  kind: ladder
  tokens_per_parameter: [2, 4, 8]
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


def test_a_ladder_ends_in_a_law_with_its_certificate_and_tokens_in_proportion(tmp_path: Path) -> None:
    file = tmp_path / "ladder.yaml"
    file.write_text(LADDER)
    sweep = SweepProcess(file, tmp_path, "--max-concurrent", "1")
    assert sweep.wait(400) == 0, sweep.text()
    for trial in trials(tmp_path / "ladder"):
        ratio = float(trial.arm.rpartition("=")[2])
        wanted = ratio * trial.metrics["model/params_non_embedding"]
        assert trial.metrics["tokens/total"] == pytest.approx(wanted, rel=0.01)
    report = (tmp_path / "ladder/report/report.md").read_text()
    assert "## Scaling laws" in report
    assert "loss = A / flops^alpha" in report
    assert "certificate: holds" in report or "certificate: DOES NOT HOLD" in report
    assert "certificate" in sweep.text()
