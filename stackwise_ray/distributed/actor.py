"""The actor in which trials with one worker run, one after the other in the same process.

Tune calls `setup` once and `reset_config` for every further trial, so torch is imported once a slot. A step pulls
records from the trial's generator for about a second. How a trial ended travels as its result, never as an exception:
an exception would cost the actor.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from stackwise_ray.core.errors import ConfigError, DiskFullError, StaleAttemptError, TrialError, WorkersLostError
from stackwise_ray.distributed.packing import run_packed

STEP_SECONDS = 1.0
"""Training time between two results: a result's round trip is milliseconds."""


class TrialActor(tune.Trainable):
    """Runs what `distributed.ledger.Attempt.to_config` describes."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial of this process."""
        threads = int(config["cpus"])
        import torch  # here: the driver's process, which also imports this module, does not need it

        torch.set_num_threads(threads)
        self._silence = Silence()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in the same process."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train for about `STEP_SECONDS` and hand over what was measured."""
        records: list[dict[str, Any]] = []
        outcome: dict[str, Any] | None = None
        deadline = time.monotonic() + STEP_SECONDS
        while outcome is None and time.monotonic() < deadline:
            self._silence.heard()
            outcome = self._advance(records)
        payload = {"records": records, "outcome": outcome, "pid": os.getpid()}
        result: dict[str, Any] = {"payload": json.dumps(payload), "done": outcome is not None}
        for record in reversed(records if outcome is None else []):  # a trial at its end is not stopped any more
            if self._objective in record["metrics"]:
                result["objective"] = record["metrics"][self._objective]
                result["progress"] = record["metrics"].get("progress", 0.0) * 100
                break
        if outcome is not None:
            self._silence.rest()
        return result

    def cleanup(self) -> None:
        """Close the trial's generator; nothing is written for a trial that was stopped."""
        self._end()
        self._silence.rest()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoints in its own folder; Tune only wants the method to exist."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, as above."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._objective = config["objective"]
        self._directory = Path(config["directory"])
        self._interruption = Path(config["interruption"])
        self._silence.watch(config["silent_after_s"], config["longest_s"])
        if config["workers"] > 1:
            from stackwise_ray.distributed.workers import run_with_workers  # Ray Train: seconds that one worker saves

            keys = ("worker", "arguments", "workers", "cpus", "gpus")
            self._run = run_with_workers(**{key: config[key] for key in keys})
            return
        self._run = run_packed(config["worker"], config["arguments"])

    def _end(self) -> None:
        self._run.close()

    def _advance(self, records: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Pull one record; how the trial ended, or None. A trial that is asked to stop leaves a checkpoint first."""
        try:
            asked = self._interruption.exists()
            records.append(asdict(self._run.throw(KeyboardInterrupt()) if asked else next(self._run)))
        except KeyboardInterrupt:
            return {"kind": "interrupted", "reason": "interrupted"}
        except StopIteration as end:
            return {"kind": "finished", **end.value.to_dict()}
        except (TrialError, ConfigError) as error:
            return {"kind": "failed", "reason": str(error)}
        except MemoryError as error:
            return {"kind": "failed", "reason": f"out of memory: {error}"}
        except DiskFullError as error:
            return {"kind": "disk_full", "reason": str(error)}
        except StaleAttemptError as error:
            return {"kind": "superseded", "reason": str(error)}
        except WorkersLostError as error:
            return {"kind": "died", "reason": str(error)}
        except Exception as error:  # a bug, ours or a plugin's: this trial's reason, not the end of the sweep
            return {"kind": "failed", "reason": self._unexpected(error)}
        return None

    def _unexpected(self, error: Exception) -> str:
        log = self._directory / "logs" / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        return f"{type(error).__name__}: {error} (traceback in {log.parent.name}/{log.name} of the trial)"


class Silence:
    """Ends this process when its trial hangs (inside a kernel, on a dead disk) or takes longer than it may."""

    def __init__(self) -> None:
        self._limits: tuple[float, float] | None = None
        self._began = self._last = time.monotonic()
        threading.Thread(target=self._watch, name="silence", daemon=True).start()

    def watch(self, silent_after_s: float, longest_s: float | None) -> None:
        """Begin to watch a trial."""
        self._began = self._last = time.monotonic()
        self._limits = (silent_after_s, float("inf") if longest_s is None else longest_s)

    def heard(self) -> None:
        """The trial gave a sign of life."""
        self._last = time.monotonic()

    def rest(self) -> None:
        """No trial is running: stay alive."""
        self._limits = None

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            limits, now = self._limits, time.monotonic()
            if limits is not None and (now - self._last > limits[0] or now - self._began > limits[1]):
                os._exit(HUNG_EXIT)  # the trial's own thread cannot be asked


HUNG_EXIT = 75
"""Exit status of a worker that ended itself (EX_TEMPFAIL: its trial is tried once more)."""
