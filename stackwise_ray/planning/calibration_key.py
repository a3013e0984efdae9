"""The key under which the planner looks up, and a run stores, what this machine was measured to do."""

from __future__ import annotations

from stackwise_ray.config.trial import ResolventApplyMixer, ResolventDiagonalMixer, TrialConfig
from stackwise_ray.core.calibration_store import CPU, CalibrationKey
from stackwise_ray.flags import apply_flags


def calibration_key(
    trial: TrialConfig, *, device: str, threads: int, backend: str | None, gpu_share: float = 1.0
) -> CalibrationKey:
    """The calibration's key for a trial: the same in the planner and in the run that records a sample.

    The edits of the trial's flags (of its precision, for example) count, whether or not they have been applied.

    Args:
        device: "cpu", or the name of the GPU.
        threads: torch threads of the process; on a GPU they do not count.
        gpu_share: Share of one GPU that the trial asks for. Other trials compute on the same GPU and make it slower.
    """
    trial = apply_flags(trial)
    mixer = trial.model.mixer
    return CalibrationKey(
        family=trial.model.family,
        mixer=None if mixer is None else mixer.kind,
        device=device,
        threads=threads if device == CPU else 0,
        backend=backend,
        precision=trial.training.precision,
        compiled=trial.training.compile,
        tf32=trial.training.tf32,
        gpu_share=1.0 if device == CPU else gpu_share,
    )


def backend_of(trial: TrialConfig, device_type: str) -> str | None:
    """The kernel backend of the trial's model on a type of device ("cpu", "cuda"); None: it has no resolvent."""
    if not isinstance(trial.model.mixer, ResolventApplyMixer | ResolventDiagonalMixer):
        return None
    from stackwise_ray.kernels import choose_backend  # with torch, which planning starts without

    return str(choose_backend(device=device_type))
