"""Runs that other programs record, each written by the library that owns the format.

A run is a mapping: what was set (arm, seed, task, params, tokens, flops) and what was measured (`val_loss`). A writer
takes a folder and runs, and returns what to give to `load_runs`. Libraries are imported by the writer that needs them.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = Mapping[str, Any]
METRIC = "val_loss"


def paired_runs(seeds: int = 5) -> list[dict[str, Any]]:
    """Two arms on the same seeds; muon is better by about .05."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, seeds))
    return [
        {"arm": arm, "seed": seed, METRIC: round(3.2 + seed * 3 % 7 / 50 - 0.05 * number + noise[number, seed], 4)}
        for number, arm in enumerate(("adam", "muon"))
        for seed in range(seeds)
    ]


def scored_runs() -> list[dict[str, Any]]:
    """Three arms on four tasks with two seeds; the first is the best on every task."""
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 4, 2))
    return [
        {"arm": arm, "task": task, "seed": seed, METRIC: round(2 + b / 10 + a / 20 + noise[a, b, seed], 4)}
        for a, arm in enumerate("abc")
        for b, task in enumerate(("arc", "boolq", "copa", "piqa"))
        for seed in range(2)
    ]


def grid_runs() -> list[dict[str, Any]]:
    """Four budgets of five sizes that follow the chinchilla law, with noise of .1 %."""
    rng = np.random.default_rng(2)
    runs = []
    for flops in (1e18, 3e18, 1e19, 3e19):
        best = 0.6 * (flops / 6) ** 0.5 * 0.3
        for size in range(-2, 3):
            params = round(best * 2 ** (size / 1.5))
            tokens = round(flops / 6 / params)
            loss = (1.8 + 480 / params**0.35 + 2100 / tokens**0.37) * math.exp(rng.normal(0, 1e-3))
            sizes = {"params": params, "tokens": tokens, "flops": 6.0 * params * tokens}
            runs.append({**sizes, "budget": f"{flops:g}", METRIC: round(loss, 5)})
    return runs


def _settings(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != METRIC}


def _name(run: Run, number: int) -> str:
    return "/".join(str(run[name]) for name in ("arm", "task", "seed") if name in run) or f"run_{number:02}"


def csv(folder: Path, runs: Sequence[Run]) -> str:
    """A table of pandas."""
    import pandas as pd

    pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)
    return str(folder / "runs.csv")


def tsv(folder: Path, runs: Sequence[Run]) -> str:
    """A table of pandas with tabs."""
    import pandas as pd

    pd.DataFrame(runs).to_csv(folder / "runs.tsv", index=False, sep="\t")
    return str(folder / "runs.tsv")


def json_lines(folder: Path, runs: Sequence[Run]) -> str:
    """JSON lines of pandas."""
    import pandas as pd

    pd.DataFrame(runs).to_json(folder / "runs.jsonl", orient="records", lines=True, double_precision=15)
    return str(folder / "runs.jsonl")


def parquet(folder: Path, runs: Sequence[Run]) -> str:
    """A Parquet file of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(run) for run in runs]), folder / "runs.parquet")
    return str(folder / "runs.parquet")


def wandb_export(folder: Path, runs: Sequence[Run]) -> str:
    """A table of runs as the web page of W&B exports it: quoted cells, its own columns first."""
    import pandas as pd

    rows = [
        {
            "Name": f"run-{number}",
            "State": "finished",
            "Notes": "-",
            "User": "me",
            "Tags": "baseline, lm",
            "Created": f"2026-03-01T10:{number:02}:00.000Z",
            "Runtime": 120 + number,
            "Sweep": "",
            **_settings(run),
            METRIC: run[METRIC],
        }
        for number, run in enumerate(runs)
    ]
    pd.DataFrame(rows).to_csv(folder / "wandb_export.csv", index=False, quoting=1)
    return str(folder / "wandb_export.csv")


def mlflow(folder: Path, runs: Sequence[Run]) -> str:
    """An experiment, called after the folder, of an MLflow store in SQLite beside it."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    uri = f"sqlite:///{folder.parent}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment(folder.name)
    for number, run in enumerate(runs):
        made = client.create_run(experiment, run_name=_name(run, number), start_time=1_700_000_000_000 + number)
        texts = [Param(name, str(value)) for name, value in _settings(run).items()]
        client.log_batch(made.info.run_id, [Metric(METRIC, run[METRIC], 1_700_000_000_000, 10)], texts)
        client.set_terminated(made.info.run_id, end_time=1_700_000_060_000 + number)
    return f"{uri}#{folder.name}"


def tensorboard(folder: Path, runs: Sequence[Run]) -> str:
    """One folder per run of torch's SummaryWriter, with a curve and hyperparameters."""
    from torch.utils.tensorboard import SummaryWriter

    for number, run in enumerate(runs):
        with SummaryWriter(str(folder / "runs" / _name(run, number))) as writer:
            for step in range(3):
                writer.add_scalar(METRIC, run[METRIC] + 2 - step, step)
            writer.add_hparams(dict(_settings(run)), {"hparam/last": run[METRIC]})
    return str(folder / "runs")


