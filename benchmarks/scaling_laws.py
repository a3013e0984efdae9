"""Do the intervals of a scaling law cover what they claim? Random laws, drawn again and again, and counted.

    python benchmarks/scaling_laws.py                                 # 200 laws x 5 draws; goes on where it stopped
    python benchmarks/scaling_laws.py --laws 10 --draws 2 --work /tmp/laws.jsonl --results /tmp/laws   # does it run?

A law is E + A/N^alpha + B/D^beta with parameters drawn around the published ones; its runs lie on nine budgets from
1e18 to 1e21 FLOPs, with the noise of real ones: 0.5 % of the loss with the tails of a Student t of 4 degrees of
freedom. Each data set is fitted (Huber, delta 1e-3, from the grid of starts) and redrawn 200 times, warm-started; the
profile likelihood is followed too. Counted is how often the true value lies in the 95 % interval, by parameter, at 240
and at 30 runs, with Wilson's binomial interval of that share.

Every data set is a line of --work as soon as it is done. Written under --results: scaling_laws.json and
scaling_laws.md.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import numpy as np
from replays import command_line, conditions, record, replayed
from scipy.stats import binomtest

from analysis.render import Grid
from analysis.scaling.law_losses import make_loss
from analysis.scaling.laws import Array
from analysis.scaling.minimisation import Problem, minimise
from analysis.scaling.profile_likelihood import profiles
from analysis.scaling.resampling import draw, percentile_ends
from stackwise_ray.core.registries import LAWS

LAW = LAWS.get("chinchilla")
SIZES = (240, 30)
NAMES = (*LAW.parameters, "a")
METHODS = ("percentile bootstrap", "profile likelihood")
LEAST = 0.90
"""Coverage below which an interval of nominal 95 % must be corrected or labelled."""


def random_law(rng: np.random.Generator) -> Array:
    """E, A, B, alpha, beta: exponents from .25 to .45; at 1e9 params and 2e10 tokens both terms are .2 to .6 nats."""
    E = rng.uniform(1.4, 2.2)
    alpha, beta = rng.uniform(0.25, 0.45, size=2)
    at_params, at_tokens = rng.uniform(0.2, 0.6, size=2)
    return np.array([E, at_params * 1e9**alpha, at_tokens * 2e10**beta, alpha, beta])


def random_runs(law: Array, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Log params and log tokens (2, n) on nine budgets, and the noisy log-loss (n,)."""
    flops = np.geomspace(1e18, 1e21, 9)[np.arange(n) % 9]
    params = 0.1 * np.sqrt(flops) * np.exp(rng.uniform(-np.log(8), np.log(8), size=n))
    x = np.log(np.array([params, flops / (6 * params)]))
    loss = law[0] + law[1] * np.exp(-law[3] * x[0]) + law[2] * np.exp(-law[4] * x[1])
    return x, np.log(loss) + 0.005 * rng.standard_t(4, size=n)


def with_exponent(values: Array) -> Array:
    """Parameters (rows, 5) with a = beta / (alpha + beta) behind them."""
    return np.column_stack([values, values[:, 4] / (values[:, 3] + values[:, 4])])


def covered(number: int, repeat: int, n: int, bootstraps: int) -> dict[str, Any]:
    """One data set: by method, whether each parameter's interval holds the truth (None: the profile is flat)."""
    law = random_law(np.random.default_rng([number]))
    rng = np.random.default_rng([number, repeat, n])
    x, y = random_runs(law, n, rng)
    columns = dict(zip(LAW.columns, np.exp(x), strict=True))
    problem = Problem.of(LAW, make_loss("huber_log", 1e-3), columns, np.exp(y))
    starts = LAW.starts(problem.x, problem.y)
    ends, values = minimise(problem, starts[np.argsort(problem.objective(starts)[0])[:24]], tolerance=1e-12)
    best = ends[int(np.nanargmin(values))]
    weights = rng.multinomial(n, np.full(n, 1 / n), size=bootstraps).astype(float)
    draws, there = draw(problem, best, weights, "bootstrap")
    low, high = percentile_ends(with_exponent(LAW.natural(draws, problem.centre)))
    truth = with_exponent(law[None])[0]
    table_units = problem.in_table_units()
    scale = problem.loss.scale(problem.residuals(best[None])[0], len(LAW.parameters))
    found, _ = profiles(table_units, LAW.rescaled(best[None], problem.centre)[0], scale)
    by_profile = [
        None if not profile.identified else bool(profile.low <= value <= profile.high)  # type: ignore[operator]
        for profile, value in zip(found, truth, strict=False)
    ]
    return {
        "law": number,
        "draw": repeat,
        "n": n,
        "bootstraps": bootstraps,
        "lost": bootstraps - there.size,
        METHODS[0]: [bool(a <= value <= b) for a, value, b in zip(low, truth, high, strict=True)],
        METHODS[1]: by_profile,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Coverage by number of runs, method and parameter, with Wilson's interval; flat profiles are counted apart."""
    found = []
    for n in SIZES:
        for method in METHODS:
            for j, name in enumerate(NAMES if method == METHODS[0] else LAW.parameters):
                flags = [row[method][j] for row in rows if row["n"] == n]
                known = [flag for flag in flags if flag is not None]
                if not known:
                    continue
                ends = binomtest(sum(known), len(known)).proportion_ci(method="wilson")
                share = sum(known) / len(known)
                found.append(
                    {
                        "n": n,
                        "method": method,
                        "parameter": name,
                        "data_sets": len(known),
                        "coverage": share,
                        "low": float(ends.low),
                        "high": float(ends.high),
                        "not_identified": len(flags) - len(known),
                        "below_bar": share < LEAST,
                    }
                )
    return found


def as_grid(found: list[dict[str, Any]], title: str) -> Grid:
    """The summary as a table."""
    columns = ("runs", "interval", "parameter", "coverage", "binomial 95%", "data sets", "not identified", "")
    rows = tuple(
        (
            str(row["n"]),
            row["method"],
            row["parameter"],
            f"{row['coverage']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            str(row["data_sets"]),
            str(row["not_identified"]),
            "below .90" if row["below_bar"] else "",
        )
        for row in found
    )
    return Grid(columns, rows, title, (), (0, 3, 4, 5, 6))


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__doc__, "scaling_laws")
    parser.add_argument("--laws", type=int, default=200)
    parser.add_argument("--draws", type=int, default=5, help="draws of noise for each law")
    parser.add_argument("--bootstraps", type=int, default=200)
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    wanted = itertools.product(range(options.laws), range(options.draws), SIZES, (options.bootstraps,))
    rows = replayed(covered, list(wanted), options.work, options.jobs)
    found = summary(rows)
    title = f"{options.laws} laws × {options.draws} draws of noise, {options.bootstraps} bootstraps each, nominal 95 %"
    results = {
        "command": f"python benchmarks/scaling_laws.py --laws {options.laws} --draws {options.draws} "
        f"--bootstraps {options.bootstraps}",
        **conditions(load),
        "laws": options.laws,
        "draws": options.draws,
        "bootstraps": options.bootstraps,
        "coverage": found,
    }
    record(options.results, "scaling_laws", as_grid(found, title), results)
    print(f"bootstrap draws without a finite law: {sum(row['lost'] for row in rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
