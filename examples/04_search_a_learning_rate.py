"""Search with Optuna's TPE, stop bad trials early, train the winner on fresh seeds (about a minute).

python examples/04_search_a_learning_rate.py
"""

import tempfile
from pathlib import Path

import stackwise_ray as sw

sweep = sw.load_sweep(Path(__file__).with_suffix(".yaml"))
with tempfile.TemporaryDirectory() as folder:
    result = sw.run(sweep, output=folder)
    trials = sorted(result.outcome.trials, key=lambda trial: trial.number)
    for trial in trials:
        values = ", ".join(f"{path} = {value:.3g}" for path, value in trial.parameters.items())
        loss = trial.metrics.get("validation/loss")
        print(f"{trial.role:9} {trial.arm:9} {trial.status:8} {values}  loss {loss:.4f}")
