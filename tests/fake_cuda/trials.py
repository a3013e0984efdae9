"""What runs on the fake device: a trial of every model and precision, and what a trial can do beside plain steps.

`python -m tests.fake_cuda.trials REPORT [NAME ...]` runs them in this process, which needs the guard, and writes one
report per trial as JSON. Without a name the covering ones run, and a small one with each of the planted faults.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.core.calibration_store import calibration_path
from stackwise_ray.data import prepare
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.models import build_model
from stackwise_ray.planning.trial_plan import plan_trial
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.growth_options import Lora
from stackwise_ray.training.loop import TrainingLoop
from stackwise_ray.training.scoring import score_model
from stackwise_ray.training.step import TrainingStep
from tests.fake_cuda.device import FakeCuda, fake_cuda
from tests.fake_cuda.faults import FAULTS, Fault
from tests.own_cache import own_cache
from tests.small_models import MODELS
from tests.small_trials import TRIAL, run, with_data, with_model, with_training

PLAIN, COUNTED = "plain step", "counted step"
"""A step without instruments, of which nearly all of a run are, and one with them."""

Trial = Callable[[FakeCuda, Path], dict[str, Any]]


def on_gpu(model: str, precision: str = "bf16", **training: Any) -> TrialConfig:
    changes = {"device": "cuda", "precision": precision, "evaluations": 1, **training}
    return with_training(with_data(replace(TRIAL, model=MODELS[model]), validation_tokens=128), **changes)


def growing(model: str, regime: str, **training: Any) -> TrialConfig:
    return on_gpu(model, regime=regime, **{"budget": Budget(steps=9)} | training)


def trained(trial: TrialConfig, **options: Any) -> Trial:
    """Trains to the end; what the planner had counted beside what was counted."""

    def train(device: FakeCuda, folder: Path) -> dict[str, Any]:
        _, result = run(trial, folder, **options)
        path = calibration_path()
        stored = json.loads(path.read_text())["machines"] if path.exists() else {}
        return {
            "planned": _planned(trial),
            "counted": result.metrics["flops/total"],
            "environment": dict(result.environment),
            "measured": sorted({kind for kinds in stored.values() for kind in kinds}),
        }

    return train


def _planned(trial: TrialConfig) -> int | None:
    data = prepare(trial.data)
    splits = {name: split.n_tokens for name, split in data.splits.items()}
    return plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids, split_tokens=splits).flops_total


def interrupted(device: FakeCuda, folder: Path) -> dict[str, Any]:
    """Ctrl-C after three steps, which leaves a checkpoint, and a second attempt that goes on from it."""
    trial = on_gpu("gpt2", "fp16", checkpoint_seconds=0.0, budget=Budget(steps=9))
    generator = run_trial(trial, folder, trial_id="t", attempt=1, keep_model=False)
    while next(generator).step < 3:
        pass
    with contextlib.suppress(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt())
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    _, result = run(trial, folder, attempt=2)
    log = (folder / "logs" / "train.log").read_text()
    return {
        "planned": _planned(trial),
        "counted": result.metrics["flops/total"],
        "checkpoints": left,
        "continued": "attempt 2 continues after step" in log,
    }


def scored(device: FakeCuda, folder: Path) -> dict[str, Any]:
    """A saved model, scored on the whole splits of a text."""
    text = folder / "text.txt"
    text.write_text("what is read is what was written, and nothing else is. " * 200)
    model = build_model(MODELS["gpt2"], vocab_size=260, seq_len=16)
    model.save_pretrained(folder / "model")
    words = ["data=text_files", f"data.path={text}", "data.tokenizer=bytes", "data.seq_len=16"]
    device.during = "scoring"
    return {"scores": sorted(score_model(str(folder / "model"), words).metrics)}


def generated(model: str) -> Trial:
    def generate(device: FakeCuda, folder: Path) -> dict[str, Any]:
        built = build_model(MODELS[model], vocab_size=50, seq_len=16).to("cuda").eval()
        tokens = torch.ones(2, 4, dtype=torch.int64).to("cuda")
        device.during = "generating"
        device.truth = itertools.chain([False] * 6, itertools.repeat(True))  # whether every sequence has ended
        made = built.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None)
        return {"shape": list(made.shape)}

    return generate


_CACHED = with_data(
    growing("gpt2", "append", cache=True, budget=Budget(steps=12)),
    markov=MarkovSource(order=1, n_symbols=4, n_tokens=24 * 16 + 1),
)

TRIALS: dict[str, Trial] = {
    **{f"{model}, {p}": trained(on_gpu(model, p)) for model in MODELS for p in ("float32", "bf16")},
    "fp16": trained(on_gpu("gpt2", "fp16")),
    "fp16 of bk": trained(on_gpu("bk apply", "fp16")),
    "accumulation with checkpointed activations": trained(
        on_gpu("gpt2", accumulation=2, activation_checkpointing=True, evaluations=2)
    ),
    "whole splits on a share of the device": trained(
        with_data(on_gpu("llama"), final_evaluation="full"), gpus=0.25, calibrate=True
    ),
    "depth_time of a decoder": trained(growing("gpt2", "depth_time")),
    "depth_time of an encoder": trained(growing("bert", "depth_time", consistency=0.1), calibrate=True),
    "depth_time of bk": trained(growing("bk apply", "depth_time")),
    "append with a cache": trained(_CACHED),
    "LoRA": trained(growing("bert", "depth_time", trunk="lora", lora=Lora(rank=4, dual=1))),
    "hybrid": trained(growing("modernbert", "hybrid", pretraining_share=0.4)),
    "early exits": trained(replace(on_gpu("gpt2", budget=Budget(steps=9)), flags=("early_exit",))),
    "interruption": interrupted,
    "evaluation": scored,
    "generate": generated("gpt2"),
    "generate of bk": generated("bk apply"),
}
FAULTY = trained(with_training(with_model(on_gpu("gpt2"), n_layers=1), budget=Budget(steps=4)))
COVERING = (
    "gpt2, float32",
    "gpt2, bf16",
    "fp16",
    "bk encoder, float32",
    "bk apply, bf16",
    "bk diagonal, bf16",
    "bk attention, bf16",
    "bk without a mixer, float32",
    "bk with experts, bf16",
    "accumulation with checkpointed activations",
    "whole splits on a share of the device",
    "depth_time of an encoder",
    "depth_time of bk",
    "append with a cache",
    "LoRA",
    "hybrid",
    "early exits",
    "interruption",
    "evaluation",
    "generate",
    "generate of bk",
)
"""Trials that hold every model, every precision, each of CUDA's attention kernels, and everything that a trial does
beside plain steps; of the others each is one of these with another model or precision."""


# ------------------------------------------------------------------------------------------------------- running them


@contextlib.contextmanager
def _watched(device: FakeCuda, taken: list[str]) -> Iterator[None]:
    """Says which part of the program is running."""
    take, loop = TrainingStep.take, TrainingLoop

    def named(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before, device.during = device.during, name
            try:
                return method(*args, **kwargs)
            finally:
                device.during = before

        return call

    def taking(self: TrainingStep, **given: Any) -> Any:
        taken.append(PLAIN if given.get("passes") is None else COUNTED)
        return named(taken[-1], take)(self, **given)

    with (
        mock.patch.object(TrainingStep, "take", taking),
        mock.patch.object(loop, "save", named("checkpoint", loop.save)),
        mock.patch.object(loop, "_enter_stage", named("change of stage", loop._enter_stage)),
    ):
        yield


def report_of(trial: Trial, fault: Fault = contextlib.nullcontext) -> dict[str, Any]:
    """Runs one trial on a device of its own."""
    began, taken, found = time.perf_counter(), list[str](), dict[str, Any]()
    failure = None
    with tempfile.TemporaryDirectory() as folder, fault(), fake_cuda() as device, _watched(device, taken):
        try:
            found = trial(device, Path(folder))
        except Exception:
            failure = traceback.format_exc()
    return {
        **found,
        "failure": failure,
        "plain_steps": taken.count(PLAIN),
        "events": [[*event, count] for event, count in device.events.items()],
        "doubles": [[*event, count] for event, count in device.doubles.items()],
        "operations": [[*key, count] for key, count in device.operations.items()],
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # absent: peft would load it, and it asks CUDA's library
    # A cache of its own: else the speeds of a device without data would stand in the user's calibration.
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, {"STACKWISE_CACHE": str(own_cache(Path(cache)))}),
    ):
        reports = {name: report_of(TRIALS[name]) for name in asked.names or COVERING}
        if not asked.names:
            reports |= {name: report_of(FAULTY, fault) for name, fault in FAULTS.items()}
    asked.report.write_text(json.dumps(reports))


if __name__ == "__main__":
    main()
