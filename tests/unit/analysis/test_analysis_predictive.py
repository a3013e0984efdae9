"""Prediction intervals: widened by what the law missed on budgets left out; interval and p of a hold-out agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.scaling import predictive
from analysis.scaling.law_losses import make_loss
from analysis.scaling.minimisation import Problem, minimise
from analysis.scaling.predictive import budget_blocks, calibrate, interval_ends, nearest
from stackwise_ray.core.registries import LAWS

BUDGETS, SIZES = 8, 6


def budgets(shared: float, seed: int, noise: float = 0.004) -> tuple[Problem, np.ndarray]:
    """Eight budgets of six runs each on a power law of flops within 5 %, with noise that a budget shares."""
    rng = np.random.default_rng(seed)
    flops = np.repeat(np.geomspace(1e17, 1e20, BUDGETS), SIZES)
    y = np.log(20 * flops**-0.05) + noise * rng.normal(size=flops.size)
    y += shared * np.repeat(rng.normal(size=BUDGETS), SIZES)
    problem = Problem.of(LAWS.get("power"), make_loss("huber_log", 1e-3), {"flops": flops}, np.exp(y))
    return problem, flops


def factor(shared: float, seed: int) -> float:
    problem, flops = budgets(shared, seed)
    theta = minimise(problem, LAWS.get("power").starts(problem.x, problem.y), tolerance=1e-11)
    best = theta[0][int(np.nanargmin(theta[1]))]
    found = calibrate(problem, best, flops, seed, 0.95)
    assert found is not None
    assert (found.budgets, found.runs) == (BUDGETS, BUDGETS * SIZES)
    assert found.unwidened <= found.inside
    return found.factor


def test_noise_that_a_budget_shares_widens_the_interval_and_other_noise_does_not():
    alone = [factor(0.0, seed) for seed in range(5)]
    shared = [factor(0.012, seed) for seed in range(5)]
    assert np.median(alone) < 1.15
    assert np.median(shared) > 1.5


def test_the_factor_is_the_root_mean_square_of_the_misses_with_two_budgets_of_one_beside_them():
    assert predictive._factor(np.full(4, 4.0)) == pytest.approx(np.sqrt((2 + 16) / (2 + 4)))
    assert predictive._factor(np.zeros(4)) == 1.0  # never narrower than the law's own


def test_a_budget_is_no_part_of_the_factor_that_its_own_runs_are_measured_with():
    """The first budget misses by ten: its own factor, 4.5, would hold its runs; that of the others, 1, does not."""
    squares = np.array([100.0, 0.0, 0.0])
    misses = [np.array([3.0, 1.0]), np.array([9.5, 9.6]), np.array([0.0])]
    assert predictive._factor(squares) * 1.96 > 3.0
    by_second = predictive._factor(np.array([100.0, 0.0])) * 1.96
    assert by_second > 9.6
    assert predictive._inside(misses, squares, 1.96) == 1 + 2 + 1


def test_residuals_are_as_wide_as_the_noise_that_the_parameters_took_a_share_of():
    problem, _ = budgets(0.0, 1)
    theta = minimise(problem, LAWS.get("power").starts(problem.x, problem.y), tolerance=1e-11)
    best = theta[0][int(np.nanargmin(theta[1]))]
    residuals = problem.residuals(best[None])[0]
    widened = predictive.widened_residuals(problem, best)
    assert (widened**2).mean() == pytest.approx((residuals**2).sum() / (residuals.size - 2))


def test_the_noise_of_a_prediction_is_that_of_the_runs_nearby():
    problem, _ = budgets(0.0, 2)
    quiet = problem.x[0] > np.median(problem.x[0])
    line = LAWS.get("power").log_loss(np.array([[0.0, 0.05]]), problem.x)[0]
    noise = np.random.default_rng(5).normal(size=problem.y.size) * np.where(quiet, 0.001, 0.05)
    noisy = replace(problem, y=line + noise)
    point = problem.x[:, [int(np.argmax(problem.x[0]))]]
    theta = np.array([0.0, 0.05])
    spread = predictive.predictive_draws(
        noisy, theta, np.repeat(theta[None], 400, axis=0), point, 1.0, np.random.default_rng(0)
    )
    assert spread.std() < 0.002


def test_without_three_budgets_to_leave_out_the_coverage_is_said_to_be_unknown():
    problem = budgets(0.0, 0)[0]
    assert calibrate(problem, np.array([0.0, 0.05]), np.repeat([1e17, 1e20], 24), 0, 0.95) is None
    table = pd.DataFrame({"flops": [1e17, 1.001e17, 1.002e17, 1e20], "loss": [3.0, 3.01, 2.99, 2.5]})
    fit = analysis.fit_scaling_law(table, law="power", bootstrap=100)
    assert fit.calibration is None
    assert "coverage not measured (fewer than three budgets can be left out)" in str(fit)


def test_the_measured_coverage_stands_beside_the_law():
    problem, flops = budgets(0.004, 3)
    table = pd.DataFrame({"flops": flops, "loss": np.exp(problem.y)})
    fit = analysis.fit_scaling_law(table, law="power", bootstrap=100, level=0.9)
    assert "90 % prediction intervals, measured: " in str(fit)
    assert " of 48 runs inside (" in str(fit)
    assert "90% bootstrap" in fit.grid.columns
    (_, low, high), (_, lower, higher) = (fit.predict(flops=1e20, level=level) for level in (None, 0.99))
    assert lower < low < high < higher
    with pytest.raises(analysis.AnalysisError, match=r"level = 95 must lie between 0\.5 and 0\.99, such as 0\.95"):
        fit.predict(flops=1e20, level=95)


@pytest.mark.parametrize("draws", [100, 150, 197, 200])
def test_a_run_lies_inside_exactly_where_its_p_value_is_above_one_minus_the_level(draws):
    from analysis.scaling.certificate import _missed

    spread = np.random.default_rng(draws).gamma(2.0, size=(draws, 1))
    low, high = interval_ends(spread, 0.95)
    middle = np.median(spread, axis=0)
    for measured in np.linspace(0.0, 12.0, 400):
        missed = _missed(np.array([[measured]]), middle, low, high)[0]
        p = (1 + np.count_nonzero(_missed(spread, middle, low, high) >= missed)) / (1 + draws)
        assert (p > 0.05) == bool(low[0] <= measured <= high[0])


def test_many_budgets_are_left_out_with_their_neighbours():
    blocks = budget_blocks(np.geomspace(1e17, 1e21, 200))
    assert blocks.max() == 9
    assert (np.bincount(blocks) == 20).all()


def test_near_is_meant_in_compute_and_in_the_ratio_of_tokens_to_params():
    params, tokens = (np.log(v).ravel() for v in np.meshgrid([1e6, 1e8], [1e9, 1e11]))
    known = np.repeat([params, tokens], 12, axis=1)
    near = nearest(known, np.log([[1e8], [1e11]]), ("params", "tokens"))[0]
    assert near.size == 16
    assert (known[:, near[:12]] == np.log([[1e8], [1e11]])).all()
