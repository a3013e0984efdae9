"""Floors of IsoFLOP valleys on runs whose tokens are partly lost, with outliers, few sizes, seeds and odd shapes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import Akima1DInterpolator

import analysis
from analysis.scaling.akima_floors import akima_floors
from analysis.scaling.valley_noise import noise_of_budgets

E, A, B, ALPHA, BETA = 1.82, 480.0, 2140.0, 0.347, 0.367
BUDGETS = np.geomspace(1e16, 2e19, 8)


def loss(params, flops, lost):
    tokens = flops / (6 * params)
    trained = E + A / params**ALPHA + B / np.maximum(tokens - lost, 1e3) ** BETA
    return np.minimum(10.8, np.where(tokens > lost, trained, 10.8))


def centre(flops):
    growth = BETA / (ALPHA + BETA)
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** growth


@cache
def true_optima(lost):
    found = []
    for flops in BUDGETS:
        fine = np.geomspace(centre(flops) / 100, centre(flops) * 100, 100_001)
        found.append(fine[np.argmin(loss(fine, flops, lost))])
    return np.array(found)


def true_exponent(lost):
    return np.polyfit(np.log(BUDGETS), np.log(true_optima(lost)), 1)[0]


def grid(lost=1e8, sizes=12, noise=0.002, span=100.0, seeds=1, loud=1.0, draw=0):
    """Runs at eight budgets, `loud` times as noisy at the two smallest."""
    rng, rows = np.random.default_rng(draw), []
    for number, flops in enumerate(BUDGETS):
        for params in np.geomspace(centre(flops) / span**0.5, centre(flops) * span**0.5, sizes):
            for seed in range(seeds):
                factor = np.exp(noise * (loud if number < 2 else 1.0) * rng.standard_normal())
                measured = float(loss(params, flops, lost)) * factor
                rows.append({"params": params, "flops": flops, "seed": seed, "loss": measured})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("lost", [0.0, 1e8, 3e8])
@pytest.mark.parametrize("sizes", [8, 15])
def test_without_noise_every_floor_is_the_true_one_however_many_tokens_are_lost(lost, sizes):
    fit = analysis.fit_isoflop(grid(lost, sizes=sizes, noise=0.0), bootstrap=0)
    assert [budget.params for budget in fit.budgets] == pytest.approx(true_optima(lost), rel=1e-3)
    assert fit.exponents["a"] == pytest.approx(true_exponent(lost), abs=1e-4)
    assert fit.misfit == 0.0


@pytest.mark.parametrize("lost", [0.0, 1e8, 3e8])
def test_with_noise_the_exponent_is_near_and_its_interval_holds_the_truth(lost):
    fits = [analysis.fit_isoflop(grid(lost, draw=draw), bootstrap=200) for draw in range(6)]
    truth = true_exponent(lost)
    errors = [fit.exponents["a"] - truth for fit in fits]
    assert np.sqrt(np.mean(np.square(errors))) < 0.004
    held = [fit.intervals["a"][0] < truth < fit.intervals["a"][1] for fit in fits]
    assert sum(held) >= 4  # fewer than 4 of 6 has a probability of 0.002 where 95 % are meant
    widths = [fit.intervals["a"][1] - fit.intervals["a"][0] for fit in fits]
    assert max(widths) < 0.02
    assert all(len(fit.accepted) == len(BUDGETS) for fit in fits)


@pytest.mark.parametrize(("place", "measured"), [(40, 10.0), (13, 1.06), (52, 0.94), (29, 1e3)])
def test_one_outlier_moves_no_floor_and_is_named(place, measured):
    """A loss of 10 is that of a run that diverged; below 2 it is a factor."""
    table = grid(0.0)
    clean = analysis.fit_isoflop(table, bootstrap=0)
    bad = table.copy()
    bad.loc[place, "loss"] = measured if measured > 2 else table["loss"][place] * measured
    fit = analysis.fit_isoflop(bad, bootstrap=0)
    assert fit.exponents["a"] == pytest.approx(clean.exponents["a"], abs=1e-3)
    if measured < 2:  # a diverged run lies above the window, as the far sizes do
        (one,) = fit.set_aside
        assert one["params"] == pytest.approx(table["params"][place])
        assert abs(one["deviations"]) > 6
        assert "took no part: " in str(fit)
        assert "1 size far off the valley took no part." in fit.caveats


def test_noise_is_that_of_each_budget_and_between_seeds_where_there_are_some():
    loud = analysis.fit_isoflop(grid(noise=0.002, loud=4.0, sizes=15), bootstrap=0)
    assert loud.noise == "residuals"
    assert loud.budgets[0].noise > 1.8 * loud.budgets[-1].noise
    even = analysis.fit_isoflop(grid(noise=0.002, sizes=15), bootstrap=0)
    assert max(budget.noise for budget in even.budgets) < 1.1 * min(budget.noise for budget in even.budgets)
    assert even.budgets[0].noise == pytest.approx(0.002, rel=0.25)
    seeds = analysis.fit_isoflop(grid(noise=0.002, seeds=3, sizes=6), bootstrap=0)
    assert seeds.noise == "seeds"
    assert seeds.budgets[0].noise == pytest.approx(0.002, rel=0.25)


def test_variances_are_one_where_they_differ_by_chance_and_change_where_they_do():
    rng = np.random.default_rng(0)
    freedom = np.full(10, 12.0)
    alike = rng.chisquare(12, 10) * 4.0
    assert noise_of_budgets(alike, freedom).variance == pytest.approx(np.full(10, alike.sum() / 120), rel=0.1)
    found = noise_of_budgets(alike * np.repeat([25.0, 1.0], 5), freedom).variance
    for part, scale in ((slice(5), 25.0), (slice(5, 10), 1.0)):
        assert found[part] == pytest.approx(np.full(5, scale * alike[part].sum() / 60), rel=0.1)


def test_a_budget_without_degrees_of_freedom_has_the_noise_of_its_neighbours():
    found = noise_of_budgets(np.array([8.0, 0.0, 12.0]), np.array([10.0, 0.0, 10.0]))
    assert found.variance[0] < found.variance[1] < found.variance[2]
    assert np.isfinite(found.draws(100, np.random.default_rng(0))).all()
    nothing = noise_of_budgets(np.zeros(3), np.zeros(3))
    assert np.isfinite(nothing.variance * nothing.draws(100, np.random.default_rng(0))).all()


@pytest.mark.parametrize("loud", [1.0, 3.0])
def test_draws_of_the_noise_hold_the_true_one_and_move_together_where_budgets_are_alike(loud: float):
    truth = np.repeat([loud**2, 1.0], [3, 7])
    rng = np.random.default_rng(1)
    held, alike = [], []
    for _ in range(300):
        noise = noise_of_budgets(truth * rng.chisquare(6, 10), np.full(10, 6.0))
        draws = noise.draws(200, rng) * noise.variance
        alike.append((draws[:, 8] == draws[:, 9]).mean())
        held.append([np.quantile(draws, 0.025, axis=0), np.quantile(draws, 0.975, axis=0)])
    low, high = np.array(held).transpose(1, 0, 2)
    share = ((low <= truth) & (truth <= high)).mean(axis=0)
    assert share.min() > 0.85
    assert 0.92 < share.mean() < 0.99
    assert np.mean(alike) > 0.7


@pytest.mark.parametrize("shape", ["parabola", "steep below", "flat"])
def test_valleys_of_another_shape_are_followed_and_their_misfit_widens_the_interval(shape):
    bend = {"parabola": (0.02, 0.02), "steep below": (0.05, 0.015), "flat": (0.004, 0.004)}[shape]
    rng, rows = np.random.default_rng(1), []
    for flops in BUDGETS:
        best = 1e7 * (flops / BUDGETS[0]) ** 0.55
        for u in np.linspace(-2.0, 2.0, 11):
            log_loss = 1.0 + (bend[0] if u < 0 else bend[1]) * u**2 - 0.02 * np.log(flops / BUDGETS[0])
            rows.append(
                {"params": best * np.exp(u), "flops": flops, "loss": np.exp(log_loss + 0.001 * rng.standard_normal())}
            )
    fit = analysis.fit_isoflop(pd.DataFrame(rows), bootstrap=200)
    low, high = fit.intervals["a"]
    assert low < 0.55 < high
    assert fit.exponents["a"] == pytest.approx(0.55, abs=0.02 if shape == "flat" else 0.01)
    if shape == "steep below":
        assert fit.misfit > 0
        assert "the shape misses the runs by " in str(fit)


@pytest.mark.parametrize(("budgets", "sizes"), [(1, 4), (2, 4), (3, 5), (8, 4)])
def test_few_budgets_and_sizes_have_optima_with_intervals_where_the_noise_is_known(budgets, sizes):
    table = grid(0.0, sizes=sizes, span=10.0)
    table = table[table["flops"] <= BUDGETS[budgets - 1] * 1.01]
    fit = analysis.fit_isoflop(table, bootstrap=200)
    truth = true_optima(0.0)[:budgets]
    assert [budget.params for budget in fit.accepted] == pytest.approx(truth, rel=0.25)
    if budgets * sizes > 8:  # of 150 draws of such grids, 2 to 3 % of the budgets lie outside
        held = [one.interval[0] < best < one.interval[1] for one, best in zip(fit.accepted, truth, strict=True)]
        assert sum(held) >= budgets - 1
    if budgets * sizes <= 8:  # curves through all sizes: nothing is left to measure the noise by
        assert all(budget.interval is budget.noise is None for budget in fit.accepted)
        assert "no intervals: " in str(fit)


@pytest.mark.parametrize("factor", [1.0002, 1.002])
def test_a_run_measured_twice_is_no_second_seed(factor: float):
    table = grid(0.0, sizes=8)
    again = table.groupby("flops").head(3)
    again = again.assign(seed=1, loss=again["loss"] * (1 + (factor - 1) * np.tile([1.0, -1.0, 0.5], len(BUDGETS))))
    once = analysis.fit_isoflop(table, bootstrap=200)
    fit = analysis.fit_isoflop(pd.concat([table, again]), bootstrap=200)
    if factor > 1.001:  # as far apart as seeds are: nothing tells them from seeds
        assert fit.noise == "seeds"
        return
    assert fit.noise == "residuals"
    assert any("they are no independent seeds" in note for note in fit.notes)
    assert fit.exponents["a"] == pytest.approx(once.exponents["a"], abs=1e-4)
    assert fit.intervals["a"] == pytest.approx(once.intervals["a"], abs=1e-3)


def test_a_seed_that_diverged_is_no_noise_of_the_others():
    table = grid(0.0, sizes=8, seeds=2)
    clean = analysis.fit_isoflop(table, bootstrap=200)
    table.loc[41, "loss"] = 30.0
    fit = analysis.fit_isoflop(table, bootstrap=200)
    assert fit.noise == "seeds"
    assert max(budget.noise for budget in fit.budgets) < 0.003
    assert fit.exponents["a"] == pytest.approx(clean.exponents["a"], abs=1e-3)
    widths = [one.intervals["a"][1] - one.intervals["a"][0] for one in (clean, fit)]
    assert widths[1] < 1.5 * widths[0]


def test_a_budget_is_refused_only_for_an_end_or_for_too_few_sizes():
    table = grid(3e8, noise=0.006, sizes=15)
    inside = table.groupby("flops")["loss"].apply(lambda losses: 0 < int(np.argmin(losses)) < len(losses) - 1)
    fit = analysis.fit_isoflop(table, bootstrap=0)
    assert [budget.refused is None for budget in fit.budgets] == inside.tolist()
    first = table["flops"] == BUDGETS[0]
    cut = table[~(first & (table["params"] < 1.01 * table["params"][first].iloc[int(np.argmin(table["loss"][first]))]))]
    refused = analysis.fit_isoflop(cut, bootstrap=0).budgets[0].refused
    assert refused == "the lowest loss is at the edge, at the smallest size; add sizes beyond it"


def test_a_draw_that_loses_a_budget_keeps_the_others():
    lost = analysis.scaling.allocation.slopes(
        np.array([0.0, 1.0, 2.0]), np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [np.nan, 5.0, 8.0]]), 1.0
    )
    assert lost == pytest.approx(np.array([[2.0, 1.0], [2.0, 1.0], [5.0, 3.0]]))
    table = grid(0.0, sizes=6, span=4.0, noise=0.02)  # hardly curved inside the sizes
    noisy = analysis.fit_isoflop(table, bootstrap=200)
    assert any(budget.interval is None for budget in noisy.accepted)
    assert noisy.intervals is not None


def test_akima_finds_the_lowest_point_of_its_own_interpolation():
    rng = np.random.default_rng(3)
    x = np.sort(rng.uniform(0, 5, 9))
    losses = (x - 2.4) ** 2 + 0.3 * rng.standard_normal((20, 9))
    fine = np.linspace(x[0], x[-1], 200_001)
    curves = Akima1DInterpolator(x, losses.T)(fine)
    lowest = fine[np.argmin(curves, axis=0)]
    found = akima_floors(x, losses)
    inside = (lowest > x[0]) & (lowest < x[-1])
    assert found[inside] == pytest.approx(lowest[inside], abs=1e-4)
    assert np.isnan(found[~inside]).all()
    assert np.isnan(akima_floors(x, np.array([x, -x]))).all()


@pytest.mark.slow  # the certificate of a law
def test_no_bias_is_stated_from_a_law_that_does_not_hold():
    table = grid(3e8)
    table["tokens"] = table["flops"] / (6 * table["params"])
    fit = analysis.fit_isoflop(table, bootstrap=100)
    assert fit.exponent_bias is None
    assert all(budget.bias is None for budget in fit.budgets)
    assert "needs a law that holds, and the certificate of chinchilla does NOT hold" in str(fit)
    assert "bias" not in fit.sentence
    assert "bias" not in analysis.optimal_allocation(fit, 1e20).sentence
