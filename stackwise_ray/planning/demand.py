"""What one trial of a sweep asks of the machines, and the refusal where it asks for more than there is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from stackwise_ray.config.space.sweep_config import Resources
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import format_bytes

GPUS_VARIABLE = "STACKWISE_GPUS"
"""The variable that says how many GPUs a sweep counts, instead of those that torch sees (see `usable_gpus`)."""
_ELSEWHERE = " (name a cluster with --address to run there)"

_RAY_UNITS = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one trial needs, from the sweep's `resources`.

    Attributes:
        cpus: CPUs per worker; also its number of torch threads.
        gpus: GPUs per worker; below 1, a share of one device.
        workers: Workers per trial.
        max_concurrent: Most trials at once; None: as many as fit.
    """

    cpus: int = 1
    gpus: float = 0
    workers: int = 1
    max_concurrent: int | None = None

    @classmethod
    def of(cls, resources: Resources, max_concurrent: int | None = None) -> Demand:
        """The demand that a file declares; `max_concurrent` of the command line has priority over the file's."""
        asked = resources.max_concurrent if isinstance(resources.max_concurrent, int) else None
        return cls(
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            workers=resources.workers,
            max_concurrent=max_concurrent or asked,
        )

    def require(self, condition: bool, have: str) -> None:
        """Raise unless `condition` is true; `have` describes what the machines have.

        Raises:
            ConfigError: One trial asks for more than there is.
        """
        if not condition:
            raise ConfigError(
                f"asks for {self.workers} worker(s) with {self.cpus} CPUs and {self.gpus:g} GPUs per trial, "
                f"but {have}; lower workers, cpus_per_trial or gpus_per_trial",
                path="resources",
            )

    def slots(self, cpus: float, gpus: float) -> int:
        """Number of trials that run at once on these CPUs and GPUs, at most `max_concurrent`.

        >>> Demand(gpus=0.4).slots(cpus=16, gpus=2)  # two per device: a share lies on one device
        4
        """
        fits = int(cpus // (self.cpus * self.workers))
        if 0 < self.gpus < 1:
            fits = min(fits, int(gpus) * _shares(self.gpus) // self.workers)
        elif self.gpus:
            fits = min(fits, int(gpus // (self.gpus * self.workers)))
        return fits if self.max_concurrent is None else min(fits, self.max_concurrent)

    def slots_here(self, address: str | None = None) -> tuple[int, str | None]:
        """Number of trials that this machine runs at once (at least 1), and a note if they run on another machine.

        Args:
            address: The cluster on which they are to run; None: none was named.
        """
        has = {"GPU": usable_gpus() if self.gpus else 0, "CPU": usable_cores()}
        needs = {"GPU": self.gpus * self.workers, "CPU": self.cpus * self.workers}
        slots = self.slots(has["CPU"], has["GPU"])
        lacking = [kind for kind in needs if needs[kind] > has[kind]]
        if not lacking:
            held = f"hours are for {_many(slots, 'trial')} at a time, which fit this machine; {address} may run more"
            return slots, held if address else None
        wanted = " and ".join(_many(needs[kind], kind) for kind in lacking)
        there = " and ".join(_many(has[kind], kind) for kind in lacking)
        where = f"on {address}" if address else "with --address on a cluster that has them, or on a larger machine"
        return 1, f"a trial needs {wanted}; this machine has {there}: run it {where}. Hours are for one trial at a time"

    def memory_here(self, peak_bytes: Iterable[float | None]) -> str | None:
        """A note if a trial's predicted peak in bytes (None: not predicted) is more than the memory of this machine."""
        most = self.workers * max((peak for peak in peak_bytes if peak is not None), default=0.0)
        total = psutil.virtual_memory().total
        if most <= total:
            return None
        return (
            f"a trial needs about {format_bytes(most)} of memory; this machine has {format_bytes(total)}: run it with "
            "--address on a cluster that has it, or lower training.memory_bytes"
        )

    def gpus_to_hold(self, at_once: int, gpus: int) -> float:
        """GPUs that a worker reserves while `at_once` trials run on `gpus` GPUs: what it asks for, or a larger share.

        Ray fills one device with shares before it uses the next. So the share is as large as this number of trials
        allows. Ray then has to spread the trials over all devices.

        >>> Demand(gpus=0.25).gpus_to_hold(at_once=2, gpus=2), Demand(gpus=0.25).gpus_to_hold(at_once=6, gpus=2)
        (1.0, 0.3333)
        """
        if not 0 < self.gpus < 1:
            return self.gpus
        per_device = min(_shares(self.gpus), math.ceil(max(1, at_once) / gpus))
        return math.floor(_RAY_UNITS / per_device) / _RAY_UNITS

    def require_this_machine(self) -> int:
        """The number of CPUs of this machine, after a check that one trial fits into it, GPUs included.

        Raises:
            ConfigError: No trial fits.
        """
        cpus = usable_cores()
        self.require(self.cpus * self.workers <= cpus, f"this machine has {cpus} CPUs{_ELSEWHERE}")
        if self.gpus:
            gpus = usable_gpus()
            self.require(self.gpus * self.workers <= gpus, f"this machine has {gpus} GPUs{_ELSEWHERE}")
        return cpus


def _many(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def _shares(share: float) -> int:
    """How many shares of this size one device holds."""
    return math.floor(1 / share + 1e-9)


def usable_gpus() -> int:
    """GPUs that this process may use: those that torch sees, or as many as ``STACKWISE_GPUS`` says.

    With the variable, the placement of a GPU sweep can be tried on a machine without a GPU: Ray counts GPUs that are
    not there, and trials train with ``training.device: cpu``. Without it this function imports torch, which takes
    seconds: call it only if a trial is to have a GPU.

    Raises:
        ConfigError: The variable is no number of devices.
    """
    asked = os.environ.get(GPUS_VARIABLE)
    if asked is None:
        import torch  # here: seconds, and only a trial with a GPU needs it

        return torch.cuda.device_count()
    if not (asked.isascii() and asked.isdecimal()):
        raise ConfigError(
            f"= {asked!r} is no number of GPUs; give a whole number, or unset it to count those that torch sees",
            path=GPUS_VARIABLE,
        )
    return int(asked)
