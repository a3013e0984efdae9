"""The micro-batch that fits into a limit of memory: the largest one, in plan and run alike, or a refusal in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.planning.micro_batch import within_memory
from stackwise_ray.planning.trial_plan import TrialPlan, plan_trial
from tests.small_trials import run, with_model, with_training

pytestmark = pytest.mark.usefixtures("module_cache")

GROWING = with_training(with_model(family="bert", role="encoder"), regime="depth_time")


def plan(trial: TrialConfig) -> TrialPlan:
    data = prepare(trial.data)
    return plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)


def chosen(trial: TrialConfig) -> int:
    data = prepare(trial.data)
    return within_memory(trial, vocab_size=data.vocab_size, special_ids=data.special_ids).training.accumulation


@pytest.mark.parametrize(
    "trial",
    [pytest.param(with_training(), id="one stage"), pytest.param(GROWING, id="growing", marks=pytest.mark.slow)],
)
def test_the_fewest_micro_batches_that_fit_are_chosen_and_the_run_keeps_to_them(trial: TrialConfig, tmp_path: Path):
    peaks = {parts: plan(with_training(trial, accumulation=parts)).live_peak_bytes for parts in (1, 2, 3)}
    assert peaks[1] > peaks[2] > peaks[3]
    assert [chosen(with_training(trial, memory_bytes=peaks[parts])) for parts in peaks] == list(peaks)
    assert chosen(with_training(trial, memory_bytes=peaks[2] - 1)) == 3
    limited = with_training(trial, memory_bytes=peaks[3])
    metrics = run(limited, tmp_path)[1].metrics
    assert metrics["memory/peak_bytes"] == plan(limited).live_peak_bytes == peaks[3]
    assert "more than training.memory_bytes" not in (tmp_path / "logs" / "train.log").read_text()


@pytest.mark.slow
def test_what_saves_memory_buys_a_larger_micro_batch():
    deep = with_model(n_layers=4)
    limit = plan(with_training(deep, accumulation=4)).live_peak_bytes
    assert chosen(with_training(deep, memory_bytes=limit)) == 4
    assert chosen(with_training(deep, memory_bytes=limit, activation_checkpointing=True)) < 4


def test_where_one_sequence_does_not_fit_the_message_gives_what_it_needs():
    needed = plan(with_training(accumulation=8)).live_peak_bytes
    with pytest.raises(ConfigError, match=rf"training\.memory_bytes = {needed - 1} .* is less than the {needed} "):
        plan(with_training(memory_bytes=needed - 1))
    assert chosen(with_training(memory_bytes=needed)) == 8
