"""The trial actor without Ray's scheduler around it: an assignment goes in, reports come out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.errors import DeviceLostError, DiskFullError, StaleAttemptError, TrialError, WorkersLostError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.actor import EXIT_SPOILED, TrialActor
from stackwise_ray.distributed.messages import (
    Assignment,
    DeviceLost,
    DiskFull,
    Failed,
    Finished,
    Interrupted,
    Outcome,
    Report,
    RunSettings,
    Superseded,
    WorkersLost,
    decode,
    encode,
)

HERE = "tests.unit.distributed.test_distributed_actor"


@dataclass
class Result:
    metrics: dict[str, float] = field(default_factory=lambda: {"validation/loss": 1.0})
    environment: dict[str, Any] = field(default_factory=lambda: {"device": "cpu"})


def record(trial_id: str, attempt: int) -> MetricRecord:
    metrics = {"validation/loss": 2.0, "progress": 0.5}
    return MetricRecord(trial_id=trial_id, attempt=attempt, step=1, tokens=2, flops=3, time=4.0, metrics=metrics)


def one_record(*, trial_id: str, attempt: int, **rest: Any) -> Generator[MetricRecord, None, Result]:
    yield record(trial_id, attempt)
    return Result()


def endless(*, trial_id: str, attempt: int, **rest: Any) -> Generator[MetricRecord, None, Result]:
    while True:
        yield record(trial_id, attempt)


RAISED: dict[str, Exception] = {
    "trial": TrialError("diverged"),
    "disk": DiskFullError("no room"),
    "stale": StaleAttemptError("attempt 2 runs"),
    "lost": WorkersLostError("rank 1 is gone"),
    "bug": ZeroDivisionError("by zero"),
    "device": DeviceLostError("CUDA error: an illegal memory access was encountered"),
    "kernel": RuntimeError("CUDA error: unspecified launch failure"),
    "full": TrialError("out of memory: raise training.accumulation"),
}
RAISED["full"].__cause__ = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def raising(*, directory: Path, **rest: Any) -> Generator[MetricRecord, None, Result]:
    raise RAISED[directory.name]
    yield


def assignment(directory: Path, worker: str, trial_id: str = "t", **changes: Any) -> Assignment:
    return Assignment(
        settings=RunSettings(worker=worker, objective="validation/loss", directory=directory),
        trial_id=trial_id,
        attempt=1,
        trial=to_plain(load_trial(["model=decoder/gpt2_family/tiny", "training.budget={steps: 3}"])),
        data_fingerprint="f",
        **changes,
    )


def first_step(given: Assignment) -> dict[str, Any]:
    actor: TrialActor = TrialActor.__new__(TrialActor)  # its constructor belongs to Tune
    actor.setup({"assignment": encode(given)})
    try:
        return actor.step()
    finally:
        actor.cleanup()  # else its watchdog would end this process one day


def ended(given: Assignment) -> tuple[Report, Outcome]:
    result = first_step(given)
    report = decode(Report, result["report"])
    assert result["done"]
    assert report.outcome is not None
    return report, report.outcome


def test_a_trial_that_ends_reports_its_records_and_its_result(tmp_path: Path) -> None:
    report, outcome = ended(assignment(tmp_path, f"{HERE}:one_record"))
    assert [kept.step for kept in report.records] == [1]
    assert outcome == Finished(metrics={"validation/loss": 1.0}, environment={"device": "cpu"})


@pytest.mark.parametrize("worker", ["no_such_module:run", f"{HERE}:no_such_function"])
def test_a_worker_that_cannot_be_loaded_is_the_trials_failure_with_its_reason(tmp_path: Path, worker: str) -> None:
    _, outcome = ended(assignment(tmp_path, worker))
    assert isinstance(outcome, Failed)
    assert "no_such" in outcome.reason
    assert (tmp_path / "trials/t/logs/error.log").is_file()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("trial", Failed), ("disk", DiskFull), ("stale", Superseded), ("lost", WorkersLost), ("bug", Failed)],
)
def test_what_a_trial_raises_travels_as_its_outcome(tmp_path: Path, name: str, expected: type[Outcome]) -> None:
    _, outcome = ended(assignment(tmp_path, f"{HERE}:raising", trial_id=name))
    assert type(outcome) is expected


@pytest.mark.parametrize(("name", "expected"), [("device", DeviceLost), ("kernel", DeviceLost), ("full", Failed)])
def test_a_process_that_cannot_use_its_device_again_tells_how_its_trial_ended_and_then_ends_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: type[Outcome]
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    actor: TrialActor = TrialActor.__new__(TrialActor)
    actor.setup({"assignment": encode(assignment(tmp_path, f"{HERE}:raising", trial_id=name))})
    result = actor.step()
    report = decode(Report, result["report"])
    assert type(report.outcome) is expected
    assert str(RAISED[name]) in getattr(report.outcome, "reason")  # noqa: B009  # not every outcome has one
    assert not result["done"], "else the next trial comes here"
    monkeypatch.setattr("os._exit", leave)  # else this process ends, not a child
    with pytest.raises(SystemExit) as ended:
        actor.step()
    assert ended.value.code == EXIT_SPOILED
    actor.cleanup()


def test_a_sweep_that_is_stopped_interrupts_its_trials(tmp_path: Path) -> None:
    given = assignment(tmp_path, f"{HERE}:endless")
    given.settings.stop_request.touch()
    _, outcome = ended(given)
    assert outcome == Interrupted()


def test_a_scheduler_sees_only_trials_that_may_be_stopped(tmp_path: Path) -> None:
    seen = first_step(assignment(tmp_path, f"{HERE}:endless", may_be_stopped=True))
    assert (seen["objective"], seen["progress"], seen["done"]) == (2.0, 50.0, False)
    hidden = first_step(assignment(tmp_path, f"{HERE}:endless"))
    assert not {"objective", "progress"} & hidden.keys()
