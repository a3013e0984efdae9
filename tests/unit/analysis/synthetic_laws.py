"""Runs that follow a known scaling law exactly, or with noise; designs that cannot tell one."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import analysis

TRUTH: dict[str, dict[str, float]] = {
    "power": {"A": 12.0, "alpha": 0.035},
    "power_offset": {"E": 1.7, "A": 900.0, "alpha": 0.16},
    "chinchilla": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37},
    "two_power": {"A": 1.8, "alpha": 0.71, "beta": -0.31},
    "bnsl": {"a": 0.5, "b": 60.0, "c0": 0.05, "c1": 0.15, "d": 3e19, "f": 0.4},
    "data_constrained": {
        "E": 1.87,
        "A": 521.0,
        "B": 1488.0,
        "alpha": 0.353,
        "beta": 0.353,
        "R_D": 15.4,
        "R_N": 5.3,
    },
}


def loss_of(law: str, columns: dict[str, Any]) -> np.ndarray:
    """The law as its paper writes it, in plain arithmetic: independent of the package's logarithms."""
    p = TRUTH[law]
    n, d, c = (np.asarray(columns[name], dtype=float) for name in ("params", "tokens", "flops"))
    if law == "power":
        return p["A"] / c ** p["alpha"]
    if law == "two_power":
        return p["A"] / (n ** p["alpha"] * d ** p["beta"])
    if law == "power_offset":
        return p["E"] + p["A"] / c ** p["alpha"]
    if law == "bnsl":
        return p["a"] + p["b"] * c ** -p["c0"] * (1 + (c / p["d"]) ** (1 / p["f"])) ** (-p["c1"] * p["f"])
    if law == "data_constrained":
        unique = np.minimum(d, columns["unique_tokens"])
        best = (p["alpha"] * p["A"] * unique ** p["beta"] / (p["beta"] * p["B"])) ** (1 / p["alpha"])
        base = np.minimum(n, best)
        d = unique + unique * p["R_D"] * (1 - np.exp(-(d / unique - 1) / p["R_D"]))
        n = base + base * p["R_N"] * (1 - np.exp(-(n / base - 1) / p["R_N"]))
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def make_runs(law: str = "chinchilla", n: int = 60, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Runs on six budgets from 1e17 to 1e22 FLOPs, params a factor of 10 to either side of the balanced size."""
    rng = np.random.default_rng(seed)
    flops = np.geomspace(1e17, 1e22, 6)[np.arange(n) % 6]
    params = 0.1 * np.sqrt(flops) * np.exp(rng.uniform(-np.log(10), np.log(10), size=n))
    columns: dict[str, Any] = {"params": params, "tokens": flops / (6 * params), "flops": flops}
    if law == "data_constrained":
        columns["unique_tokens"] = columns["tokens"] / np.exp(rng.uniform(-0.2, np.log(60), size=n))
    loss = loss_of(law, columns) * np.exp(noise * rng.normal(size=n))
    return pd.DataFrame({**columns, "loss": loss})


def make_valleys(
    budgets: tuple[float, ...] = (1e18, 1e19, 1e20), seeds: int = 3, noise: float = 0.002, sizes: int = 7
) -> pd.DataFrame:
    """IsoFLOP runs around the law's own optimum at each budget, several seeds a size."""
    p, rng, rows = TRUTH["chinchilla"], np.random.default_rng(1), []
    for budget in budgets:
        best = best_params(budget)
        for factor in np.geomspace(1 / 6, 6, sizes):
            params = best * factor
            tokens = budget / (6 * params)
            clean = p["E"] + p["A"] / params ** p["alpha"] + p["B"] / tokens ** p["beta"]
            for seed in range(seeds):
                loss = clean * np.exp(noise * rng.normal())
                rows.append({"params": params, "tokens": tokens, "flops": budget, "seed": seed, "loss": loss})
    return pd.DataFrame(rows)


@cache
def noisy_fit() -> analysis.ScalingFit:
    """A fit of noisy runs with intervals, for tests that only read it."""
    return analysis.fit_scaling_law(make_runs(n=60, noise=0.004), bootstrap=200, seed=3)


@cache
def valleys_fit() -> analysis.IsoFlopFit:
    """The same of valleys."""
    return analysis.fit_isoflop(make_valleys(), bootstrap=200)


def best_params(flops: float) -> float:
    """The published closed form of the optimal size (Hoffmann et al., eq. 4)."""
    p = TRUTH["chinchilla"]
    G = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    return float(G * (flops / 6) ** (p["beta"] / (p["alpha"] + p["beta"])))
