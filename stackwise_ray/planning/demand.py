"""What one trial of a sweep asks of the machines, and the refusal where it asks for more than there is."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from stackwise_ray.config.space.sweep_config import Resources
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError

GPUS_VARIABLE = "STACKWISE_GPUS"
"""How many GPUs a sweep counts with, instead of those that torch sees (see `usable_gpus`)."""
_ELSEWHERE = " (name a cluster with --address to plan or run there)"

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
        """The demand that a file declares; `max_concurrent` of the command line goes before the file's."""
        asked = resources.max_concurrent if isinstance(resources.max_concurrent, int) else None
        return cls(
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            workers=resources.workers,
            max_concurrent=max_concurrent or asked,
        )

    def require(self, condition: bool, have: str) -> None:
        """Refuse unless `condition`; `have` says what there is.

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
        """Trials that so many CPUs and GPUs hold at once, at most `max_concurrent`.

        >>> Demand(gpus=0.4).slots(cpus=16, gpus=2)  # two per device: a share lies on one device
        4
        """
        fits = int(cpus // (self.cpus * self.workers))
        if 0 < self.gpus < 1:
            fits = min(fits, int(gpus) * _shares(self.gpus) // self.workers)
        elif self.gpus:
            fits = min(fits, int(gpus // (self.gpus * self.workers)))
        return fits if self.max_concurrent is None else min(fits, self.max_concurrent)

    def slots_here(self) -> tuple[int, str | None]:
        """Trials that this machine holds at once, at least 1, and what to say where its GPUs hold none."""
        gpus = usable_gpus() if self.gpus else 0
        slots = self.slots(usable_cores(), gpus)
        if self.gpus * self.workers <= gpus:
            return max(1, slots), None
        needed = f"{self.gpus * self.workers:g} GPU{'s' if self.gpus * self.workers > 1 else ''}"
        has = f"this machine has {gpus}" if gpus else "this machine has none"
        return 1, (
            f"a trial needs {needed}, and {has}: times are for one trial at a time; it runs on a machine that has "
            "them, or on a cluster (--address)"
        )

    def gpus_to_hold(self, at_once: int, gpus: int) -> float:
        """GPUs that a worker holds while `at_once` trials run on so many GPUs: what it asks for, or more of a device.

        Ray fills one device with shares before it begins the next. So a share is as large as it can be with this many
        trials at once, and then no device holds more of them than it must.

        >>> Demand(gpus=0.25).gpus_to_hold(at_once=2, gpus=2), Demand(gpus=0.25).gpus_to_hold(at_once=6, gpus=2)
        (1.0, 0.3333)
        """
        if not 0 < self.gpus < 1:
            return self.gpus
        per_device = min(_shares(self.gpus), math.ceil(max(1, at_once) / gpus))
        return math.floor(_RAY_UNITS / per_device) / _RAY_UNITS

    def require_processors(self) -> int:
        """The CPUs of this machine, which hold at least one trial.

        Raises:
            ConfigError: They do not.
        """
        cpus = usable_cores()
        self.require(self.cpus * self.workers <= cpus, f"this machine has {cpus} CPUs{_ELSEWHERE}")
        return cpus

    def require_this_machine(self) -> int:
        """The CPUs of this machine, which holds at least one trial, GPUs included.

        Raises:
            ConfigError: It does not.
        """
        cpus = self.require_processors()
        if self.gpus:
            gpus = usable_gpus()
            self.require(self.gpus * self.workers <= gpus, f"this machine has {gpus} GPUs{_ELSEWHERE}")
        return cpus


def _shares(share: float) -> int:
    """How many shares of this size one device holds."""
    return math.floor(1 / share + 1e-9)


def usable_gpus() -> int:
    """GPUs that this process may use: those that torch sees, or as many as ``STACKWISE_GPUS`` says.

    With the variable, a machine without a GPU runs a sweep's placement: its trials hold GPUs that only Ray counts, and
    train with ``training.device: cpu``. Imports torch (seconds) where the variable is not set, so ask for it only where
    a trial is to have a GPU.

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
