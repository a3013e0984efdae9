"""Runs a ledger's trials under Ray Tune: the searcher hands them out, the callback takes results back.

Tune schedules, places and restarts; it decides nothing about which trials exist. Its own checkpoints, loggers and
result files are off: the ledger and its journal hold what matters.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from stackwise_ray.core.interruption import stop_signals
from stackwise_ray.distributed.actor import TrialActor
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Report, decode, encode
from stackwise_ray.distributed.session import TRIAL_SLOT, RayWatchdog, Session
from stackwise_ray.planning.demand import Demand

GRACE_S = 10.0
"""Seconds for the checkpoints of an interrupted sweep. Batch systems often give 30 s, and ending Ray takes a part."""


def run_trials(
    ledger: Ledger,
    session: Session,
    demand: Demand,
    *,
    scheduler: TrialScheduler | None = None,
    wall_seconds: float | None = None,
    on_ray_lost: Callable[[str], None],
) -> None:
    """Run until the ledger has nothing left.

    Args:
        on_ray_lost: Called from the watchdog's thread when Ray dies. It must end the process, because Tune's loop in
            this function would wait for ever.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; running trials have left a checkpoint if `GRACE_S` was enough for that,
            and are marked as interrupted.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(session.slots)  # more would queue actors that hold memory
    storage = session.temp_directory or ledger.settings.directory / ".tune"
    ledger.deadline = None if wall_seconds is None else time.monotonic() + wall_seconds
    ledger.settings.stop_request.unlink(missing_ok=True)
    tuner = tune.Tuner(
        tune.with_resources(TrialActor, _resources(demand, session, ledger)),
        tune_config=tune.TuneConfig(
            search_alg=_LedgerSearcher(id(ledger)),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=session.slots,
            reuse_actors=demand.workers == 1,  # else its end also ends what a failed start of workers left
            time_budget_s=wall_seconds,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(storage),
            name="trials",
            callbacks=[_LedgerCallback(id(ledger), session.temp_directory is not None)],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),  # the ledger restarts, with a new attempt number
        ),
    )
    with RayWatchdog(session, on_ray_lost), stop_signals() as received:
        _RUNNING[id(ledger)] = _RunningSweep(ledger, received)
        try:
            tuner.fit()
            if received:
                raise KeyboardInterrupt
            if not ledger.finished or ledger.running:
                ledger.interrupt_all("limits.wall_hours is used up" if wall_seconds else "Ray Tune ended early")
        except BaseException as error:
            ledger.interrupt_all(
                "the command was told to stop"
                if isinstance(error, KeyboardInterrupt)
                else f"the driver failed: {error}"
            )
            raise
        finally:
            del _RUNNING[id(ledger)]
            ledger.settings.stop_request.unlink(missing_ok=True)
            if session.temp_directory is None:
                shutil.rmtree(storage, ignore_errors=True)


def _resources(demand: Demand, session: Session, ledger: Ledger) -> dict[str, float]:
    if demand.workers > 1:
        return {"cpu": 0, TRIAL_SLOT: 1}  # with a CPU of its own, trials could hold all CPUs and wait for workers
    resources: dict[str, float] = {"cpu": demand.cpus}
    if demand.gpus:
        at_once = min(session.slots, ledger.source.expected() - ledger.known)
        resources["gpu"] = demand.gpus_to_hold(at_once, session.gpus)
    return resources


class _RunningSweep:
    """A ledger whose trials run, and how far its polite end is.

    Args:
        received: Signals that ask for the end, as they come.
    """

    def __init__(self, ledger: Ledger, received: list[int]) -> None:
        self.ledger, self._received = ledger, received
        self._asked: float | None = None

    def handle_signals(self) -> None:
        """Asks the running trials for a checkpoint when a signal has come; ends the sweep once they have answered.

        Raises:
            KeyboardInterrupt: None runs any more, or they were given `GRACE_S`.
        """
        if not self._received:
            return
        if self._asked is None:
            self._asked = time.monotonic()
            self.ledger.halted = self.ledger.halted or "interrupted"
            self.ledger.settings.stop_request.touch()
        if not self.ledger.running or time.monotonic() - self._asked > GRACE_S:
            raise KeyboardInterrupt


_RUNNING: dict[int, _RunningSweep] = {}
"""Ledgers of this process by id. Tune copies and pickles its searcher and callbacks, and a ledger (locks, SQLite) can
be neither, so they carry its id."""


class _LedgerSearcher(Searcher):
    def __init__(self, key: int) -> None:
        super().__init__()
        self._key = key

    @property
    def _ledger(self) -> Ledger:
        return _RUNNING[self._key].ledger

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is text
        assignment = self._ledger.next(trial_id)
        if assignment is not None:
            return {"assignment": encode(assignment)}
        return Searcher.FINISHED if self._ledger.finished else None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Book the end here too: Tune may ask for the next trial before it calls the callbacks."""
        if error:
            self._ledger.died(trial_id, "its process was killed or crashed")
            return
        if result and "report" in result:
            self._ledger.result(trial_id, result["training_iteration"], decode(Report, result["report"]))
        self._ledger.stopped(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


class _LedgerCallback(tune.Callback):
    def __init__(self, key: int, local: bool) -> None:
        self._key, self._local = key, local

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        report = decode(Report, result["report"])
        _RUNNING[self._key].ledger.result(trial.trial_id, result["training_iteration"], report)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        live = _RUNNING[self._key]
        for pid in live.ledger.hung_processes() if self._local else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # its own watchdog is stopped, too
        live.handle_signals()


def end_processes_of_this_one() -> None:
    """Kill the processes that this one started: after Ray was lost, they do not answer a request to end."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
