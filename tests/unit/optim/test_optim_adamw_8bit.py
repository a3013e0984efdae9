"""AdamW in 8 bits: refused where bitsandbytes is missing; where it is there, planned, updated and continued exactly."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stackwise_ray.config.trial import OptimizerConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.optim import adamw_8bit, build_optimizer
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.running.run import run_trial
from tests.small_trials import run, with_model, with_training

EIGHT_BITS = OptimizerConfig(kind="adamw_8bit")
TRIAL = replace(with_model(with_training(checkpoint_seconds=0.0), d_model=64, d_ff=128), optimizer=EIGHT_BITS)


def test_without_bitsandbytes_it_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    adamw_8bit._rule.cache_clear()
    with pytest.raises(
        ConfigError, match=r"optimizer\.kind = adamw_8bit needs bitsandbytes.*pip install -e .*\[adam8bit\]"
    ):
        build_optimizer(nn.Linear(2, 2), EIGHT_BITS, lr=0.1)
    with pytest.raises(ConfigError, match="needs bitsandbytes"):
        plan_trial(TRIAL, vocab_size=7)
    adamw_8bit._rule.cache_clear()


class TestInstalled:
    @pytest.fixture(autouse=True)
    def _installed(self, module_cache):
        pytest.importorskip("bitsandbytes")

    def test_the_first_update_is_that_of_adamw_to_the_width_of_a_bucket(self):
        models = [nn.Linear(64, 128, bias=False) for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        before = models[0].weight.detach().clone()
        gradient = torch.randn(128, 64, generator=torch.Generator().manual_seed(0))
        for model, config in zip(models, (EIGHT_BITS, OptimizerConfig()), strict=True):
            optimizer = build_optimizer(model, config, lr=0.01)
            model.weight.grad = gradient.clone()
            optimizer.step()
        expected = models[1].weight - before
        torch.testing.assert_close(models[0].weight - before, expected, rtol=0, atol=1e-6)

    def test_its_memory_is_planned_to_the_byte_and_a_quarter_of_that_of_adamw(self, tmp_path: Path):
        data = prepare(TRIAL.data)
        plan, wide = (
            plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)
            for trial in (TRIAL, replace(TRIAL, optimizer=OptimizerConfig()))
        )
        _, result = run(TRIAL, tmp_path)
        assert result.metrics["memory/peak_bytes"] == plan.live_peak_bytes
        state, full = ((p.disk_bytes - 4 * p.model_bytes) / 3 for p in (plan, wide))
        assert full == pytest.approx(2 * wide.model_bytes, rel=1e-3)
        assert 0.25 * full < state < 0.35 * full  # vectors and small matrices stay as they are

    def test_a_continued_run_equals_the_uninterrupted_one_bit_for_bit(self, tmp_path: Path):
        run(TRIAL, tmp_path / "whole", keep_model=True)
        attempt = run_trial(TRIAL, tmp_path / "pieces", trial_id="t", attempt=1)
        while next(attempt).step < 4:
            pass
        attempt.close()
        run(TRIAL, tmp_path / "pieces", attempt=2, keep_model=True)
        assert "continues after step" in (tmp_path / "pieces" / "logs" / "train.log").read_text()
        whole, pieces = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "pieces"))
        assert all(torch.equal(pieces[name], whole[name]) for name in whole)
