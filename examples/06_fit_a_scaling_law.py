"""Fit a scaling law to a CSV of runs, and see how far it can be trusted (about ten seconds).

    python examples/06_fit_a_scaling_law.py [RUNS.csv]

A run a row, with the columns params, tokens, flops and loss. Without an argument it draws 60 runs from a known law with
half a percent of noise: E 1.8, A 480, B 2100, alpha 0.35, beta 0.37. The command does the same:

    python -m analysis fit RUNS.csv --law chinchilla --allocate 1e22
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import analysis


def draw_runs(path: Path) -> Path:
    """Six budgets of ten model sizes each."""
    rng = np.random.default_rng(0)
    flops = np.geomspace(1e17, 1e22, 6)[np.arange(60) % 6]
    params = 0.1 * np.sqrt(flops) * np.exp(rng.uniform(-2.3, 2.3, size=60))
    tokens = flops / (6 * params)
    loss = (1.8 + 480 / params**0.35 + 2100 / tokens**0.37) * np.exp(0.005 * rng.normal(size=60))
    pd.DataFrame({"params": params, "tokens": tokens, "flops": flops, "loss": loss}).to_csv(path, index=False)
    return path


with tempfile.TemporaryDirectory() as folder:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else draw_runs(Path(folder) / "runs.csv")

    runs = analysis.load_runs(source)
    fit = analysis.fit_scaling_law(runs, law="chinchilla")
    print(fit)  # parameters with intervals; below them the certificate: is this the optimum, identified, predictive?
    print(analysis.optimal_allocation(fit, flops=1e22).sentence)
    print(fit.predict(params=7e9, tokens=1.4e11).label)
