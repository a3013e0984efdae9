"""How often does the certificate of a scaling law fail where the law is true, and where it is not?

    python benchmarks/certificates.py                                  # 200 laws x 5 worlds x 2 sizes
    python benchmarks/certificates.py --laws 4 --work /tmp/c.jsonl --results /tmp/c   # does it run?

The laws, their runs and their noise (0.5 % of the loss, heavy tails) are those of `benchmarks/scaling_laws.py`. Each
is fitted as it is, which ought to hold, and in worlds where it ought not to:

  a wave         the log-loss also swings with log params by the size of the noise: the law has not this shape
  shared noise   each budget has an offset of its own of the size of the noise: neighbours are alike
  a broken end   the runs of the largest budget lose 2 % more than the law says: it does not extrapolate
  one line       tokens = 20 params: no run tells params and tokens apart

Written under --results: certificates.json and certificates.md.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from replays import command_line, conditions, record, replayed
from scaling_laws import random_law, random_runs
from scipy.stats import binomtest

import analysis
from analysis.render import Grid
from analysis.scaling.laws import Array

SIZES = (240, 60)
NOISE = 0.005 * np.sqrt(2)
"""Standard deviation of the noise: of a Student t of 4 degrees of freedom it is √2 times the scale."""
REASONS = ("optimum", "not identified", "hold-out", "residuals")

World = Callable[[Array, Array, Array, np.random.Generator], tuple[Array, Array]]
"""From law (5,), log columns (2, runs) and log-loss (runs,) to the columns and log-loss of another world."""


def _true(law: Array, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    return x, y


def _wave(law: Array, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    return x, y + NOISE * np.sin(2 * np.pi * (x[0] - x[0].min()) / np.ptp(x[0]) * 3)


def _shared_noise(law: Array, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    budgets = np.unique(x.sum(axis=0).round(6), return_inverse=True)[1]
    return x, y + NOISE * rng.standard_normal(budgets.max() + 1)[budgets]


def _broken_end(law: Array, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    budget = x.sum(axis=0)
    return x, y + np.log(1.02) * (budget > budget.max() - 1e-6)


def _one_line(law: Array, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    def log_loss(x: Array) -> Array:
        return np.asarray(np.log(law[0] + law[1] * np.exp(-law[3] * x[0]) + law[2] * np.exp(-law[4] * x[1])))

    on_line = np.array([x[0], x[0] + np.log(20.0)])
    return on_line, y - log_loss(x) + log_loss(on_line)


WORLDS: dict[str, World] = {
    "the law is true": _true,
    "a wave": _wave,
    "shared noise": _shared_noise,
    "a broken end": _broken_end,
    "one line": _one_line,
}


def certified(number: int, world: str, n: int) -> dict[str, Any]:
    """One data set: whether the certificate failed, and by which checks."""
    law = random_law(np.random.default_rng([number]))
    rng = np.random.default_rng([number, n])
    x, y = WORLDS[world](law, *random_runs(law, n, rng), rng)
    params, tokens = np.exp(x)
    table = pd.DataFrame({"params": params, "tokens": tokens, "flops": 6 * params * tokens, "loss": np.exp(y)})
    certificate = analysis.fit_scaling_law(table, bootstrap=100, seed=number).certificate
    failed = " ".join(certificate.failures)
    return {
        "law": number,
        "world": world,
        "n": n,
        "fails": certificate.holds is False,
        **{reason: reason in failed for reason in REASONS},
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Share of failing certificates by world and number of runs with Wilson's interval, and of each reason."""
    found = []
    for world in WORLDS:
        for n in dict.fromkeys(row["n"] for row in rows):
            part = [row for row in rows if (row["world"], row["n"]) == (world, n)]
            fails = sum(row["fails"] for row in part)
            ends = binomtest(fails, len(part)).proportion_ci(method="wilson")
            reasons = {reason: sum(row[reason] for row in part) / len(part) for reason in REASONS}
            found.append(
                {
                    "world": world,
                    "n": n,
                    "laws": len(part),
                    "fails": fails / len(part),
                    "low": float(ends.low),
                    "high": float(ends.high),
                    **reasons,
                }
            )
    return found


def as_grid(found: list[dict[str, Any]]) -> Grid:
    """The summary as a table."""
    columns = ("world", "runs", "certificate fails", "binomial 95%", *REASONS, "laws")
    rows = tuple(
        (
            row["world"],
            str(row["n"]),
            f"{row['fails']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            *(f"{row[reason]:.3f}" for reason in REASONS),
            str(row["laws"]),
        )
        for row in found
    )
    title = "Certificates that fail: wrongly where the law is true, rightly elsewhere"
    return Grid(columns, rows, title, (), (1, 2, 4, 5, 6, 7, 8))


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__doc__, "certificates")
    parser.add_argument("--laws", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="runs of a data set")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    wanted = itertools.product(range(options.laws), WORLDS, options.sizes)
    found = summary(replayed(certified, list(wanted), options.work, options.jobs))
    command = f"python benchmarks/certificates.py --laws {options.laws}"
    record(
        options.results, "certificates", as_grid(found), {"command": command, **conditions(load), "certificates": found}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
