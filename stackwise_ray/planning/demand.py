"""What one trial of a sweep asks of the machines, and the refusal where it asks for more than there is."""

from __future__ import annotations

from dataclasses import dataclass

from stackwise_ray.config.space.sweep_config import Resources
from stackwise_ray.core.environment import usable_cores, usable_gpus
from stackwise_ray.core.errors import ConfigError

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
