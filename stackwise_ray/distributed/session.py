"""One Ray session per sweep: a private local one, or a cluster that was named explicitly.

Called by `distributed.tuner`. A bare ``ray.init()`` joins any cluster that it finds. So a local session always has its
own address and temporary directory, and ``RAY_ADDRESS`` alone is ignored. If the raylet or the cluster dies, a watchdog
ends the program with an error; Tune's driver would wait for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

from stackwise_ray.core.errors import ConfigError, RayStartError
from stackwise_ray.core.invocation import as_started
from stackwise_ray.distributed.session_directory import private_directory
from stackwise_ray.planning.demand import Demand, usable_gpus

TRIAL_SLOT = "trial_slot"
"""Custom resource that a trial with several workers holds instead of a CPU (its workers hold the CPUs)."""

_OBJECT_STORE_BYTES = 100 * 2**20  # trials exchange kilobytes; Ray's default would reserve 30 % of the memory

# Lean settings, each measured: Tune's own loggers and experiment checkpoints cost more than a short trial does, and the
# journal is the truth here.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_COLOR_PREFIX": "0",  # what Ray says of its own processes must be readable in a file, too
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative data.path means the same in a worker as in the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True, kw_only=True)
class Session:
    """A running Ray session.

    Attributes:
        slots: Trials that run at once.
        gpus: GPUs of all machines; 0 where no trial asks for one.
        temp_directory: The private directory of a local session, removed at its end; None on a cluster.
        raylet: The local raylet's process; None on a cluster.
    """

    slots: int
    gpus: int
    temp_directory: Path | None
    raylet: psutil.Process | None


@contextlib.contextmanager
def ray_session(
    demand: Demand, *, address: str | None = None, on_directory: Callable[[Path], None] = lambda _: None
) -> Iterator[Session]:
    """Start (or join) Ray for trials of this demand; leave nothing behind.

    Args:
        address: A cluster; None: a private session on this machine.
        on_directory: Called with the directory of a private session before Ray uses it, so that its path is recorded: a
            killed command does not remove it.

    Raises:
        ConfigError: One trial asks for more than there is, or the cluster does not answer.
        RayStartError: Ray does not start on this machine.
    """
    os.environ.update(_ENVIRONMENT)
    os.environ["OMP_NUM_THREADS"] = str(demand.cpus)  # inherited by the workers: two trials must not fight for cores
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it reports missing result files, which nobody writes
    temp_directory = None
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            cpus = demand.require_this_machine()
            temp_directory = private_directory()
            on_directory(temp_directory)
            os.environ.pop("RAY_ADDRESS", None)
            _start(cpus, usable_gpus() if demand.gpus else 0, temp_directory)
        else:
            _join(address)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # ray.init replaces it by one that aborts
        slots, gpus = _slots(demand)
        raylet = None if address else _raylet()
        yield Session(slots=slots, gpus=gpus, temp_directory=temp_directory, raylet=raylet)
    finally:
        ray.shutdown()
        if temp_directory is not None:
            shutil.rmtree(temp_directory, ignore_errors=True)


def _start(cpus: int, gpus: int, temp_directory: Path) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            resources={TRIAL_SLOT: cpus},
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(temp_directory),
        )
    except Exception as error:  # Ray raises bare exceptions, of several kinds
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise RayStartError(
            f"Ray did not start on this machine ({reason}). The machine may be too busy: run the same command again. "
            f"If that fails too, {as_started('doctor')} reports what is missing"
        ) from error


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"= {address} does not answer as a Ray cluster ({str(error).splitlines()[0]}); start it with "
            f"'ray up clusters/...' and give the address that it prints, or leave --address out to run here",
            path="--address",
        ) from error


def _slots(demand: Demand) -> tuple[int, int]:
    """Number of trials that the session runs at once, and of its GPUs if a trial asks for one."""
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = total.get("CPU", 0), int(total.get("GPU", 0))
    slots = demand.slots(cpus, gpus)
    if demand.workers > 1:
        declared = int(total.get(TRIAL_SLOT, 0))
        demand.require(declared > 0, f"no node declares the resource '{TRIAL_SLOT}' (add it to the cluster file)")
        slots = min(slots, declared)
    demand.require(slots > 0, f"the session has {cpus:g} CPUs and {gpus} GPUs")
    return slots, gpus if demand.gpus else 0


def _raylet() -> psutil.Process | None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name() == "raylet":
                return child
    return None


class RayWatchdog:
    """Calls `on_death(reason)` from a thread of its own as soon as Ray is gone; checks every `period_s`."""

    def __init__(self, session: Session, on_death: Callable[[str], None], *, period_s: float = 2.0) -> None:
        self._session, self._on_death, self._period_s = session, on_death, period_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ray-watchdog", daemon=True)

    def __enter__(self) -> RayWatchdog:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join(timeout=self._period_s + 1)

    def _watch(self) -> None:
        while not self._end.wait(self._period_s):
            reason = self._lost()
            if reason and not self._end.is_set():
                self._on_death(reason)
                return

    def _lost(self) -> str | None:
        raylet = self._session.raylet
        if raylet is not None:
            with contextlib.suppress(psutil.Error):
                if raylet.is_running() and raylet.status() != psutil.STATUS_ZOMBIE:
                    return None
            return f"Ray's local scheduler (raylet, pid {raylet.pid}) died"
        answer: list[bool] = []

        def ask() -> None:
            with contextlib.suppress(Exception):  # any failure to answer counts as no answer
                answer.append(bool(ray.cluster_resources()))  # type: ignore[no-untyped-call]

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(timeout=30)
        return None if answer else "the Ray cluster has not answered for 30 s"
