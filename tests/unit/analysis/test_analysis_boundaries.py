"""Parameters at the end of what they can be: an irreducible loss of zero, and draws that end there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.scaling.boundaries import at_edge, settled
from analysis.scaling.law_losses import make_loss
from analysis.scaling.minimisation import Problem, minimise
from analysis.scaling.profile_likelihood import profiles
from analysis.scaling.resampling import draw
from stackwise_ray.core.registries import LAWS


def ladder(E: float, noise: float, seed: int) -> pd.DataFrame:
    """Four sizes on four numbers of tokens."""
    params = np.repeat(np.geomspace(1e7, 1e9, 4), 4)
    tokens = np.tile(np.geomspace(2e8, 2e10, 4), 4)
    clean = E + 480 * params**-0.35 + 2100 * tokens**-0.37
    loss = clean * np.exp(noise * np.random.default_rng(seed).normal(size=16))
    return pd.DataFrame({"params": params, "tokens": tokens, "flops": 6 * params * tokens, "loss": loss})


def over_flops(table: pd.DataFrame) -> Problem:
    columns = {"flops": table["flops"].to_numpy()}
    return Problem.of(LAWS.get("power_offset"), make_loss("huber_log", 1e-3), columns, table["loss"].to_numpy())


def from_every_start(problem: Problem, weights: np.ndarray) -> np.ndarray:
    """The lowest objective of each row from any start of the law."""
    starts = problem.law.starts(problem.x, problem.y)
    ends = [minimise(problem, np.repeat(start[None], len(weights), axis=0), weights)[1] for start in starts]
    return np.fmin.reduce(ends)


@cache
def without_floor() -> analysis.ScalingFit:
    """Runs that no irreducible loss was added to, with a fit that ends at E = 0."""
    return analysis.fit_scaling_law(ladder(0.0, 0.01, 0), law="power_offset", variable="flops", bootstrap=100)


def test_no_draw_has_a_lower_optimum_than_the_one_kept():
    problem = over_flops(ladder(0.15, 0.08, 1))
    weights = np.random.default_rng(0).multinomial(16, np.full(16, 1 / 16), size=30).astype(float)
    theta = minimise(problem, problem.law.starts(problem.x, problem.y), tolerance=1e-12)
    best = theta[0][int(np.nanargmin(theta[1]))]
    lowest = from_every_start(problem, weights) * (1 + 1e-4)
    kept, there = draw(problem, best, weights, "test")
    assert there.size == 30
    assert (problem.objective(kept, weights)[0] <= lowest).all()
    assert (minimise(problem, np.repeat(best[None], 30, axis=0), weights)[1] > lowest).sum() >= 3  # one start misses


def test_a_floor_of_zero_is_printed_as_such_with_a_one_sided_interval():
    fit = without_floor()
    assert fit.boundaries == {"E": "low"}
    assert fit.parameters["E"] == 0.0
    row = next(row for row in fit.grid.rows if row[0] == "E")
    assert row[1] == "0 (at the boundary)"
    assert row[3] == f"{row[4]} (profile)"  # a bootstrap says nothing there
    assert row[4].startswith("≤ ")
    assert "2e-" not in " ".join(row)
    low, high = fit.intervals["E"]
    assert low == 0.0
    assert 0 < high < np.exp(fit.problem.y.min())
    assert "E" not in fit.certificate.not_identified  # its only end is there


def test_the_profile_of_a_floor_of_zero_ends_where_a_one_sided_test_does():
    """The end is the E at which the least objective has risen by the 90 % point of F(1, 13), found here by scipy."""
    from scipy.optimize import brentq
    from scipy.stats import f

    fit = without_floor()
    problem, best = fit.problem, fit.objective
    scale = problem.loss.scale(problem.residuals(fit.theta[None])[0], 3)

    def rise(log_E: float) -> float:
        start = np.array([[log_E, *fit.theta[1:]]])
        value = minimise(problem, start, hold=np.array([0]), tolerance=1e-12)[1][0]
        return 2 * (value - best) / scale - f.ppf(0.90, 1, 13)

    end = np.exp(brentq(rise, np.log(1e-3), problem.y.min()))
    found = next(p for p in profiles(problem, fit.theta, scale)[0] if p.parameter == "E")
    assert found.high == pytest.approx(end, rel=0.01)


def test_a_fit_away_from_every_edge_is_left_as_it_is():
    problem = over_flops(ladder(1.5, 0.002, 0).assign(loss=lambda t: 1.5 + 60 * t["flops"] ** -0.1))
    theta, value = minimise(problem, problem.law.starts(problem.x, problem.y)[:4], tolerance=1e-12)
    assert not at_edge(problem, theta).any()
    again, same = settled(problem, theta, value)
    assert (again == theta).all()
    assert (same == value).all()


def test_a_law_by_which_more_tokens_do_harm_is_not_kept_for_being_lower():
    table = ladder(1.5, 0.001, 0)
    table["loss"] = 1.5 + 480 * table["params"] ** -0.35 + 0.05 * (table["tokens"] / 2e8) ** 0.3
    columns = {name: table[name].to_numpy() for name in ("params", "tokens")}
    problem = Problem.of(LAWS.get("chinchilla"), make_loss("huber_log", 1e-3), columns, table["loss"].to_numpy())
    theta, value = minimise(problem, problem.law.starts(problem.x, problem.y), tolerance=1e-12)
    harmful = int(np.nanargmin(value))
    assert not problem.law.falls(theta[[harmful]])[0]
    begin = np.array([[*problem.law.starts(problem.x, problem.y)[0]]])
    kept, _ = settled(problem, begin, problem.objective(begin)[0], every_edge=True)
    assert problem.law.falls(kept).all()
