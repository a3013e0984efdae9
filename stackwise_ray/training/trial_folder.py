"""A trial's folder: where its files are. Each is written whole or not at all, and only by the newest attempt.

    config.yaml  checkpoints/  model/  logs/train.log  outputs/{metrics.json, evaluation_report.md}
    metadata/{environment.json, data.json}

`outputs/metrics.json` is written last: where it is, the trial has finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.atomic import Fence, atomic_write_json, atomic_write_text, disk_full_is_named
from stackwise_ray.core.errors import ConfigError, StaleAttemptError
from stackwise_ray.models.saved import quiet_transformers
from stackwise_ray.training.checkpoints import tensor_writes
from stackwise_ray.training.evaluation_report import evaluation_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A finished trial.

    Attributes:
        metrics: Final value of every metric by path.
        directory: The trial's folder.
        environment: Versions, device, backend, threads, data fingerprint.
    """

    metrics: Mapping[str, float]
    directory: Path
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "metrics": dict(self.metrics),
            "directory": str(self.directory),
            "environment": dict(self.environment),
        }


def attempt_fence(directory: Path, attempt: int) -> Fence:
    """A check that `attempt` is still the trial's current one, by the file ``attempt`` in its folder.

    Where there is no such file nobody else can have taken over.
    """
    path = directory / "attempt"

    def fence() -> None:
        with contextlib.suppress(FileNotFoundError):
            current = int(path.read_text())
            if current != attempt:
                raise StaleAttemptError(f"{directory}: attempt {attempt} was superseded by attempt {current}")

    return fence


def finished_result(directory: Path, trial_id: str) -> TrialResult | None:
    """The result of a trial that has finished here, or None."""
    path = directory / "outputs" / "metrics.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content.pop("trial_id", None) != trial_id:
        return None
    content.pop("stages", None)
    environment = json.loads((directory / "metadata" / "environment.json").read_text())
    return TrialResult(metrics=content, directory=directory, environment=environment)


class TrialFolder:
    """Writes one trial's files; every write is atomic and passes the fence first."""

    def __init__(self, directory: Path, fence: Fence) -> None:
        self.directory, self.fence = directory, fence
        self.checkpoints = directory / "checkpoints"

    def write_start(self, trial: TrialConfig, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """config.yaml and metadata/."""
        text = yaml.safe_dump(to_plain(trial), sort_keys=False, allow_unicode=True)
        atomic_write_text(self.directory / "config.yaml", text, fence=self.fence)
        atomic_write_json(self.directory / "metadata" / "environment.json", environment, fence=self.fence)
        atomic_write_json(self.directory / "metadata" / "data.json", data, fence=self.fence)

    def write_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        """model/: final weights (safetensors) with the tokenizer, as transformers reads them."""
        target = self.directory / "model"
        temporary = self.directory / f".model.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            with disk_full_is_named(target), tensor_writes(target):
                with quiet_transformers():
                    model.save_pretrained(temporary)
                tokenizer.save_pretrained(str(temporary))
                self.fence()
                if target.exists():  # of an attempt that was killed right after this point
                    shutil.rmtree(target)
                os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def write_end(
        self,
        trial: TrialConfig,
        trial_id: str,
        metrics: Mapping[str, float],
        stages: list[dict[str, Any]],
        environment: Mapping[str, Any],
    ) -> None:
        """The report, and at last metrics.json."""
        outputs = self.directory / "outputs"
        report = evaluation_report(trial, trial_id, metrics, stages, environment)
        atomic_write_text(outputs / "evaluation_report.md", report, fence=self.fence)
        content = {**metrics, "stages": stages, "trial_id": trial_id}
        atomic_write_json(outputs / "metrics.json", content, fence=self.fence)

    def clear(self) -> None:
        """Deletes the checkpoints of a finished trial."""
        self.fence()
        shutil.rmtree(self.checkpoints, ignore_errors=True)


class TrialLog:
    """logs/train.log: one line per event, flushed at once; a worker that is not the first writes none."""

    def __init__(self, directory: Path, *, enabled: bool) -> None:
        self._path = directory / "logs" / "train.log"
        self._enabled = enabled

    def __enter__(self) -> TrialLog:
        if self._enabled:
            with disk_full_is_named(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self._path, "a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled:
            with contextlib.suppress(OSError):  # what is buffered of the last line; the reason is on its way already
                self._file.close()

    def info(self, message: str) -> None:
        """One line."""
        self._write("", message)

    def warning(self, message: str) -> None:
        """One line that says WARNING."""
        self._write("WARNING ", message)

    def _write(self, level: str, message: str) -> None:
        if self._enabled:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with disk_full_is_named(self._path):
                self._file.write(f"{stamp} {level}{message}\n")
                self._file.flush()


@contextlib.contextmanager
def unwritable_is_named(directory: Path) -> Iterator[None]:
    """Turns an output that cannot be written (a file in the way, no permission) into a message with the fix."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(
            f"= {directory} cannot be a folder, because there is a file of that name; choose another folder",
            path="--output",
        ) from None
    except PermissionError as error:
        raise ConfigError(
            f"= {directory} cannot be written ({error.strerror}); choose another folder", path="--output"
        ) from None
