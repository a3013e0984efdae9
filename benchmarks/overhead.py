"""What the machinery costs beside the training itself: a sweep's overhead a trial, its fixed cost, and the loop's.

    python benchmarks/overhead.py                # about ten minutes on 2 cores
    python benchmarks/overhead.py --loop         # only the loop against a bare PyTorch loop

Sweeps of n trials that take t seconds (t as the worker's function itself measures it: build, loop, evaluation,
checkpoint) are run as whole processes, and wall = n·(t + h)/slots + c is solved for h (a trial) and c (fixed) by least
squares over (n, t) = (240, 0 s), (60, 0 s), (30, 1 s), (10, 10 s), all of them in every round. The same is done in the
same rounds with two class trainables that do nothing of their own, with reused actors, under the same Ray settings: the
least that Ray Tune costs here. One sleeps for t; the other keeps its core busy for as long as our trials did, as a
training does, so that Tune's own work has to share the cores with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DESIGN = ((240, 0.0), (60, 0.0), (30, 1.0), (10, 10.0))
"""(trials, seconds of each). The first is there for h: without it a second of noise moves h by 0.03 s."""

SWEEP = """
name: overhead
question: What does a trial of about {seconds} s cost beside its own time?
base:
  model: decoder/gpt2_family/tiny
  data: markov
  training: classical
  overrides:
    training.budget: {budget}
    training.evaluations: 1
    data.seq_len: 64
    data.validation_tokens: 4096
    data.final_evaluation: fixed
    training.batch_tokens: 512
design:
  kind: arms
  arms: {{only: {{}}}}
