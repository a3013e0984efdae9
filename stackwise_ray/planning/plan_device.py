"""The device on which a plan assumes that its trials run. Its name is a key of the calibration, as in a run's samples.

Called by the plans of sweeps and of `train`. A process that trains chooses its device itself, by
`training.assembly.choose_device`. Both follow `training.device` and the GPUs that a trial is given.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.calibration_store import Calibration
from stackwise_ray.planning.calibration_key import backend_of

CPU = "cpu"
UNKNOWN_GPU = "cuda"
"""A GPU of unknown name: this machine has none, and the stored measurements are of no kind of GPU or of several."""


@dataclass(frozen=True, kw_only=True)
class PlanDevice:
    """Where trials run that may use a GPU.

    Attributes:
        name: "cpu", the name of the GPU, or `UNKNOWN_GPU`.
        here: Whether it is a device of this machine.
        share: Share of it that a trial asks for.
    """

    name: str = CPU
    here: bool = True
    share: float = 1.0

    @classmethod
    def given(cls, gpus: float, calibration: Calibration) -> PlanDevice:
        """The device of a trial that is given this number of GPUs.

        Without a GPU on this machine it is the one kind of GPU whose speed is stored, if there is exactly one. A cache
        in a shared home directory contains what other nodes have measured.
        """
        if not gpus:
            return cls()
        import torch  # seconds, and only a GPU needs it

        share = min(1.0, gpus)
        if torch.cuda.is_available():
            return cls(name=torch.cuda.get_device_name(0), share=share)
        measured = calibration.gpus()
        return cls(name=measured[0] if len(measured) == 1 else UNKNOWN_GPU, here=False, share=share)

    def of(self, trial: TrialConfig) -> PlanDevice:
        """Where this trial runs."""
        return PlanDevice() if trial.training.device == CPU else self

    def backend(self, trial: TrialConfig) -> str | None:
        """The kernel backend of the trial; on another machine's GPU, the one of a complete installation."""
        if self.here:
            return backend_of(trial, CPU if self.name == CPU else "cuda")
        from stackwise_ray.kernels import BACKEND_VARIABLE, BACKENDS

        if backend_of(trial, CPU) is None:
            return None
        able = [backend for _, backend in BACKENDS.items() if backend.computes_on("cuda")]
        return os.environ.get(BACKEND_VARIABLE) or min(able, key=lambda backend: backend.rank).name
