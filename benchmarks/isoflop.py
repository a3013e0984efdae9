"""Does IsoFLOP find the growth of the optimum on grids as real ones are, and do its intervals hold the truth?

    python benchmarks/isoflop.py --jobs 2      # 36 worlds x 1,000 replays; goes on where it stopped
    python benchmarks/isoflop.py --replays 5 --work /tmp/i.jsonl --results /tmp/isoflop   # does it run?

The loss is E + A/N^alpha + B/(D - lost)^beta: `lost` tokens of every run go to warm-up, so that a large model at a
small budget has hardly trained, and at the most 10.8, that of no training. Twelve budgets from 1e16 to 2e19 FLOPs,
sizes over a factor of 174. The worlds:

  tokens lost    0, 1e8, 3e8
  grid           centred on the optimum of nothing lost, a factor of 4 above it, a factor of 4 below it
  kind           15 sizes; 8 sizes; 15 sizes with .6 % of noise at the four smallest budgets; 15 sizes with an outlier

The noise is .2 % of the loss. The outlier is one run at random: in every second replay its loss is 10, as of a run that
diverged, in the others 5 % too high. The true exponent is that of the least-squares line through the true optima of the
budgets that have one: a budget whose lowest loss is at an end is refused by every method. Counted are the root mean
square error of the exponent by method, how often the 95 % interval holds the true exponent (with Wilson's binomial
interval), and budgets that are refused though their lowest loss is inside.

Every replay is a line of --work as soon as it is done. Written under --results: isoflop.json and isoflop.md.
"""

from __future__ import annotations

import itertools
import os
import sys
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from replays import command_line, conditions, record, replayed
from scipy.stats import binomtest

import analysis
from analysis.render import Grid
from analysis.scaling.akima_floors import akima_floors
from analysis.scaling.laws import Array

E, A, B, ALPHA, BETA, UNTRAINED = 1.82, 480.0, 2140.0, 0.347, 0.367, 10.8
BUDGETS = np.geomspace(1e16, 2e19, 12)
SPAN = 174.0
NOISE, LOUD, LOUD_BUDGETS = 0.002, 0.006, 4
LOST, OFF = (0.0, 1e8, 3e8), (1.0, 4.0, 0.25)
KINDS = ("15 sizes", "8 sizes", "loud", "outlier")
METHODS = ("ours", "quadratic", "quadratic ±2", "Akima", "cubic", "quartic")
DRAWS = 400
_WEIGHT = 0.02
"""Log-loss over the lowest at which the weight of the cubic and the quartic falls to 1/e."""


