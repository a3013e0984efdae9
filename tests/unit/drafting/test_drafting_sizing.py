"""The budget of a draft: it fits the time, and what was not measured or cannot run is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stackwise_ray.core.calibration_store import Calibration, CalibrationKey, Sample
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.drafting import sizing
from stackwise_ray.drafting.contests import Contest
from stackwise_ray.drafting.sizing import NotMeasuredError, fitted, measure, measured_trials, planned
from stackwise_ray.drafting.writing import SearchSpaceDraft

DRAFT = SearchSpaceDraft(
    contest=Contest(arms={"narrow": {}, "wide": {"model.d_ff": 128}}, claim="?", tuned=False, role="decoder"),
    claim="Wider is better.",
    model="decoder/gpt2_family/tiny",
    data="markov",
    path=None,
    lr=1e-3,
    seconds=120.0,
    budget={"steps": 30},
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which nothing is known."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))


def know(flops_per_s: float = 1e10) -> None:
    sample = Sample(flops_per_step=2e9, flops_per_s=flops_per_s, startup_s=1.0, memory_ratio=1.0)
    Calibration().add(CalibrationKey(family="gpt2"), sample)


def test_an_arm_without_a_measurement_has_no_plan() -> None:
    with pytest.raises(NotMeasuredError) as unknown:
        planned(DRAFT)
    assert unknown.value.arms == ("narrow", "wide")
    assert str(unknown.value) == "narrow, wide"
    know()
    assert planned(DRAFT).trials == 6


def test_the_budget_has_two_digits_and_is_the_largest_that_fits() -> None:
    know()
    draft, made = fitted(DRAFT)
    ((unit, flops),) = draft.budget.items()
    assert unit == "flops"
    assert float(f"{flops:.2g}") == flops
    assert draft.planned_seconds == made.seconds
    assert made.seconds is not None
    assert made.seconds <= 0.85 * 120
    step = 10 ** (len(str(int(flops))) - 2)
    larger = planned(DRAFT.with_budget(flops=1.06 * flops + step)).seconds
    assert larger is not None
    assert larger > 0.85 * 120


def test_a_time_in_which_no_trial_gets_its_fewest_steps_is_refused_with_what_would_do() -> None:
    know()
    with pytest.raises(ConfigError) as refused:
        fitted(replace(DRAFT, seconds=2.0))
    assert refused.value.path == "--time"
    assert str(refused.value).startswith("--time = 2 s is too short for 6 trials of 30 steps, which take about ")
    assert str(refused.value).endswith("give more time, or a smaller model")


def test_a_draft_that_the_rules_refuse_is_refused_without_a_file_that_is_nobodys() -> None:
    wrong = Contest(arms={"a": {}, "b": {"model.n_heads": 7}}, claim="?", tuned=False, role="decoder")
    with pytest.raises(ConfigError) as refused:
        planned(replace(DRAFT, contest=wrong))
    assert "n_heads" in str(refused.value)
    assert refused.value.source is None
    assert "draft.yaml" not in str(refused.value)


def test_what_is_measured_is_the_arm_with_words_without_a_users_own_text() -> None:
    assert measured_trials(DRAFT, ["wide"]) == [
        "model=decoder/gpt2_family/tiny data=markov training.batch_tokens=1024 model.d_ff=128"
    ]
    own = replace(DRAFT, data="text_files", path="/my text.txt")
    assert measured_trials(own, ["narrow"]) == [
        "model=decoder/gpt2_family/tiny data=python_stdlib training.batch_tokens=1024"
    ]
    other = Contest(arms={"a": {}, "b": {"model": "decoder/llama_family/tiny"}}, claim="?", tuned=True, role="decoder")
    assert measured_trials(replace(DRAFT, contest=other), ["b"])[0].split()[0] == "model=decoder/llama_family/tiny"


def test_a_busy_machine_is_measured_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    # A busy machine, wherever the test runs.
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 99.0, 99.0))
    with pytest.raises(ConfigError, match=r"^99.0 processes were running .* or add --even-if-busy$"):
        measure(DRAFT, ["wide"], told.append, even_if_busy=False)
    assert told == []
    (tmp_path / "python").write_text('#!/bin/sh\necho \'{"words": "w", "problem": "no such model"}\'\n')
    (tmp_path / "python").chmod(0o755)
    # The measuring process answers at once; the real one is a slow test of `new`.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError) as refused:
        measure(DRAFT, ["wide", "narrow"], told.append, even_if_busy=True)
    words = measured_trials(DRAFT, ["wide"])[0]
    assert str(refused.value) == f"{words}: no such model"
    assert told == ["measuring wide", "measuring narrow"]


def test_numbers_are_rounded_down() -> None:
    assert [sizing._two_digits(value) for value in (129.0, 99.9, 1.0e12)] == [120.0, 99.0, 1.0e12]
