"""Do intervals hold the truth where an irreducible loss is small, so that many fits end at zero?

    python benchmarks/boundaries.py --jobs 2   # 2 worlds x 300 replays; goes on where it stopped
    python benchmarks/boundaries.py --replays 3 --work /tmp/b.jsonl --results /tmp/b   # does it run?

The loss is .15 + A/N^alpha + B/D^beta on a ladder of four sizes times four numbers of tokens, with noise of .5 or 2 %
of the loss. The law is fitted to the 16 runs. Counted are

  how often the fit ends at zero
  how often the 95 % interval of E holds .15, by bootstrap (by profile where the fit ends at zero) and by profile
  how often the 95 % prediction interval holds the loss of a new run of four times the largest FLOPs
  of redrawn runs, how many have a lower optimum, from any start of the law, than the one kept

with Wilson's binomial interval.

Every replay is a line of --work as soon as it is done. Written under --results: boundaries.json and boundaries.md.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import numpy as np
import pandas as pd
from replays import command_line, conditions, record, replayed
from scipy.stats import binomtest

import analysis
from analysis.render import Grid
from analysis.scaling.laws import Array
from analysis.scaling.minimisation import Problem, minimise
from analysis.scaling.resampling import draw

E, A, B, ALPHA, BETA = 0.15, 480.0, 2100.0, 0.35, 0.37
PARAMS, TOKENS = np.geomspace(1e7, 1e9, 4), np.geomspace(2e8, 2e10, 4)
NOISES = (0.005, 0.02)
BEYOND = 4.0
"""FLOPs of the new run over the largest fitted ones; its size and tokens are both twice the largest."""
DRAWS, REDRAWN = 200, 3
_LOWER = 1e-4
"""Share of an objective by which another optimum counts as lower."""
COUNTED = ("E", "E by profile", "prediction")


def loss(params: Array, tokens: Array) -> Array:
    """Without noise."""
    return E + A * params**-ALPHA + B * tokens**-BETA


def lower_optima(problem: Problem, theta: Array, rng: np.random.Generator) -> int:
    """Of redrawn runs, those whose kept fit is not the lowest that any start of the law leads to."""
    runs = problem.y.size
    weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=REDRAWN).astype(float)
    kept, there = draw(problem, theta, weights, "draws")
    starts = problem.law.starts(problem.x, problem.y)
    every = minimise(problem, np.repeat(starts, REDRAWN, axis=0), np.tile(weights, (len(starts), 1)))[1]
    lowest = np.fmin.reduce(every.reshape(len(starts), REDRAWN))[there]
    return int((problem.objective(kept, weights[there])[0] > lowest * (1 + _LOWER)).sum())


def replay(number: int, noise: float) -> dict[str, Any]:
    """One ladder: what holds, whether E is zero, and draws with a lower optimum."""
    rng = np.random.default_rng([number, NOISES.index(noise)])
    params, tokens = np.repeat(PARAMS, TOKENS.size), np.tile(TOKENS, PARAMS.size)
    noisy = loss(params, tokens) * np.exp(noise * rng.standard_normal(params.size))
    table = pd.DataFrame({"params": params, "tokens": tokens, "flops": 6 * params * tokens, "loss": noisy})
    fit = analysis.fit_scaling_law(table, bootstrap=DRAWS, seed=number)
    new = {"params": PARAMS[-1] * BEYOND**0.5, "tokens": TOKENS[-1] * BEYOND**0.5}
    measured = float(loss(**new) * np.exp(noise * rng.standard_normal()))
    expected = fit.predict(**new)
    profile = next(found for found in fit.certificate.identifiability if found.parameter == "E")
    assert fit.intervals is not None
    low, high = fit.intervals["E"]
    return {
        "at zero": fit.boundaries.get("E") == "low",
        "E": low <= E <= high,
        "E by profile": (profile.low or 0.0) <= E <= (np.inf if profile.high is None else profile.high),
        "prediction": bool(expected.low <= measured <= expected.high),
        "width": float(np.log(expected.high / expected.low)),
        "lower": lower_optima(fit.problem, fit.theta, rng),
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Coverage by world, with Wilson's interval."""
    found = []
    for place, noise in enumerate(NOISES):
        part = rows[place :: len(NOISES)]
        world: dict[str, Any] = {"noise": noise, "replays": len(part)}
        for name in COUNTED:
            held = sum(row[name] for row in part)
            ends = binomtest(held, len(part)).proportion_ci(method="wilson")
            world[name] = {"share": held / len(part), "low": float(ends.low), "high": float(ends.high)}
        world["at zero"] = sum(row["at zero"] for row in part) / len(part)
        world["width"] = float(np.median([row["width"] for row in part]))
        world["lower"], world["redrawn"] = sum(row["lower"] for row in part), REDRAWN * len(part)
        found.append(world)
    return found


def as_grid(found: list[dict[str, Any]]) -> Grid:
    """The summary as a table."""
    columns = ("noise", "E at zero", *(f"{name} held" for name in COUNTED), "width", "lower optima", "replays")
    rows = tuple(
        (
            f"{100 * world['noise']:g} %",
            f"{world['at zero']:.3f}",
            *(
                f"{world[name]['share']:.3f} ({world[name]['low']:.3f} to {world[name]['high']:.3f})"
                for name in COUNTED
            ),
            f"{100 * world['width']:.1f} %",
            f"{world['lower']} of {world['redrawn']}",
            str(world["replays"]),
        )
        for world in found
    )
    notes = ("width: median of the prediction interval", "lower optima: draws with a lower one than the one kept")
    title = "An irreducible loss of .15 on 16 runs: 95 % intervals that hold it, and the loss of a new run"
    return Grid(columns, rows, title, notes, (1, 5, 6, 7))


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__doc__, "boundaries")
    parser.add_argument("--replays", type=int, default=300, help="of each world")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    wanted = itertools.product(range(options.replays), NOISES)
    found = summary(replayed(replay, list(wanted), options.work, options.jobs))
    command = f"python benchmarks/boundaries.py --replays {options.replays}"
    record(options.results, "boundaries", as_grid(found), {"command": command, **conditions(load), "worlds": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
