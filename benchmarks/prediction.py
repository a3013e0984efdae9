"""Do the prediction intervals of a scaling law hold the runs of a budget larger than all that it was fitted to?

    python benchmarks/prediction.py                          # 8 worlds x 1,000 replays; goes on where it stopped
    python benchmarks/prediction.py --replays 10 --work /tmp/p.jsonl --results /tmp/p   # does it run?

Seven budgets from 1e18 to 1e21 FLOPs with six sizes each, a factor of four to either side of the best, follow a law
near the published one with noise of 0.4 % of the loss. In the worlds

  shared noise   each budget also has an offset of its own, of 0.4 %
  drift          both exponents grow by that much per decade of FLOPs, which no law of fixed exponents describes

the law is fitted to the six smaller budgets and predicts the runs of the largest, by the hold-out of `certificate`.
Counted is how many of these lie in the 95 % interval, how wide it is as a multiple of the law's own interval (draws and
noise, not widened), what that covers, and what the calibration said its coverage was before it saw the largest budget.

Every replay is a line of --work as soon as it is done. Written under --results: prediction.json and prediction.md.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from replays import command_line, conditions, record, replayed

import analysis
from analysis.render import Grid
from analysis.scaling.certificate import HoldOut, check_holdout
from analysis.scaling.law_losses import make_loss
from analysis.scaling.law_table import LawRuns, drop_highest, read_law_runs
from analysis.scaling.minimisation import Problem, minimise
from analysis.table.selection import rename_columns
from stackwise_ray.core.registries import LAWS

LAW = LAWS.get("chinchilla")
E, A, B, ALPHA, BETA = 1.8, 480.0, 2100.0, 0.35, 0.37
FLOPS = np.geomspace(1e18, 1e21, 7)
SIZES = np.geomspace(0.25, 4.0, 6)
NOISE = 0.004
DRIFTS = (0.0, 0.002, 0.005, 0.01)
SHARED = (0.0, 0.004)
"""Standard deviation of the noise that the runs of a budget share."""


def world(drift: float, shared: float, rng: np.random.Generator) -> LawRuns:
    """42 runs of one replay."""
    flops = np.repeat(FLOPS, SIZES.size)
    balance = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    params = balance * (flops / 6) ** (BETA / (ALPHA + BETA)) * np.tile(SIZES, FLOPS.size)
    tokens = flops / (6 * params)
    grown = drift * np.log10(flops / FLOPS[0])
    clean = E + A * params ** -(ALPHA + grown) + B * tokens ** -(BETA + grown)
    offsets = shared * np.repeat(rng.normal(size=FLOPS.size), SIZES.size)
    loss = clean * np.exp(NOISE * rng.normal(size=flops.size) + offsets)
    labels = tuple(f"run {number}" for number in range(flops.size))
    columns = {"params": params, "tokens": tokens, "flops": flops}
    return LawRuns(columns=columns, loss=loss, labels=labels, notes=(), exclusions=())


def held_out(runs: LawRuns, seed: int) -> HoldOut:
    """The hold-out of the largest budget, with the fit begun at the true law and around it."""
    columns = {name: runs.columns[name] for name in LAW.columns}
    problem = Problem.of(LAW, make_loss("huber_log", 1e-3), columns, runs.loss)
    truth = LAW.rescaled(np.array([[np.log(E), np.log(A), np.log(B), ALPHA, BETA]]), -problem.centre)
    away = np.array([[-0.3, 0.3, 0.3, -0.1, -0.1], [0.1, -0.3, -0.3, 0.1, 0.1]])
    starts = minimise(problem, np.vstack([truth, truth + away]), tolerance=1e-9)[0]
    found, why = check_holdout(problem, runs, ("flops", runs.columns["flops"]), starts, seed)
    assert found is not None, why
    return found


def replay(number: int, drift: float, shared: float) -> dict[str, Any]:
    """One replay: runs inside, with and without widening, the widening, and the coverage that was said beforehand."""
    rng = np.random.default_rng([number, DRIFTS.index(drift), SHARED.index(shared)])
    found = held_out(world(drift, shared, rng), number)
    calibration = found.calibration
    assert calibration is not None
    return {
        "replay": number,
        "drift": drift,
        "shared": shared,
        "inside": found.inside,
        "inside_own": inside_own(found),
        "runs": found.n,
        "factor": calibration.factor,
        "width": float(np.median(np.log(found.high) - np.log(found.low))),
        "said": calibration.inside / calibration.runs,
    }


def published_points(path: Path) -> dict[str, int]:
    """Of the 24 largest runs of the points of Hoffmann et al.: how many lie inside, with and without widening."""
    named = {"params": "Model Size", "flops": "Training FLOP"}
    table = drop_highest(rename_columns(analysis.load_runs(path), named), 5)
    runs = read_law_runs(table, LAW.columns, ("flops",), tokens_from="6N")
    problem = Problem.of(
        LAW, make_loss("huber_log", 1e-3), {name: runs.columns[name] for name in LAW.columns}, runs.loss
    )
    order = ("flops", runs.columns["flops"])
    found, why = check_holdout(problem, runs, order, LAW.starts(problem.x, problem.y), 0, 24 / len(runs))
    assert found is not None, why
    return {"runs": found.n, "inside": found.inside, "inside_own": inside_own(found)}


def inside_own(found: HoldOut) -> int:
    """Runs inside the law's own interval, not widened."""
    assert found.calibration is not None
    predicted, low, high, measured = (np.log(v) for v in (found.predicted, found.low, found.high, found.measured))
    low, high = (predicted + (end - predicted) / found.calibration.factor for end in (low, high))
    return int(((low <= measured) & (measured <= high)).sum())


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Coverage and widths by world. Runs of a replay share its law, so the error of a share is that of replays."""
    found = []
    for drift in DRIFTS:
        for shared in SHARED:
            part = [row for row in rows if (row["drift"], row["shared"]) == (drift, shared)]
            shares = np.array([row["inside"] / row["runs"] for row in part])
            own = np.array([row["width"] / row["factor"] for row in part])
            found.append(
                {
                    "drift": drift,
                    "shared": shared,
                    "replays": len(part),
                    "coverage": float(shares.mean()),
                    "error": float(shares.std(ddof=1) / np.sqrt(len(part))),
                    "own_coverage": float(np.mean([row["inside_own"] / row["runs"] for row in part])),
                    "factor": float(np.median([row["factor"] for row in part])),
                    "own_width": float(np.median(own)),
                    "said": float(np.mean([row["said"] for row in part])),
                }
            )
    return found


def as_grid(found: list[dict[str, Any]]) -> Grid:
    """The summary as a table."""
    columns = ("drift", "shared noise", "coverage", "± error", "width", "own coverage", "own width", "said", "replays")
    rows = tuple(
        (
            f"{row['drift']:g}",
            f"{100 * row['shared']:g} %",
            f"{row['coverage']:.3f}",
            f"{row['error']:.3f}",
            f"× {row['factor']:.2f}",
            f"{row['own_coverage']:.3f}",
            f"{100 * row['own_width']:.2f} %",
            f"{row['said']:.3f}",
            str(row["replays"]),
        )
        for row in found
    )
    title = "Runs of the largest budget inside their 95 % prediction interval"
    notes = (
        "width: median multiple of the law's own interval, whose median width in per cent of the loss is beside it",
        "said: coverage that the calibration measured on the smaller budgets",
    )
    return Grid(columns, rows, title, notes, tuple(range(9)))


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__doc__, "prediction")
    parser.add_argument("--replays", type=int, default=1000, help="of each world")
    parser.add_argument("--points", type=Path, help="svg_extracted_data.csv of epoch-chinchilla: its 24 largest runs")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    wanted = itertools.product(range(options.replays), DRIFTS, SHARED)
    found = summary(replayed(replay, list(wanted), options.work, options.jobs))
    points = None if options.points is None else published_points(options.points)
    results = {
        "command": f"python benchmarks/prediction.py --replays {options.replays}"
        + ("" if options.points is None else f" --points {options.points.name}"),
        **conditions(load),
        "worlds": found,
        "published_points": points,
    }
    record(options.results, "prediction", as_grid(found), results)
    if points is not None:
        print(f"published points: {points['inside']} of the {points['runs']} largest runs inside")
    return 0


if __name__ == "__main__":
    sys.exit(main())