def centre(flops: float) -> float:
    """The best size where nothing is lost."""
    growth = BETA / (ALPHA + BETA)
    return float((ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** growth)


def loss(params: Array, flops: float, lost: float) -> Array:
    """Without noise."""
    tokens = flops / (6 * params)
    trained = E + A / params**ALPHA + B / np.maximum(tokens - lost, 1e3) ** BETA
    return np.asarray(np.minimum(UNTRAINED, np.where(tokens > lost, trained, UNTRAINED)))


@cache
def true_optima(lost: float) -> Array:
    """log params of the lowest loss at every budget."""
    found = []
    for flops in BUDGETS:
        fine = np.geomspace(centre(flops) / 300, centre(flops) * 300, 200_001)
        found.append(np.log(fine[np.argmin(loss(fine, flops, lost))]))
    return np.array(found)


def replay(number: int, lost: float, off: float, kind: str) -> tuple[Array, Array]:
    """log params and log-loss (budgets, sizes) of one replay."""
    rng = np.random.default_rng([number])
    sizes = 8 if kind == "8 sizes" else 15
    x, y = np.empty((2, BUDGETS.size, sizes))
    for i, flops in enumerate(BUDGETS):
        params = np.geomspace(centre(flops) * off / SPAN**0.5, centre(flops) * off * SPAN**0.5, sizes)
        noise = LOUD if kind == "loud" and i < LOUD_BUDGETS else NOISE
        x[i], y[i] = np.log(params), np.log(loss(params, flops, lost)) + noise * rng.standard_normal(sizes)
    if kind == "outlier":
        place = rng.integers(BUDGETS.size), rng.integers(sizes)
        y[place] = max(y[place], np.log(10.0)) if number % 2 else y[place] + 0.05
    return x, y


def growth(optima: Array) -> float:
    """Exponent of the least-squares line through the optima (budgets,) that are not nan."""
    known = np.isfinite(optima)
    return float(np.polyfit(np.log(BUDGETS[known]), optima[known], 1)[0])


def quadratic(x: Array, y: Array) -> float:
    """Floor of the parabola through all sizes; nan where that is outside or the parabola opens downward."""
    bend, tilt, _ = np.polyfit(x - x.mean(), np.exp(y), 2)
    floor = x.mean() - tilt / (2 * bend)
    return float(floor) if bend > 0 and x[0] < floor < x[-1] else np.nan


def near_quadratic(x: Array, y: Array) -> float:
    """The same through the lowest size and two to either side."""
    lowest = int(np.argmin(y))
    near = slice(max(0, lowest - 2), lowest + 3)
    return quadratic(x[near], y[near])


def weighted(x: Array, y: Array, degree: int) -> float:
    """Floor, within two sizes of the lowest, of a polynomial of log-loss with weights exp(-(y - lowest) / .02)."""
    lowest = x[np.argmin(y)]
    power = np.polyfit(x - lowest, y, degree, w=np.exp(-(y - y.min()) / _WEIGHT / 2))
    reach = 2.01 * (x[1] - x[0])
    grid = np.linspace(max(x[0], lowest - reach), min(x[-1], lowest + reach), 1001)
    return float(grid[np.argmin(np.polyval(power, grid - lowest))])


OTHERS = {
    "quadratic": quadratic,
    "quadratic ±2": near_quadratic,
    "Akima": lambda x, y: float(akima_floors(x, np.exp(y)[None])[0]),
    "cubic": lambda x, y: weighted(x, y, 3),
    "quartic": lambda x, y: weighted(x, y, 4),
}


def measured(number: int, lost: float, off: float, kind: str) -> dict[str, Any]:
    """Errors of the exponent by method in one replay, whether the interval holds it, and what was refused."""
    x, y = replay(number, lost, off, kind)
    flops = np.repeat(BUDGETS, x.shape[1])
    table = pd.DataFrame({"params": np.exp(x).ravel(), "flops": flops, "budget": flops, "loss": np.exp(y).ravel()})
    fit = analysis.fit_isoflop(table, budgets="budget", bootstrap=DRAWS, seed=number)
    inside = np.array([0 < np.argmin(row) < row.size - 1 for row in y])
    kept = np.array([budget.refused is None for budget in fit.budgets])
    truth = growth(np.where(kept, true_optima(lost), np.nan))
    errors = {"ours": fit.exponents["a"] - truth}
    for name, method in OTHERS.items():
        floors = np.array([method(x[i], y[i]) if inside[i] else np.nan for i in range(BUDGETS.size)])
        errors[name] = growth(floors) - growth(np.where(np.isfinite(floors), true_optima(lost), np.nan))
    ends = fit.intervals
    return {
        "errors": errors,
        "holds": ends is not None and bool(ends["a"][0] <= truth <= ends["a"][1]),
        "width": np.nan if ends is None else ends["a"][1] - ends["a"][0],
        "refused inside": int((inside & ~kept).sum()),
        "at an end": int((~inside).sum()),
    }


def summary(world: tuple[float, float, str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the replays of one world."""
    rms = {name: float(np.sqrt(np.mean([row["errors"][name] ** 2 for row in rows]))) for name in METHODS}
    held = sum(row["holds"] for row in rows)
    ends = binomtest(held, len(rows)).proportion_ci(method="wilson")
    return {
        "lost": world[0],
        "off": world[1],
        "kind": world[2],
        "replays": len(rows),
        "rms": rms,
        "ratio": rms["ours"] / min(value for name, value in rms.items() if name != "ours"),
        "bias": float(np.mean([row["errors"]["ours"] for row in rows])),
        "coverage": held / len(rows),
        "low": float(ends.low),
        "high": float(ends.high),
        "width": float(np.nanmedian([row["width"] for row in rows])),
        "refused inside": sum(row["refused inside"] for row in rows),
        "at an end": sum(row["at an end"] for row in rows) / len(rows),
    }


def as_grid(found: list[dict[str, Any]]) -> Grid:
    """The summary as a table."""
    columns = ("lost", "grid", "kind", *METHODS, "ours / best", "covers", "binomial 95%", "refused inside", "at an end")
    rows = tuple(
        (
            f"{row['lost']:.0e}",
            f"×{row['off']:g}",
            row["kind"],
            *(f"{row['rms'][name]:.4f}" for name in METHODS),
            f"{row['ratio']:.2f}",
            f"{row['coverage']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            str(row["refused inside"]),
            f"{row['at an end']:.2f}",
        )
        for row in found
    )
    title = "IsoFLOP: root mean square error of the exponent, and coverage of its 95% interval"
    return Grid(columns, rows, title, (), (*range(3, 12), 13, 14))


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__doc__, "isoflop")
    parser.add_argument("--replays", type=int, default=1000, help="of each world")
    parser.add_argument("--grids", type=float, nargs="+", default=OFF, help="factors of the grid's middle")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    worlds = list(itertools.product(LOST, options.grids, KINDS))
    wanted = [(number, *world) for number in range(options.replays) for world in worlds]
    rows = replayed(measured, wanted, options.work, options.jobs)
    found = [summary(world, rows[i :: len(worlds)]) for i, world in enumerate(worlds)]
    command = f"python benchmarks/isoflop.py --replays {options.replays}"
    record(options.results, "isoflop", as_grid(found), {"command": command, **conditions(load), "worlds": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
