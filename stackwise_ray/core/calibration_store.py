"""What this machine was measured to do: the numbers behind the hours and bytes that a plan prints.

`doctor` and every finished run record samples; `--plan` reads them. One JSON file in the user's cache
(`calibration_path`) holds the last samples of each kind of run on each kind of machine, and a value is their median:
the last 15 follow a change of library or of cooling, the median ignores a run that shared the machine. What was not
measured is not predicted: every prediction may be None.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stackwise_ray.core.atomic import atomic_write_json
from stackwise_ray.core.cache_place import cache_directory
from stackwise_ray.core.environment import cpu_model, usable_cores

SAMPLES_KEPT = 15
SAME_SIZE = 4.0
"""Samples within this factor of a run's FLOPs per step count as its size: achieved FLOP/s rise with the size of the
matrices, so where there are samples this near, those farther off are left out, and samples of one size never replace
those of another."""
_SIZE = "flops_per_step"
_VERSION = 1
CPU = "cpu"
_APART, _DEVICE_PART = " | ", 2  # of a key's text: what lies between its parts, and which of them is the device


@dataclass(frozen=True, kw_only=True)
class CalibrationKey:
    """What the speed of a run depends on, besides its size.

    Attributes:
        mixer: Kind of the bk family's mixer, None in other families.
        device: "cpu", or the name of the GPU.
        threads: torch threads on a CPU; 0 on a GPU.
        backend: Backend of the resolvent kernels, None where the model has none.
        precision: Autocast type.
        compiled: Whether the passes of a step are compiled.
        tf32: Whether a GPU computes float32 matrix products in TF32.
        gpu_share: Share of one GPU that the run had; 1 on a CPU and on a whole GPU.
    """

    family: str
    mixer: str | None = None
    device: str = "cpu"
    threads: int = 1
    backend: str | None = None
    precision: str = "float32"
    compiled: bool = False
    tf32: bool = False
    gpu_share: float = 1.0

    def text(self) -> str:
        """One line, as the file has it."""
        parts = (self.family, self.mixer, self.device, f"{self.threads} threads", self.backend, self.precision)
        switched_on = [name for name, on in (("compiled", self.compiled), ("tf32", self.tf32)) if on]
        shared = [f"share {self.gpu_share:g}"] if self.gpu_share < 1 else []
        return _APART.join("-" if part is None else str(part) for part in (*parts, *switched_on, *shared))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one run measured; fields that it did not measure are None.

    Attributes:
        flops_per_step: Counted training FLOPs of one optimizer step: the size at which the rest was measured.
        flops_per_s: Counted training FLOPs over the seconds of the training loop.
        startup_s: Seconds from the start of the worker's function to its first step (build, load), and
            all that it compiled.
        baseline_bytes: Resident bytes of the worker process before the model was built.
        memory_ratio: Measured over predicted peak of live tensor bytes.
    """

    flops_per_step: float
    flops_per_s: float | None = None
    startup_s: float | None = None
    baseline_bytes: float | None = None
    memory_ratio: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and (value > 0 or field.name == "startup_s")):
                raise ValueError(f"calibration sample: {field.name} = {value} is no measurement")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Medians for one kind of run at one size, each of the nearest samples that have the field; None: none has it."""

    flops_per_s: float | None
    startup_s: float | None
    baseline_bytes: float | None
    memory_ratio: float | None


class Calibration:
    """The machine's stored measurements.

    Args:
        path: The file; `calibration_path()` if None.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else calibration_path()

    def add(self, key: CalibrationKey, sample: Sample) -> None:
        """Appends a sample; of each field, the newest `SAMPLES_KEPT` of the kind and about this size stay.

        Safe among processes.
        """
        with self._changed() as everything:
            kinds = everything["machines"].setdefault(machine_signature(), {})
            kinds[key.text()] = _newest([*_valid(kinds.get(key.text(), [])), sample])

    def measured(self, key: CalibrationKey, flops_per_step: float) -> Measured | None:
        """The medians for a run of this kind and size, from the nearest samples; None where there are none."""
        samples = self._samples(key)
        if not samples:
            return None
        return Measured(
            flops_per_s=_nearest_median(samples, "flops_per_s", flops_per_step),
            startup_s=_nearest_median(samples, "startup_s", flops_per_step),
            baseline_bytes=_nearest_median(samples, "baseline_bytes", flops_per_step),
            memory_ratio=_nearest_median(samples, "memory_ratio", flops_per_step),
        )

    def predict_seconds(
        self, key: CalibrationKey, *, flops_per_step: float, flops_total: float, flops_evaluation: float = 0.0
    ) -> float | None:
        """Seconds that one trial takes in its worker, or None where this kind of run was never measured here.

        Evaluation is taken at the speed of training: the counted FLOPs of a forward pass cost about the same.

        Args:
            flops_total: Counted training FLOPs of the whole trial.
            flops_evaluation: Counted FLOPs of its evaluations.
        """
        measured = self.measured(key, flops_per_step)
        if measured is None or measured.flops_per_s is None:
            return None
        return (measured.startup_s or 0.0) + (flops_total + flops_evaluation) / measured.flops_per_s

    def predict_peak_bytes(self, key: CalibrationKey, *, flops_per_step: float, live_peak_bytes: float) -> float | None:
        """Peak of live tensor bytes expected on this machine, from the plan's; None where never measured here."""
        measured = self.measured(key, flops_per_step)
        if measured is None or measured.memory_ratio is None:
            return None
        return measured.memory_ratio * live_peak_bytes

    def add_start(self, seconds: float) -> None:
        """Appends how long a sweep on this machine took from its command to the first report of a trial."""
        with self._changed() as everything:
            starts = everything.setdefault("starts", {}).setdefault(machine_signature(), [])
            starts.append(seconds)
            del starts[:-SAMPLES_KEPT]

    def start_seconds(self) -> float | None:
        """The median of `add_start` on this machine; None: no sweep has run."""
        starts = self._load().get("starts", {}).get(machine_signature(), [])
        return statistics.median(starts) if starts else None

    def gpus(self) -> tuple[str, ...]:
        """Names of the GPUs, of whatever machine, that something was measured on."""
        kinds = (text for kinds in self._load()["machines"].values() for text in kinds)
        devices = (text.split(_APART)[_DEVICE_PART] for text in kinds if text.count(_APART) > _DEVICE_PART)
        return tuple(sorted({device for device in devices if device != CPU}))

    def _samples(self, key: CalibrationKey) -> list[Sample]:
        """What is stored of a kind.

        What this machine has not measured on a GPU, other machines with a GPU of this name have.
        """
        machines, text = self._load()["machines"], key.text()
        stored = machines.get(machine_signature(), {}).get(text, [])
        if not stored and key.device != CPU:
            stored = [entry for kinds in machines.values() for entry in kinds.get(text, [])]
        return _valid(stored)

    @contextlib.contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """The file's content, written back at the end; one process at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            everything = self._load()
            yield everything
            atomic_write_json(self.path, everything)

    def _load(self) -> dict[str, Any]:
        """The file's content; a damaged file or one of another version holds no measurements (it is only a cache)."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            parts = (content["machines"], content.get("starts", {}))
            if content["version"] == _VERSION and all(isinstance(part, dict) for part in parts):
                return dict(content)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {"version": _VERSION, "machines": {}}


