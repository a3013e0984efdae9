"""The messages between driver and workers, as frozen records.

The driver sends an `Assignment` (the run's settings and one attempt of one trial); a worker answers with `Report`s,
the last of which has an `Outcome`. Tune carries plain data alone, so both are sent as the text that `encode` makes.
Between the processes of a trial with several workers, Ray carries the records themselves (`Returned`, `Raised`,
`Instruction`). Nothing here imports Ray or torch, and nothing here decides anything.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_args

from stackwise_ray.config.trial.editing import from_plain
from stackwise_ray.core.plugins import load_sent
from stackwise_ray.core.records import MetricRecord

HEARTBEAT_TIMEOUT_S = 600.0
"""A running trial gives signs of life about every second, also while it evaluates; ten minutes without is a hang."""


# ------------------------------------------------------------------------------------------- from driver to worker


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How trials of this sweep are run: constant over the sweep.

    Attributes:
        worker: ``module:function`` of the generator that runs one trial (`running.run:run_trial`).
        directory: The sweep's folder.
        objective: Metric by which a scheduler stops trials.
        cpus: Threads per worker.
        workers: Workers per trial; more than one goes through Ray Train.
        gpus: GPUs per worker; 0: it trains on a CPU, also where it could see a GPU.
        heartbeat_timeout_s: Seconds without a sign of life after which a trial is ended and tried once more.
        attempt_timeout_s: Seconds after which an attempt is ended and tried once more; None: no limit.
        keep_models: Whether a replicate writes its final weights.
        max_flops: Training FLOPs after which no further trial starts; None: no limit.
    """

    worker: str
    directory: Path
    objective: str
    cpus: int = 1
    workers: int = 1
    gpus: float = 0
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S
    attempt_timeout_s: float | None = None
    keep_models: bool = True
    max_flops: float | None = None

    def worker_function(self) -> Callable[..., Generator[MetricRecord, None, Any]]:
        """The generator function that `worker` names, imported here."""
        module, _, name = self.worker.partition(":")
        function: Callable[..., Generator[MetricRecord, None, Any]] = getattr(importlib.import_module(module), name)
        return function

    @property
    def stop_request(self) -> Path:
        """A file that asks running trials to write a checkpoint and end; it exists while the sweep is being stopped."""
        return self.directory / "interrupted"


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt of one trial, for the worker that is to run it.

    Attributes:
        trial: The canonical `TrialConfig` as plain JSON data, as in `TrialRecord.config`.
        data_fingerprint: The fingerprint that the worker's data must have.
        weights_fingerprint: The fingerprint that the initial weights must have; None: they are random.
        keep_model: Whether the final weights are written.
        final_evaluation: Whether whole splits may be scored at the end.
        may_be_stopped: Whether a scheduler may end the trial early (search trials alone).
        plugins: What the worker loads before it reads the trial (`core.plugins.load_sent`).
    """

    settings: RunSettings
    trial_id: str
    attempt: int
    trial: Mapping[str, Any]
    data_fingerprint: str
    weights_fingerprint: str | None = None
    keep_model: bool = True
    final_evaluation: bool = True
    may_be_stopped: bool = False
    plugins: tuple[Mapping[str, Any], ...] = ()

    @property
    def directory(self) -> Path:
        """The trial's own folder."""
        return self.settings.directory / "trials" / self.trial_id

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the worker function (`running.run.run_trial`); the plugins are loaded first.

        Raises:
            ConfigError: A plugin cannot be loaded here, or the trial names something that is not registered here.
        """
        load_sent(self.plugins)
        return {
            "trial": from_plain(self.trial),
            "directory": self.directory,
            "trial_id": self.trial_id,
            "attempt": self.attempt,
            "data_fingerprint": self.data_fingerprint,
            "weights_fingerprint": self.weights_fingerprint,
            "keep_model": self.keep_model,
            "final_evaluation": self.final_evaluation,
            "gpus": self.settings.gpus,
        }


class Instruction(Enum):
    """What the workers of one trial must do after a record, if it has several."""

    CONTINUE = auto()
    STOP = auto()
    CHECKPOINT_AND_STOP = auto()


# ------------------------------------------------------------------------------------------- from worker to driver


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The trial came to the end of its budget.

    Attributes:
        metrics: Final value of every metric by path.
        environment: Versions, device, backend, threads.
    """

    metrics: Mapping[str, float]
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The trial failed by its own doing; it is not run again."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class WorkersLost:
    """A process of a trial with several workers died; the trial continues in a new attempt."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class DeviceLost:
    """The process of the trial cannot use its device again, and ends; the trial continues in a new attempt."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The trial was asked to stop and has left a checkpoint where it could."""

    reason: str = "interrupted"


