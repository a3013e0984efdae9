"""The actor in which trials with one worker run, one after the other in the same process.

Tune calls `setup` once and `reset_config` for every further trial, so torch is imported once per slot. A step pulls
records from the trial's generator for about a second. The end of a trial is sent as a result and never as an exception,
because an exception would end the actor.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from typing import Any

from ray import tune

from stackwise_ray.core.device_errors import spoils_process
from stackwise_ray.core.errors import (
    ConfigError,
    DeviceLostError,
    DiskFullError,
    StaleAttemptError,
    TrialError,
    WorkersLostError,
)
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.messages import (
    Assignment,
    DeviceLost,
    DiskFull,
    Failed,
    Finished,
    Interrupted,
    Outcome,
    Report,
    Superseded,
    WorkersLost,
    decode,
    encode,
)

STEP_SECONDS = 1.0
"""Training time between two results: a result's round trip is milliseconds."""


class TrialActor(tune.Trainable):
    """Runs one `Assignment` after the other and answers with `Report`s."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial of this process."""
        assignment = decode(Assignment, config["assignment"])
        import torch  # here: the driver's process, which also imports this module, does not need it

        torch.set_num_threads(assignment.settings.cpus)
        self._watchdog = HangWatchdog()
        self._spoiled = False
        self._begin(assignment)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in the same process."""
        self._run.close()
        self._begin(decode(Assignment, new_config["assignment"]))
        return True

    def step(self) -> dict[str, Any]:
        """Train for about `STEP_SECONDS` and hand over what was measured.

        If the process can no longer use its device, this step returns how the trial ended, but without `done`. The next
        step then ends the process. An actor that is done would be given another trial; one that dies is not.
        """
        if self._spoiled:
            os._exit(EXIT_SPOILED)
        records: list[MetricRecord] = []
        outcome: Outcome | None = None
        deadline = time.monotonic() + STEP_SECONDS
        while outcome is None and time.monotonic() < deadline:
            self._watchdog.heartbeat()
            outcome = self._advance(records)
        report = Report(records=tuple(records), outcome=outcome, pid=os.getpid())
        if outcome is not None:
            self._watchdog.stop()  # and a trial at its end is not stopped any more
            return {"report": encode(report), "done": not self._spoiled}
        return {"report": encode(report), "done": False, **self._for_the_scheduler(records)}

    def cleanup(self) -> None:
        """Close the trial's generator; nothing is written for a trial that was stopped."""
        self._run.close()
        self._watchdog.stop()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoints in its own folder; Tune only wants the method to exist."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, as above."""

    def _begin(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._watchdog.start(assignment.settings.heartbeat_timeout_s, assignment.settings.attempt_timeout_s)
        self._run = _run(assignment)

    def _advance(self, records: list[MetricRecord]) -> Outcome | None:
        """Pull one record; how the trial ended, or None. A trial that is asked to stop leaves a checkpoint first."""
        try:
            asked = self._assignment.settings.stop_request.exists()
            records.append(self._run.throw(KeyboardInterrupt()) if asked else next(self._run))
        except KeyboardInterrupt:
            return Interrupted()
        except StopIteration as end:
            return Finished(metrics=end.value.metrics, environment=end.value.environment)
        except (TrialError, ConfigError) as error:
            self._spoiled = spoils_process(error)
            return Failed(reason=str(error))
        except DeviceLostError as error:
            self._spoiled = True
            return DeviceLost(reason=str(error))
        except MemoryError as error:
            return Failed(reason=f"out of memory: {error}")
        except DiskFullError as error:
            return DiskFull(reason=str(error))
        except StaleAttemptError as error:
            return Superseded(reason=str(error))
        except WorkersLostError as error:
            return WorkersLost(reason=str(error))
        except Exception as error:  # a bug, ours or a plugin's: this trial's reason, not the end of the sweep
            reason = self._unexpected(error)
            self._spoiled = spoils_process(error)
            return DeviceLost(reason=reason) if self._spoiled else Failed(reason=reason)
        return None

    def _for_the_scheduler(self, records: Sequence[MetricRecord]) -> dict[str, float]:
        """The newest value of the objective and the share of the budget, in percent, for trials that may be stopped."""
        objective = self._assignment.settings.objective
        for record in reversed(records if self._assignment.may_be_stopped else ()):
            if objective in record.metrics:
                return {"objective": record.metrics[objective], "progress": record.metrics["progress"] * 100}
        return {}

    def _unexpected(self, error: Exception) -> str:
        log = self._assignment.directory / "logs" / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        return f"{type(error).__name__}: {error} (traceback in {log.parent.name}/{log.name} of the trial)"


def _run(assignment: Assignment) -> Generator[MetricRecord, None, Any]:
    """The trial's generator. It loads the worker itself, so that what cannot be loaded is the trial's failure."""
    settings = assignment.settings
    if settings.workers > 1:
        from stackwise_ray.distributed.workers import run_with_workers  # Ray Train: seconds that one worker saves

        return (yield from run_with_workers(assignment))
    return (yield from settings.worker_function()(**assignment.arguments()))


class HangWatchdog:
    """Ends this process when its trial hangs (inside a kernel, on a dead disk) or takes longer than it may."""

    def __init__(self) -> None:
        self._limits: tuple[float, float] | None = None
        self._began = self._last = time.monotonic()
        threading.Thread(target=self._watch, name="hang-watchdog", daemon=True).start()

    def start(self, heartbeat_timeout_s: float, attempt_timeout_s: float | None) -> None:
        """Begin to watch a trial."""
        self._began = self._last = time.monotonic()
        self._limits = (heartbeat_timeout_s, float("inf") if attempt_timeout_s is None else attempt_timeout_s)

    def heartbeat(self) -> None:
        """Note a sign of life of the trial."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """Stop watching: no trial is running."""
        self._limits = None

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            limits, now = self._limits, time.monotonic()
            if limits is not None and (now - self._last > limits[0] or now - self._began > limits[1]):
                os._exit(EXIT_HUNG)  # the trial's own thread cannot be asked


EXIT_HUNG = 75
"""Exit status of a worker that ended itself (EX_TEMPFAIL: its trial is tried once more)."""
EXIT_SPOILED = 74
"""Exit status of a worker whose device no longer answers (EX_IOERR); it has reported how its trial ended."""
