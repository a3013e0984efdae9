"""Measures how fast this machine trains and stores the samples: what `doctor` does for `sweep --plan`.

`planning.speed_test` measures in processes of its own, as many at once as a sweep would run trials, since a core that
works alone is faster than one whose neighbours work too. This side starts them, reads their answers and keeps the
samples.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.trial import Mixer
from stackwise_ray.core.calibration_store import Calibration, CalibrationKey, Sample
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import loaded
from stackwise_ray.core.processes import ErrorLines, process_group

MOST_AT_ONCE = 8
"""Measuring processes; each holds about 0.5 GB."""


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


def processes_at_once(threads: int) -> int:
    """Trials of so many threads that this machine runs at once, bounded by `MOST_AT_ONCE`."""
    return max(1, min(usable_cores() // threads, MOST_AT_ONCE))


def tiny_trials() -> list[str]:
    """The words of one trial for every model preset called tiny, and for every mixer where the model has one.

    A preset that is wrong is one trial; measuring it says what is wrong.
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
    trials: Sequence[str], *, threads: int, seconds: float, calibration: Calibration | None = None
) -> Iterator[Measurement]:
    """Measures each trial in `processes_at_once` processes and stores every sample.

    Args:
        trials: Each as command-line words joined by blanks.
        threads: torch threads per trial.
        seconds: Of training, per measurement.
        calibration: Where the samples go; None: the machine's.

    Yields:
        A measurement per trial, as soon as all processes have made it; after a process has died none follows.
    """
    calibration = calibration or Calibration()
    plugins = json.dumps([plugin.name for plugin in loaded()])
    command = [sys.executable, "-m", "stackwise_ray.planning.speed_test", str(threads), str(seconds), plugins, *trials]
    with contextlib.ExitStack() as stack:
        groups = [process_group(command, {"OMP_NUM_THREADS": str(threads)}) for _ in range(processes_at_once(threads))]
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