@dataclass(frozen=True, kw_only=True)
class DiskFull:
    """Nothing more can be written; the trial continues later."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Superseded:
    """A newer attempt owns the trial's folder."""

    reason: str


Outcome: TypeAlias = Finished | Failed | WorkersLost | DeviceLost | Interrupted | DiskFull | Superseded
"""How an attempt ended. A process that was killed sends none; Tune reports it instead."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one result of Tune carries.

    Attributes:
        records: What was measured since the last report; one without metrics is a sign of life.
        outcome: How the attempt ended; None: it goes on.
        pid: Process of the worker.
    """

    records: tuple[MetricRecord, ...] = ()
    outcome: Outcome | None = None
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Returned:
    """Among the processes of one trial: the worker function's result (`training.trial_folder.TrialResult`)."""

    result: Any


@dataclass(frozen=True, kw_only=True)
class Raised:
    """Among the processes of one trial: what the worker function raised."""

    error: BaseException


# ---------------------------------------------------------------------------------------------------- as plain text

Message: TypeAlias = Assignment | Report
AnyMessage = TypeVar("AnyMessage", Assignment, Report)

_OUTCOMES: dict[str, type[Outcome]] = {kind.__name__: kind for kind in get_args(Outcome)}
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> str:
    """A message as JSON text that `decode` reads back equal."""
    plain = {"kind": type(message).__name__, **asdict(message)}
    if isinstance(message, Assignment):
        plain["settings"]["directory"] = str(message.settings.directory)
    elif message.outcome is not None:
        plain["outcome"] = {"kind": type(message.outcome).__name__, **plain["outcome"]}
    return json.dumps(plain)


def decode(kind: type[AnyMessage], text: str) -> AnyMessage:
    """The message of this kind that `encode` wrote.

    Raises:
        ValueError: It is of another kind, or has other fields: driver and worker run different versions.
    """
    plain = json.loads(text)
    known = _class_of(_KINDS, plain, "message")
    if known is not kind:
        raise ValueError(f"the message is of kind {known.__name__} where {kind.__name__} is expected; {_FIX}")
    if known is Assignment:
        settings = plain["settings"]
        plain["plugins"] = tuple(plain["plugins"])
        plain["settings"] = _build(RunSettings, {**settings, "directory": Path(settings["directory"])})
    else:
        plain["records"] = tuple(_build(MetricRecord, record) for record in plain["records"])
        if plain["outcome"] is not None:
            plain["outcome"] = _build(_class_of(_OUTCOMES, plain["outcome"], "outcome"), plain["outcome"])
    return _build(kind, plain)


T = TypeVar("T")
_FIX = "run one version of stackwise_ray on all machines"


def _class_of(kinds: Mapping[str, type[T]], plain: dict[str, Any], what: str) -> type[T]:
    """Takes the kind out of a message's plain data."""
    name = plain.pop("kind", None)
    if name not in kinds:
        raise ValueError(f"unknown kind of {what} {name!r}; this version knows {', '.join(kinds)}; {_FIX}")
    return kinds[name]


def _build(kind: type[T], plain: Mapping[str, Any]) -> T:
    expected = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # every kind here is a dataclass
    if plain.keys() != expected:
        odd = ", ".join(sorted(plain.keys() ^ expected))
        raise ValueError(f"{kind.__name__} has other fields here than where it was sent from: {odd}; {_FIX}")
    return kind(**plain)
