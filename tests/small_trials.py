"""A trial that trains within a second, its variants, and how a test runs one to its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.trial import (
    Budget,
    ModelConfig,
    TrialConfig,
    data_config,
    replace_data,
    replace_training,
    training_config,
)
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.core.registries import REGIMES
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.planning.counted_costs import stage_flops
from stackwise_ray.planning.modelled_flops import modelled_flops
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.trial_folder import TrialResult

TRIAL = TrialConfig(
    model=ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=16, n_heads=2, d_ff=32),
    data=data_config(
        corpus="markov",
        seq_len=16,
        validation_tokens=256,
        markov=MarkovSource(order=1, n_symbols=4, n_tokens=4000),
        final_evaluation="fixed",
    ),
    training=training_config(
        budget=Budget(steps=6),
        batch_tokens=128,
        evaluations=2,
        report_seconds=0.0,
        checkpoint_seconds=1e9,
        device="cpu",
    ),
)
"""Six steps of two GPT-2 blocks on a generated source; it reports every step and writes no checkpoint."""


def with_model(trial: TrialConfig = TRIAL, **changes: Any) -> TrialConfig:
    return replace(trial, model=replace(trial.model, **changes))


def with_data(trial: TrialConfig = TRIAL, **changes: Any) -> TrialConfig:
    return replace(trial, data=replace_data(trial.data, **changes))


def with_training(trial: TrialConfig = TRIAL, **changes: Any) -> TrialConfig:
    return replace(trial, training=replace_training(trial.training, **changes))


GROWING = tuple(
    name
    for name in REGIMES.names()
    if any(stage.inserted for stage in stage_plan(with_training(with_model(n_layers=3), regime=name)).stages)
)
"""Regimes that put blocks in as the identity, stage by stage."""


def run(
    trial: TrialConfig, directory: Path, attempt: int = 1, **options: Any
) -> tuple[list[MetricRecord], TrialResult]:
    """All that an attempt reports, and its result; unless asked for, the model is not kept, and nothing is measured for
    later plans (a measurement plans every stage)."""
    records = []
    generator = run_trial(
        trial, directory, trial_id="t", attempt=attempt, **{"keep_model": False, "calibrate": False} | options
    )
    while True:
        try:
            records.append(next(generator))
        except StopIteration as end:
            return records, end.value


def step_losses(records: list[MetricRecord]) -> dict[int, float]:
    """The reported training losses by step, without the final record's mean."""
    return {
        r.step: r.metrics["train/loss"] for r in records if "train/loss" in r.metrics and "flops/total" not in r.metrics
    }


def check_cost_model(trial: TrialConfig) -> None:
    """Every stage costs what the formulas say, within the three per cent that they promise."""
    for stage in stage_plan(trial).stages:
        counted = stage_flops(trial, stage, vocab_size=50)
        modelled = modelled_flops(trial, stage, vocab_size=50)
        assert counted.forward_per_sequence + counted.backward_per_sequence == pytest.approx(modelled, rel=0.03)
