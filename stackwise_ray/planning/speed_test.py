"""A few real steps of a trial, timed: one sample of how fast this machine trains.

`planning.calibration_runs` starts this module as a process (`main`). Model, data, optimizer and step are those of a
real run; nothing is saved and nothing is evaluated.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import psutil
import torch

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.calibration_store import CalibrationKey, Sample
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import load_plugin
from stackwise_ray.data import PreparedData, prepare
from stackwise_ray.planning.calibration_key import backend_of, calibration_key
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.training.assembly import assemble, choose_device, deterministic, float32_products
from stackwise_ray.training.budget import batch_sequences
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.step import TrainingStep

FEWEST_STEPS = 2
_WARM_UP = 2  # steps under the meter, which slows them down: the first builds the optimizer's state


def measure(
    trial: TrialConfig, data: PreparedData, *, threads: int, baseline_bytes: int, seconds: float = 1.5
) -> tuple[CalibrationKey, Sample]:
    """Trains for about `seconds` (and at least `FEWEST_STEPS` steps) after a warm-up, with `threads` torch threads.

    Args:
        trial: Its budget does not matter, and neither does its seed.
        baseline_bytes: Resident bytes of this process before the first model was built.

    Returns:
        The kind of run, and what was measured: counted FLOPs over seconds of training, seconds until the first step
        had been made, measured over planned peak of live tensors.

    Raises:
        ConfigError: The trial cannot be built.
    """
    torch.set_num_threads(threads)
    device = choose_device(trial.training.device)
    began = time.perf_counter()
    assembly = assemble(trial, data, device)
    tools = assembly.enter(assembly.plan.stages[0])
    meter = Meter(assembly.model, device, Alone())
    step = TrainingStep(assembly, tools, Alone())
    sequences = batch_sequences(assembly.trial)

    def take(number: int) -> None:
        lr = assembly.trial.training.lr
        if meter.knows(0, sequences, number):
            step.take(step=number, first_sequence=number * sequences, n_sequences=sequences, lr=lr)
        else:
            with meter.step(0, sequences, number, tools.optimizer, tools.capped) as passes:
                step.take(step=number, first_sequence=number * sequences, n_sequences=sequences, lr=lr, passes=passes)

    with deterministic(device), float32_products(trial, device):
        if not step.warm:
            step.warm_up(sequences)
        take(0)
        startup_s = time.perf_counter() - began
        for number in range(1, _WARM_UP):
            take(number)
        done, began = 0, _now(device)
        while done < FEWEST_STEPS or _now(device) - began < seconds:
            take(_WARM_UP + done)
            done += 1
        elapsed = _now(device) - began
    flops = meter.flops_of(0, sequences)
    per_step = flops.forward + flops.backward + flops.optimizer
    planned = plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)
    peak = meter.device_peak()
    on_gpu = device.type == "cuda"
    kind = calibration_key(
        assembly.trial,
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        threads=threads,
        backend=backend_of(assembly.trial, device.type),
    )
    return kind, Sample(
        flops_per_step=per_step,
        flops_per_s=per_step * done / elapsed,
        startup_s=startup_s,
        baseline_bytes=baseline_bytes,
        memory_ratio=None if peak is None else peak / planned.live_peak_bytes,
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main(arguments: list[str]) -> None:
    """``threads seconds plugins words...``: measures each trial (its words joined by blanks), one line of JSON each.

    The plugins are a JSON list of what `--plugin` names; they are loaded first.

    A line is ``{"words", "kind", "sample"}``, or ``{"words", "problem"}`` for a trial that cannot be built.
    """
    threads, seconds = int(arguments[0]), float(arguments[1])
    import transformers  # noqa: F401  (a worker has it loaded before it builds a model: part of the baseline)

    baseline_bytes = psutil.Process().memory_info().rss
    for plugin in json.loads(arguments[2]):
        load_plugin(plugin)
    for words in arguments[3:]:
        try:
            trial = load_trial(words.split())
            kind, sample = measure(
                trial, prepare(trial.data), threads=threads, baseline_bytes=baseline_bytes, seconds=seconds
            )
            answer = {"words": words, "kind": asdict(kind), "sample": asdict(sample)}
        except ConfigError as error:
            answer = {"words": words, "problem": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
