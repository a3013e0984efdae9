"""Decide between two arms from an MLflow experiment that this program did not write (a few seconds, trains nothing).

    python examples/07_decide_from_mlflow.py

The first half stands for whatever logged the runs: any training script with `mlflow.log_param` and `mlflow.log_metric`.
The second half is all that a decision needs. The command does the same:

    python -m analysis sequential "sqlite:///mlflow.db#optimizers" --arm optimizer --metric val_loss --baseline adam
"""

import os
import random
import tempfile
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow import MlflowClient

import analysis


def somebody_elses_experiment(uri: str, artifacts: str) -> None:
    """Eight seeds of two optimizers; a seed shifts both losses alike, which is why the runs are paired."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("optimizers", artifact_location=artifacts)
    noise = random.Random(0)
    for seed in range(8):
        shift = noise.gauss(0, 0.10)
        for optimizer, loss in (("adam", 2.00), ("lion", 1.95)):
            run = client.create_run(experiment).info.run_id
            client.log_param(run, "optimizer", optimizer)
            client.log_param(run, "seed", seed)
            client.log_metric(run, "val_loss", loss + shift + noise.gauss(0, 0.01))
            client.set_terminated(run)


with tempfile.TemporaryDirectory() as folder:
    uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
    somebody_elses_experiment(uri, artifacts=folder)

    runs = analysis.load_runs(f"{uri}#optimizers")
    print(analysis.compare(runs, "val_loss", baseline="adam", arm="optimizer", margin=0.01))
    print()
    print(analysis.compare_sequentially(runs, "val_loss", baseline="adam", arm="optimizer", margin=0.01))
