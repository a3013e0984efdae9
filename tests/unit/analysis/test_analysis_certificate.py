"""What a law's certificate sees: one run far off, waves in the residuals, predictions off the ratio of the runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.scaling.certificate import Trend, check_trends


def two_seeds(seed: int = 0) -> pd.DataFrame:
    """Fifteen budgets of two runs on a power law, with noise of 0.2 %."""
    flops = np.repeat(10 ** np.linspace(17, 20, 15), 2)
    loss = 20 * flops**-0.05 * np.exp(0.002 * np.random.default_rng(seed).normal(size=30))
    return pd.DataFrame({"flops": flops, "loss": loss})


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.1, False), (10.0, False)])
def test_of_two_runs_held_out_one_that_is_far_off_fails_the_hold_out(factor: float, passed: bool):
    table = two_seeds()
    table.loc[29, "loss"] *= factor
    fit = analysis.fit_scaling_law(table, law="power", bootstrap=100)
    assert fit.certificate.holdout.n == 2
    assert fit.certificate.holdout.passed is passed
    assert ("hold-out failed" in fit.certificate.failures) is not passed


def test_residuals_that_go_up_and_down_are_seen():
    flops = 10 ** np.linspace(17, 20, 40)
    noise = np.random.default_rng(0).normal(size=40)
    wave = 0.03 * np.sin(np.linspace(0, 4 * np.pi, 40))
    for size, found in ((1.0, True), (0.0, False)):
        loss = 20 * flops**-0.05 * np.exp(size * wave + 0.001 * noise)
        fit = analysis.fit_scaling_law(pd.DataFrame({"flops": flops, "loss": loss}), law="power", bootstrap=100)
        (trend,) = fit.certificate.trends
        assert (trend.kind[0] == "wave" and trend.found) is found


def test_the_tests_of_residuals_are_corrected_together():
    flops = 10 ** np.linspace(17, 20, 40)
    residuals = np.random.default_rng(4).normal(size=40) + 0.9 * np.linspace(-1, 1, 40)
    (alone,) = check_trends(residuals, {"flops": flops})
    several = check_trends(residuals, {"flops": flops, "params": np.roll(flops, 7), "tokens": np.roll(flops, 20)})
    assert alone.found
    assert several[0].p_slope == pytest.approx(3 * alone.p_slope)
    assert not several[0].found


def test_what_lies_off_the_ratio_of_the_runs_is_an_extrapolation():
    params = np.repeat(10 ** np.linspace(7, 9, 8), 3)
    tokens = params * np.tile([12.0, 20.0, 32.0], 8)
    loss = 1.8 + 480 / params**0.35 + 2100 / tokens**0.37
    fit = analysis.fit_scaling_law(pd.DataFrame({"params": params, "tokens": tokens, "loss": loss}), bootstrap=0)
    assert fit.predict(params=3e8, tokens=6e9).extrapolation == 1
    assert fit.predict(params=9e8, tokens=9e8).extrapolation == pytest.approx(12, rel=0.01)


def test_a_trend_test_that_cannot_be_made_has_no_p_value_and_finds_nothing():
    trend = Trend(variable="params", slope=0.1, p_slope=0.4, bend=math.nan, p_bend=None, wave=1.9, p_wave=0.5)
    assert (trend.kind, trend.found) == (("slope", 0.4), False)