def calibration_path() -> Path:
    """``calibration.json`` in the cache."""
    return cache_directory() / "calibration.json"


def machine_signature() -> str:
    """The kind of machine: a shared home directory serves many, and equal ones share their measurements."""
    return f"{cpu_model()} x{usable_cores()}"


def _valid(entries: list[dict[str, float]]) -> list[Sample]:
    """The entries that are measurements; others count as not there, as a damaged file does."""
    samples = []
    for entry in entries:
        with contextlib.suppress(TypeError, ValueError):
            samples.append(Sample(**entry))
    return samples


def _newest(samples: list[Sample]) -> list[dict[str, float]]:
    """Of each field and size its newest values (most runs do not measure every field); the rest of a sample goes."""
    counts: Counter[tuple[str, int]] = Counter()
    kept = []
    for sample in reversed(samples):
        size = round(math.log(sample.flops_per_step, SAME_SIZE))
        known = {name: value for name, value in asdict(sample).items() if value is not None and name != _SIZE}
        young = {name: value for name, value in known.items() if counts[name, size] < SAMPLES_KEPT}
        counts.update((name, size) for name in young)
        if young:
            kept.append({_SIZE: sample.flops_per_step, **young})
    return kept[::-1]


def _nearest_median(samples: list[Sample], name: str, flops_per_step: float) -> float | None:
    """The median of a field over the samples of this size that have it, else over those of the nearest size."""
    measured = [(sample, value) for sample in samples if (value := getattr(sample, name)) is not None]
    distances = [abs(math.log(sample.flops_per_step / flops_per_step)) for sample, _ in measured]
    reach = max(min(distances, default=0.0), math.log(SAME_SIZE)) + 1e-9
    near = [value for (_, value), distance in zip(measured, distances, strict=True) if distance <= reach]
    return statistics.median(near) if near else None
