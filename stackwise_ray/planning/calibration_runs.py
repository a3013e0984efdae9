"""Measures how fast this machine trains and stores the samples: what `doctor` does for `sweep --plan`.

`planning.speed_test` measures in processes of its own, as many at once as a sweep would run trials, since a core that
works alone is faster than one whose neighbours work too. This side starts them, reads their answers and keeps the
samples.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.trial import Mixer
from stackwise_ray.core.calibration_store import CPU, Calibration, CalibrationKey, Sample
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import loaded
from stackwise_ray.core.processes import ErrorLines, process_group

MOST_AT_ONCE = 8
"""Most measuring processes at once; each takes about 0.5 GB of memory."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What all processes measured of one trial.

    Attributes:
        words: The trial, as command-line words joined by blanks.
        samples: One of each process; empty where there was a problem.
        problem: Why it could not be measured.
    """

    words: str
    samples: tuple[Sample, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one measuring process trains.

    Attributes:
        device: What `training.device` is: cpu or cuda.
        variables: Environment variables that the process gets beside those of this one: they pin it to its GPU.
    """

    device: str
    variables: Mapping[str, str] = field(default_factory=dict)


def places(device: str, threads: int, *, cores: int, gpus: int, visible: str | None = None) -> tuple[Place, ...]:
    """The processes that measure at the same time: one per GPU, or on the CPU as many as trials would run there.

    Args:
        device: cpu or cuda.
        threads: torch threads per trial.
        cores, gpus: What this machine has of them.
        visible: The variable CUDA_VISIBLE_DEVICES: the names of the GPUs; None: 0, 1, …

    >>> [place.variables["CUDA_VISIBLE_DEVICES"] for place in places("cuda", 1, cores=16, gpus=2, visible="3,5")]
    ['3', '5']
    """
    fit = max(1, min(cores // threads, MOST_AT_ONCE))
    if device == CPU:
        return (Place(device=CPU),) * fit
    names = [str(number) for number in range(gpus)] if visible is None else visible.split(",")[:gpus]
    return tuple(Place(device=device, variables={"CUDA_VISIBLE_DEVICES": name.strip()}) for name in names[:fit])


def places_here(device: str, threads: int) -> tuple[Place, ...]:
    """The `places` of this machine."""
    if device == CPU:
        return places(device, threads, cores=usable_cores(), gpus=0)
    import torch  # which the doctor has loaded

    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or None
    return places(device, threads, cores=usable_cores(), gpus=torch.cuda.device_count(), visible=visible)


def tiny_trials() -> list[str]:
    """The words of one trial for every model preset called tiny, and for every mixer where the model has one.

    A preset that cannot be loaded is one trial, too; its measurement reports why.
    """
    mixers = [kind.kind for kind in get_args(get_args(Mixer)[0])]
    trials: list[str] = []
    for preset in list_presets("model"):
        if preset.rpartition("/")[2] == "tiny":
            choice = f"model={preset}"
            try:
                has_mixer = load_trial([choice]).model.mixer is not None
            except ConfigError:
                has_mixer = False
            trials += [f"{choice} model.mixer.kind={kind}" for kind in mixers] if has_mixer else [choice]
    return trials


def calibrate(
    trials: Sequence[str],
    *,
    at: Sequence[Place],
    threads: int,
    seconds: float,
    calibration: Calibration | None = None,
) -> Iterator[Measurement]:
    """Measures each trial in one process per place, all at once, and stores every sample.

    Args:
        trials: Each as command-line words joined by blanks.
        at: The places.
        threads: torch threads per trial.
        seconds: Seconds of training per measurement.
        calibration: Where the samples go; None: the machine's.

    Yields:
        One measurement per trial, as soon as all processes have made it. After a process has died, no more follow.
    """
    calibration = calibration or Calibration()
    plugins = json.dumps([plugin.name for plugin in loaded()])
    command = [sys.executable, "-m", "stackwise_ray.planning.speed_test", str(threads), str(seconds), plugins]
    with contextlib.ExitStack() as stack:
        groups = [
            process_group(
                [*command, *(f"{words} training.device={place.device}" for words in trials)],
                {"OMP_NUM_THREADS": str(threads), **place.variables},
            )
            for place in at
        ]
        processes = [stack.enter_context(group) for group in groups]
        errors = [ErrorLines(process) for process in processes]
        for words in trials:
            lines = [process.stdout.readline() if process.stdout else "" for process in processes]
            if not all(lines):
                yield Measurement(words=words, problem=errors[lines.index("")].last())
                return
            answers = [json.loads(line) for line in lines]
            problem = next((answer["problem"] for answer in answers if "problem" in answer), None)
            if problem is not None:
                yield Measurement(words=words, problem=problem)
                continue
            samples = tuple(Sample(**answer["sample"]) for answer in answers)
            for answer, sample in zip(answers, samples, strict=True):
                calibration.add(CalibrationKey(**answer["kind"]), sample)
            yield Measurement(words=words, samples=samples)