def optuna(folder: Path, runs: Sequence[Run], direction: str = "minimize") -> str:
    """A study, called after the folder, in SQLite beside it: one trial per run, and one more that was pruned."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    source = f"sqlite:///{folder.parent}/study.db"
    study = library.create_study(storage=source, study_name=folder.name, direction=direction)
    choices = {name: sorted({run[name] for run in runs}, key=str) for name in _settings(runs[0])}
    given = {name: library.distributions.CategoricalDistribution(values) for name, values in choices.items()}
    trials = [library.trial.create_trial(params=_settings(run), distributions=given, value=run[METRIC]) for run in runs]
    pruned = library.trial.create_trial(
        state=library.trial.TrialState.PRUNED, params=_settings(runs[0]), distributions=given
    )
    study.add_trials([*trials, pruned])
    return f"{source}#{folder.name}"


def trainer(folder: Path, runs: Sequence[Run]) -> str:
    """Folders of transformers' Trainer: a state of the run, and one of an earlier checkpoint."""
    from transformers.trainer_callback import TrainerState

    for number, run in enumerate(runs):
        place = folder / "out" / _name(run, number)
        (place / "checkpoint-5").mkdir(parents=True)
        counted = {"total_flos": float(run.get("flops", 0)), "num_input_tokens_seen": run.get("tokens", 0)}
        known = {name: value for name, value in _settings(run).items() if name not in ("flops", "tokens")}
        state = TrainerState(global_step=10, max_steps=10, trial_params=known, **counted)
        state.log_history = [
            {"loss": 9.0, "learning_rate": 1e-3, "epoch": 0.5, "step": 5},
            {"eval_loss": run[METRIC] + 1, "epoch": 0.5, "step": 5},
            {"eval_loss": run[METRIC], "eval_runtime": 1.0, "epoch": 1.0, "step": 10},
            {"train_loss": 9.5, "train_runtime": 10.0, "total_flos": counted["total_flos"], "step": 10},
        ]
        state.save_to_json(str(place / "trainer_state.json"))
        state.global_step, state.log_history = 5, state.log_history[:2]
        state.save_to_json(str(place / "checkpoint-5" / "trainer_state.json"))
    return str(folder / "out")


_APP = """
import json, pathlib, hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config):
    out = pathlib.Path(HydraConfig.get().runtime.output_dir)
    number = int(HydraConfig.get().runtime.choices["run"].lstrip("r"))
    measured = json.loads(pathlib.Path("measured.json").read_text())[number]
    (out / "metrics.json").write_text(json.dumps(measured))

main()
"""


def hydra(folder: Path, runs: Sequence[Run]) -> str:
    """A multirun of a small program of Hydra's, whose jobs write what they measured to metrics.json."""
    import yaml

    options = folder / "conf" / "run"
    options.mkdir(parents=True)
    (folder / "conf" / "config.yaml").write_text("defaults:\n  - _self_\n  - run: r0\n")
    for number, run in enumerate(runs):
        (options / f"r{number}.yaml").write_text("# @package _global_\n" + yaml.safe_dump(_settings(run)))
    (folder / "measured.json").write_text(json.dumps([{METRIC: run[METRIC]} for run in runs]))
    (folder / "app.py").write_text(_APP)
    choices = ",".join(f"r{number}" for number in range(len(runs)))
    command = [sys.executable, "app.py", "-m", f"run={choices}", "hydra.sweep.dir=multirun"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return str(folder / "multirun")


def lm_eval(folder: Path, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Results and samples of lm-evaluation-harness, written by its tracker.

    Args:
        scores: {model: {task: score of each document}}.
    """
    from lm_eval.loggers import EvaluationTracker

    for model, tasks in scores.items():
        tracker = EvaluationTracker(output_path=str(folder / "results"))
        tracker.general_config_tracker.log_experiment_args("hf", f"pretrained={model}", None, None, False)
        results = {
            task: {
                "alias": task,
                "acc,none": float(np.mean(items)),
                "acc_stderr,none": float(np.std(items, ddof=1) / math.sqrt(len(items))),
                "acc_norm,none": float(np.mean(items)),
                "acc_norm_stderr,none": "N/A",
            }
            for task, items in tasks.items()
        }
        samples = {
            task: [_sample(number, score) for number, score in enumerate(items)] for task, items in tasks.items()
        }
        content = {
            "results": {**results, "all": {"acc,none": 0.5, "alias": "all"}},
            "groups": {"all": {"acc,none": 0.5, "alias": "all"}},
            "group_subtasks": {"all": list(tasks), **{task: [] for task in tasks}},
            "configs": {task: {"task": task} for task in tasks},
            "versions": dict.fromkeys(tasks, 1.0),
            "n-shot": dict.fromkeys(tasks, 0),
            "higher_is_better": {task: {"acc": True, "acc_norm": True} for task in tasks},
            "n-samples": {task: {"original": len(items), "effective": len(items)} for task, items in tasks.items()},
            "config": {"model": "hf", "model_args": f"pretrained={model}", "random_seed": 0, "torch_seed": 1234},
            "date": 1_770_000_000.5,
        }
        tracker.save_results_aggregated(content, samples)
        for task, logged in samples.items():
            tracker.save_results_samples(task, logged)
    return str(folder / "results")


def _sample(number: int, score: float) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc": {"question": f"q{number}"},
        "target": "yes",
        "arguments": [("q", " yes")],
        "resps": [[(-1.0, True)]],
        "filtered_resps": [(-1.0, True)],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        "acc": score,
        "acc_norm": score,
    }
