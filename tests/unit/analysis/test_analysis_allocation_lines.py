"""The power law through optima: tokens and b beside params and a, on points whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_laws import TRUTH, best_params, make_valleys, valleys_fit

import analysis
from analysis.scaling.allocation import fit_line

FLOPS = np.array([1e18, 1e19, 1e20])


def test_a_line_through_exact_optima_gives_params_and_tokens_of_any_budget() -> None:
    line = fit_line(FLOPS, 2.0 * FLOPS**0.6, 0.5 * FLOPS**0.4)
    assert line.exponents == pytest.approx({"a": 0.6, "b": 0.4})
    found = line.at(1e21)
    assert found.params == pytest.approx(2.0 * 1e21**0.6, rel=1e-9)
    assert found.tokens == pytest.approx(0.5 * 1e21**0.4, rel=1e-9)


@pytest.mark.parametrize(("flops", "factor"), [(1e16, 100.0), (1e18, 1.0), (5e18, 1.0), (1e20, 1.0), (1e23, 1000.0)])
def test_beyond_either_end_of_the_budgets_the_line_is_an_extrapolation_by_a_factor(flops: float, factor: float) -> None:
    assert fit_line(FLOPS, FLOPS**0.5, FLOPS**0.5).at(flops).extrapolation == pytest.approx(factor)


def test_the_intervals_of_isoflop_hold_the_growth_of_tokens_as_well_as_that_of_params() -> None:
    fit = valleys_fit()
    alpha, beta = TRUTH["chinchilla"]["alpha"], TRUTH["chinchilla"]["beta"]
    true = {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}
    assert fit.intervals is not None
    for name, value in true.items():
        low, high = fit.intervals[name]
        assert low < fit.exponents[name] < high
        assert low < value < high
    for budget in fit.accepted:
        assert budget.tokens == pytest.approx(budget.flops / (6 * budget.params), rel=1e-6)
    found = analysis.optimal_allocation(fit, 1e21)
    assert found.tokens == pytest.approx(1e21 / (6 * best_params(1e21)), rel=0.15)
    assert found.intervals is not None
    low, high = found.intervals["tokens"]
    assert low < found.tokens < high


def test_the_frontier_grows_in_tokens_as_its_runs_do() -> None:
    fit = analysis.fit_frontier(make_valleys(seeds=1, noise=0.0), bootstrap=0)
    assert fit.exponents["b"] == pytest.approx(0.35 / 0.72, abs=1e-6)
    tokens = analysis.optimal_allocation(fit, 1e19).tokens
    assert tokens == pytest.approx(1e19 / (6 * best_params(1e19)), rel=1e-6)
