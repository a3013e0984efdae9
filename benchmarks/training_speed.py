"""Tokens per second of a training step: this project's loop beside `transformers.Trainer` and a bare loop.

    python benchmarks/training_speed.py                   # GPT-2 tiny, on this machine's GPU or processor
    python benchmarks/training_speed.py --model decoder/gpt2_family/small --precision bf16 --compile --steps 100

All of them train the same model on the same batches with fused AdamW, one after the other in each round, and the ratio
to the bare loop is taken within a round: what else the machine does then falls on all of them. With `--compile` the
bare loop and ours compile their passes outside the clock; Trainer does so by its own option in its first steps, which
are not timed. Writes `training_speed.json` with the device and the versions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import stackwise_ray as sw
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.environment import cpu_model
from stackwise_ray.data import PreparedData, TrainingOrder, gather, prepare
from stackwise_ray.optim import build_optimizer

RESULTS = Path(__file__).parent / "results"
WARM_UP = 4
"""Steps before the clock."""
DTYPES = {"float32": None, "bf16": torch.bfloat16}


def batch_of(trial: TrialConfig, data: PreparedData, order: TrainingOrder, step: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a step, the same for every contestant."""
    n = trial.training.batch_tokens // trial.data.seq_len
    inputs, targets = gather(data.splits["train"].tokens, order.windows(step * n, n), trial.data.seq_len)
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def model_of(trial: TrialConfig, data: PreparedData) -> nn.Module:
    torch.manual_seed(0)
    return sw.build_model(trial, vocab_size=data.vocab_size).train()


def wait(device: torch.device) -> float:
    """The time when everything asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def ours(trial: TrialConfig, data: PreparedData, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return sw.train(trial, output=folder).metrics["throughput/tokens_per_s"]


def bare(trial: TrialConfig, data: PreparedData, steps: int) -> float:
    device = torch.device(trial.training.device)
    model = model_of(trial, data).to(device)
    optimizer = build_optimizer(model, trial.optimizer, trial.training.lr)  # type: ignore[arg-type]
    network = torch.compile(model, fullgraph=True, dynamic=False) if trial.training.compile else model
    order = TrainingOrder(data.splits["train"].n_tokens, trial.data.seq_len, 0)
    dtype = DTYPES[trial.training.precision]
    began = 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            began = wait(device)
        inputs, targets = (
            x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x
            for x in batch_of(trial, data, order, step)
        )
        with torch.autocast(device.type, dtype=dtype) if dtype is not None else contextlib.nullcontext():
            logits = network(inputs).logits.flatten(0, 1)
            loss = nn.functional.cross_entropy(logits, targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return steps * trial.training.batch_tokens / (wait(device) - began)


def trainer(trial: TrialConfig, data: PreparedData, steps: int) -> float:
    device = torch.device(trial.training.device)
    order = TrainingOrder(data.splits["train"].n_tokens, trial.data.seq_len, 0)
    per_step = trial.training.batch_tokens // trial.data.seq_len
    rows: list[dict[str, Tensor]] = []
    for step in range(WARM_UP + steps):
        inputs, _ = batch_of(trial, data, order, step)
        rows += [{"input_ids": row, "labels": row} for row in inputs]
    marks: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (WARM_UP, WARM_UP + steps):
                marks.append(wait(device))

    with tempfile.TemporaryDirectory() as folder:
        transformers.Trainer(
            model=model_of(trial, data),
            train_dataset=rows,  # type: ignore[arg-type]  # a list of rows is what its loader takes
            args=transformers.TrainingArguments(
                output_dir=folder,
                max_steps=WARM_UP + steps,
                per_device_train_batch_size=per_step,
                learning_rate=trial.training.lr,
                bf16=trial.training.precision == "bf16",
                torch_compile=trial.training.compile,
                use_cpu=device.type == "cpu",
                optim="adamw_torch_fused",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
            ),
            callbacks=[Clock()],
        ).train()
    return steps * trial.training.batch_tokens / (marks[1] - marks[0])


CONTESTANTS: dict[str, Callable[[TrialConfig, PreparedData, int], float]] = {
    "stackwise_ray": ours,
    "transformers.Trainer": trainer,
    "bare loop": bare,
}


def measure(trial: TrialConfig, steps: int, rounds: int) -> dict[str, Any]:
    data = prepare(trial.data)
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        for name, run in CONTESTANTS.items():
            found[name].append(run(trial, data, steps))
            print(f"round {number + 1}: {name:20} {found[name][-1]:,.0f} tokens/s", flush=True)
    ratios = {
        name: statistics.median(mine / base for mine, base in zip(speeds, found["bare loop"], strict=True))
        for name, speeds in found.items()
    }
    for name, ratio in ratios.items():
        print(f"{name:20} {ratio:.3f} of the bare loop (median of {rounds} rounds)")
    return {"tokens_per_s": found, "over_bare": ratios}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="decoder/gpt2_family/tiny", help="a preset")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for training_speed.json")
    given = sys.argv[1:] if argv is None else argv
    asked = parser.parse_args(given)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    words = [
        f"model={asked.model}",
        "data=markov",
        f"data.seq_len={asked.seq_len}",
        "data.final_evaluation=fixed",
        f"training.budget={{steps: {asked.steps + WARM_UP}}}",
        f"training.batch_tokens={asked.batch_tokens}",
        f"training.device={asked.device}",
        f"training.precision={asked.precision}",
        f"training.compile={str(asked.compile).lower()}",
        "training.evaluations=1",
    ]
    results = {
        "command": " ".join(["python benchmarks/training_speed.py", *given]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "device": torch.cuda.get_device_name() if asked.device == "cuda" else cpu_model(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": asked.model,
    }
    results |= measure(sw.load_trial(words), asked.steps, asked.rounds)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "training_speed.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
