"""Messages between driver and worker come back equal from their text, and what is unknown is refused by name."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.loading import load_sweep, load_trial, shipped_search_spaces
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.messages import (
    Assignment,
    Failed,
    Finished,
    Outcome,
    Report,
    RunSettings,
    decode,
    encode,
)

TRIAL = load_trial(["model=decoder/gpt2_family/tiny", "training.budget={tokens: 1e6}", "training.lr=3.1e-4"])


def assignment(**changes: Any) -> Assignment:
    settings = RunSettings(
        worker="module:run", directory=Path("/sweeps/x"), objective="test/loss", gpus=0.5, attempt_timeout_s=60.0
    )
    made = Assignment(settings=settings, trial_id="t1", attempt=2, trial=to_plain(TRIAL), data_fingerprint="f")
    return dataclasses.replace(made, **changes)


def outcome(kind: type[Outcome]) -> Outcome:
    if kind is Finished:
        return Finished(metrics={"validation/loss": 0.1 + 0.2}, environment={"threads": 2, "device": "cpu"})
    return kind(reason="because")  # type: ignore[call-arg]  # all others have a reason alone


@pytest.mark.parametrize("changes", [{}, {"weights_fingerprint": "w", "may_be_stopped": True, "keep_model": False}])
def test_an_assignment_comes_back_equal_and_asks_for_the_same_trial_in_the_same_folder(changes: dict[str, Any]) -> None:
    sent = assignment(**changes)
    received = decode(Assignment, encode(sent))
    assert received == sent
    assert received.arguments()["trial"] == TRIAL
    assert received.arguments()["directory"] == Path("/sweeps/x/trials/t1")


OF_THE_DRIVER = {"settings", "may_be_stopped", "plugins"}
"""Fields of an assignment that are for the process around the worker function."""


def test_every_field_of_an_assignment_reaches_the_workers_arguments() -> None:
    sent = assignment(weights_fingerprint="w", keep_model=False, final_evaluation=False)
    told = {entry for entry in dataclasses.fields(sent) if entry.name not in OF_THE_DRIVER}
    assert all(getattr(sent, entry.name) != entry.default for entry in told)  # what is left out would not show
    expected = {entry.name: getattr(sent, entry.name) for entry in told} | {"trial": TRIAL, "directory": sent.directory}
    expected["gpus"] = 0.5  # of the settings, what the worker function needs to choose its device
    assert decode(Assignment, encode(sent)).arguments() == expected


@pytest.mark.parametrize("kind", typing.get_args(Outcome), ids=lambda kind: kind.__name__)
def test_every_outcome_comes_back_equal_with_the_records_before_it(kind: type[Outcome]) -> None:
    record = MetricRecord(
        trial_id="t1", attempt=2, step=3, tokens=2**40, flops=2**70, time=1.5, metrics={"train/loss": 1e-300}, doing="x"
    )
    sent = Report(records=(record, dataclasses.replace(record, metrics={})), outcome=outcome(kind), pid=17)
    assert decode(Report, encode(sent)) == sent


def test_a_report_of_a_trial_that_goes_on_has_no_outcome() -> None:
    assert decode(Report, encode(Report())) == Report(records=(), outcome=None, pid=None)


def altered(text: str, **changes: Any) -> str:
    return json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (altered(encode(Report()), kind="rumour"), "unknown kind of message 'rumour'"),
        (altered(encode(Report()), kind=None), "unknown kind of message None"),
        (altered(encode(Report()), outcome={"kind": "bored"}), "unknown kind of outcome 'bored'.*Finished, Failed"),
        (encode(assignment()), "is of kind Assignment where Report is expected"),
        (altered(encode(Report()), mood="good"), "other fields here than where it was sent from: mood"),
        (altered(encode(Report()), outcome={"kind": "Failed"}), "Failed has other fields.*: reason"),
    ],
)
def test_a_message_that_this_version_does_not_know_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decode(Report, text)


def test_messages_cannot_be_changed_on_the_way() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Failed(reason="x").reason = "y"  # type: ignore[misc]


@pytest.mark.parametrize("name", shipped_search_spaces())
def test_every_arm_that_is_shipped_reaches_its_worker_unchanged(name: str) -> None:
    for arm in expand(load_sweep(name)).arms:
        sent = assignment(trial=to_plain(arm.trial))
        assert decode(Assignment, encode(sent)).arguments()["trial"] == arm.trial