replicates: {{seeds: {n}, block: seed}}
resources: {{cpus_per_trial: 1}}
tracking: {{experiment: overhead, keep_models: none}}
"""


def fit(walls: list[float], counts: list[int], sums: list[float], slots: int) -> tuple[float, float]:
    """h and c of wall = (Σt + n·h)/slots + c, by least squares."""
    rest = np.array(walls) - np.array(sums) / slots
    design = np.stack([np.array(counts) / slots, np.ones(len(walls))], axis=1)
    h, c = np.linalg.lstsq(design, rest, rcond=None)[0]
    return float(h), float(c)


def our_sweep(n: int, seconds: float, folder: Path) -> tuple[float, float]:
    """(wall seconds of the whole command, Σ of the trials' own time)."""
    budget = "{steps: 1}" if seconds == 0 else f"{{wall_seconds: {seconds}}}"
    file = folder / f"overhead_{n}.yaml"
    file.write_text(SWEEP.format(seconds=seconds, budget=budget, n=n))
    began = time.perf_counter()
    command = [sys.executable, "-m", "stackwise_ray.sweep", str(file), "--output", str(folder / f"out{n}")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    trials = (folder / f"out{n}" / "overhead" / "trials").glob("*/outputs/metrics.json")
    own = [json.loads(path.read_text())["time/total_s"] for path in trials]
    assert len(own) == n, f"{len(own)} of {n} trials left their metrics"
    return wall, sum(own)


def noop_sweep(n: int, seconds: float, kind: str) -> tuple[float, float]:
    """The same for a class trainable that sleeps or keeps its core busy."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--noop", str(n), str(seconds), kind]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, n * seconds


def run_noop(n: int, seconds: float, kind: str) -> None:
    """In a process of its own: n trials that do nothing of their own, under the settings that a sweep uses."""
    from ray import tune
    from ray.tune.search import Searcher

    from stackwise_ray.distributed.session import ray_session
    from stackwise_ray.planning.demand import Demand

    class Nothing(tune.Trainable):
        def setup(self, config: dict) -> None: ...

        def reset_config(self, new_config: dict) -> bool:
            return True

        def step(self) -> dict:
            if kind == "sleeps":
                time.sleep(seconds)
                return {"done": True}
            end, matrix = time.perf_counter() + seconds, np.ones((128, 128))
            while time.perf_counter() < end:
                matrix @ matrix
            return {"done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

        def load_checkpoint(self, checkpoint: object) -> None: ...

    class Count(Searcher):
        left = n

        def suggest(self, trial_id: str) -> dict | str:
            self.left -= 1
            return {"i": self.left} if self.left >= 0 else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None: ...

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    with ray_session(Demand()) as session:
        tune.Tuner(
            tune.with_resources(Nothing, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=Count(), num_samples=-1, max_concurrent_trials=session.slots, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=str(session.temp_directory), name="noop", verbose=0),
        ).fit()


def loop_ratio(rounds: int = 5, steps: int = 60) -> list[float]:
    """tokens/s of the product's loop over a bare PyTorch loop on the same model, interleaved, one thread."""
    import torch

    import stackwise_ray as sw
    from stackwise_ray.config.trial.editing import edit
    from stackwise_ray.data import TrainingOrder, gather, prepare
    from stackwise_ray.optim import build_optimizer

    torch.set_num_threads(1)
    trial = sw.load_trial(["model=decoder/gpt2_family/tiny", "data=markov", "training.budget={steps: 1}"])
    trial = edit(
        trial,
        {"training.budget": {"steps": steps}, "training.evaluations": 1, "data.final_evaluation": "fixed"},
    )
    data = prepare(trial.data)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return sw.train(trial, output=folder).metrics["throughput/tokens_per_s"]

    def bare() -> float:
        torch.manual_seed(0)
        model = sw.build_model(trial, vocab_size=data.vocab_size).train()
        optimizer = build_optimizer(model, trial.optimizer, trial.training.lr)
        tokens = data.splits["train"].tokens
        order = TrainingOrder(len(tokens), trial.data.seq_len, 0)
        batch = trial.training.batch_tokens // trial.data.seq_len
        began = time.perf_counter()
        for step in range(steps):
            inputs, targets = map(
                torch.from_numpy, gather(tokens, order.windows(step * batch, batch), trial.data.seq_len)
            )
            loss = torch.nn.functional.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return steps * trial.training.batch_tokens / (time.perf_counter() - began)

    ours(), bare()  # warm-up
    return [ours() / bare() for _ in range(rounds)]


def sweeps(rounds: int) -> dict[str, object]:
    """h and c of the product and of the two trainables that do nothing, measured in turn."""
    slots = len(os.sched_getaffinity(0))
    walls: dict[str, list[float]] = {"stackwise": [], "no-op, busy": [], "no-op, sleeps": []}
    sums: dict[str, list[float]] = {kind: [] for kind in walls}
    for n, seconds in DESIGN * rounds:
        own = 0.0
        for kind in walls:
            if kind == "stackwise":
                with tempfile.TemporaryDirectory() as folder:
                    wall, own = our_sweep(n, seconds, Path(folder))
                spent = own
            elif kind == "no-op, busy":
                wall, spent = noop_sweep(n, own / n, "busy")
            else:
                wall, spent = noop_sweep(n, seconds, "sleeps")
            walls[kind].append(wall)
            sums[kind].append(spent)
            print(f"{kind}: n = {n}, t = {spent / n:.2f} s: wall {wall:.1f} s", flush=True)
    results: dict[str, object] = {"design": [list(point) for point in DESIGN * rounds], "slots": slots}
    for kind in walls:
        h, c = fit(walls[kind], [n for n, _ in DESIGN * rounds], sums[kind], slots)
        results[kind] = {"h_s": h, "c_s": c, "walls_s": walls[kind], "own_s": sums[kind]}
        print(f"{kind}: h = {h:.3f} s a trial, c = {c:.1f} s", flush=True)
    return results


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noop", nargs=3, metavar=("N", "SECONDS", "KIND"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1, help="sweeps of every size and kind")
    parser.add_argument("--loop", action="store_true", help="only the loop's tokens/s")
    parser.add_argument("--json", type=Path, help="also write the results here")
    options = parser.parse_args(argv)
    if options.noop:
        run_noop(int(options.noop[0]), float(options.noop[1]), options.noop[2])
        return
    results: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "python": sys.version.split()[0],
    }
    ratios = loop_ratio()
    results["loop_over_bare"] = {"median": float(np.median(ratios)), "all": ratios}
    print(
        f"loop / bare PyTorch loop, tokens/s: median {np.median(ratios):.3f} of {[f'{r:.3f}' for r in ratios]}",
        flush=True,
    )
    if not options.loop:
        results |= sweeps(options.rounds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
