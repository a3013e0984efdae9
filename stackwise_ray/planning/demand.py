"""What one trial of a sweep asks of the machines, and the refusal where it asks for more than there is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stackwise_ray.config.space.sweep_config import Resources
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError

GPUS_VARIABLE = "STACKWISE_GPUS"
"""How many GPUs a sweep counts with, instead of those that torch sees (see `usable_gpus`)."""
_ELSEWHERE = " (name a cluster with --address to plan or run there)"


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one trial needs, from the sweep's `resources`.

    Attributes:
        cpus: CPUs per worker; also its number of torch threads.
        gpus: GPUs per worker.
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

    def require_this_machine(self) -> int:
        """The CPUs of this machine, which hold at least one trial.

        Raises:
            ConfigError: They do not.
        """
        cpus = usable_cores()
        self.require(self.cpus * self.workers <= cpus, f"this machine has {cpus} CPUs{_ELSEWHERE}")
        if self.gpus:
            gpus = usable_gpus()
            self.require(self.gpus * self.workers <= gpus, f"this machine has {gpus} GPUs{_ELSEWHERE}")
        return cpus


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
