"""IsoFLOP valleys, the frontier, and the figures of both and of a law."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_laws import TRUTH, best_params, make_runs, make_valleys, noisy_fit, valleys_fit

import analysis
from analysis.plots.law_figures import isoflop_figure, isoflop_panels, law_figure, law_panels
from stackwise_ray.core.errors import AnalysisError

BUDGETS = (1e18, 1e19, 1e20)


def without_tokens(*arguments, **options) -> pd.DataFrame:
    """Valleys alone: without tokens there is no surface to compute a bias from, and that takes the time."""
    return make_valleys(*arguments, **options).drop(columns="tokens")


def test_the_optimum_of_each_budget_is_found_within_its_interval():
    fit = valleys_fit()
    assert [budget.flops for budget in fit.accepted] == pytest.approx(BUDGETS)
    for budget in fit.accepted:
        assert budget.params == pytest.approx(best_params(budget.flops), rel=0.1)
        assert budget.interval[0] < budget.params < budget.interval[1]
        assert 6 * budget.params * budget.tokens == pytest.approx(budget.flops, rel=1e-6)
    low, high = fit.intervals["a"]
    assert low < TRUTH["chinchilla"]["beta"] / (TRUTH["chinchilla"]["alpha"] + TRUTH["chinchilla"]["beta"]) < high
    assert fit.exponents["a"] + fit.exponents["b"] == pytest.approx(1)
    assert fit.noise == "seeds"


def test_without_noise_the_optima_are_those_of_the_law_that_made_the_runs():
    fit = analysis.fit_isoflop(without_tokens(seeds=1, noise=0.0), bootstrap=0)
    for budget in fit.accepted:
        assert budget.params == pytest.approx(best_params(budget.flops), rel=2e-3)
    assert fit.exponents["a"] == pytest.approx(0.37 / 0.72, abs=2e-4)


def test_the_bias_of_a_law_that_holds_is_stated_wherever_the_number_is_used():
    fit = valleys_fit()
    assert abs(fit.exponent_bias) < 1e-3
    assert all(abs(budget.bias) < 5e-3 for budget in fit.accepted)
    assert "bias of the method, if the losses were those of the fitted law without noise" in str(fit)
    assert "the method's bias in the first exponent is " in fit.sentence
    assert fit.to_dict()["exponent_bias"] == fit.exponent_bias
    found = analysis.optimal_allocation(fit, 1e21)
    assert "bias of params " in found.sentence
    assert abs(found.bias) < 0.01


def test_more_noise_between_seeds_widens_the_interval_and_the_seed_decides_the_draws():
    quiet = analysis.fit_isoflop(without_tokens(noise=0.001), bootstrap=200)
    loud = analysis.fit_isoflop(without_tokens(noise=0.004), bootstrap=200)
    widths = [np.log(fit.accepted[0].interval[1] / fit.accepted[0].interval[0]) for fit in (quiet, loud)]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.2)
    again = analysis.fit_isoflop(without_tokens(noise=0.001), bootstrap=200)
    other = analysis.fit_isoflop(without_tokens(noise=0.001), bootstrap=200, seed=1)
    assert again.intervals == quiet.intervals != other.intervals


def test_one_seed_a_size_takes_its_noise_from_the_residuals_and_says_so():
    fit = analysis.fit_isoflop(without_tokens(seeds=1), bootstrap=200)
    assert fit.noise == "residuals"
    assert "noise between residuals" not in str(fit)
    assert "noise of the runs about their curves" in str(fit)
    assert fit.accepted[0].interval is not None


def test_a_maximum_an_edge_and_three_sizes_are_refused_by_name():
    table = without_tokens(seeds=1)
    hill = table[table["flops"] == 1e18].assign(flops=1e21, loss=lambda part: 6 - part["loss"])
    slope = table[table["flops"] == 1e18].sort_values("params").head(4)
    three = table[table["flops"] == 1e18].head(3).assign(flops=1e23)
    fit = analysis.fit_isoflop(pd.concat([table, hill, slope.assign(flops=1e22), three]), bootstrap=0)
    refused = {budget.name: budget.refused for budget in fit.budgets if budget.refused}
    assert "the lowest loss is at the edge" in refused["1e+21"]
    assert "at the edge, at the largest size" in refused["1e+22"]
    assert "3 model sizes" in refused["1e+23"]
    assert len(fit.accepted) == 3
    for name, why in refused.items():
        assert any(name in line and line.endswith(f"refused: {why}") for line in fit.refusals)


def test_the_growth_says_which_budgets_carry_it_and_when_they_are_few_or_close():
    table = without_tokens(seeds=1)
    wide = str(analysis.fit_isoflop(table, bootstrap=0))
    assert "rests on 3 budgets, which span a factor of 100 in flops\n" in f"{wide}\n"
    two = str(analysis.fit_isoflop(table[table["flops"] < 5e19], bootstrap=0))
    assert "rests on 2 budgets, which span a factor of 10 in flops; through two points any line fits" in two
    assert "optimum moves little" not in two
    near = without_tokens(budgets=(1e18, 2e18, 4e18), seeds=1)
    assert "a factor of 4 in flops; below a factor of 10 the optimum moves little" in str(
        analysis.fit_isoflop(near, bootstrap=0)
    )
    one = str(analysis.fit_isoflop(table[table["flops"] == 1e18], bootstrap=0))
    assert "growth rests" not in one


def test_runs_within_two_percent_are_one_budget_unless_a_column_says_otherwise():
    table = without_tokens(seeds=1)
    table["flops"] *= 1 + 0.015 * (np.arange(len(table)) % 2)
    table["nominal"] = [f"{value:.0e}" for value in make_valleys(seeds=1)["flops"]]
    by_flops = analysis.fit_isoflop(table, bootstrap=0)
    by_name = analysis.fit_isoflop(table, budgets="nominal", bootstrap=0)
    assert len(by_flops.budgets) == len(by_name.budgets) == 3
    assert by_flops.exponents == by_name.exponents
    assert "runs whose flops lie within 2 %" in str(by_flops)
    assert "within 2 %" not in str(by_name)
    with pytest.raises(AnalysisError, match="did you mean 'nominal'"):
        analysis.fit_isoflop(table, budgets="nominl")


def test_isoflop_without_tokens_has_no_b_and_no_bias_and_says_why():
    fit = analysis.fit_isoflop(make_valleys().drop(columns="tokens"), bootstrap=100)
    assert set(fit.exponents) == {"a"}
    assert fit.accepted[0].bias is None
    assert "bias is not computed: the runs have no column 'tokens'" in str(fit)
    with pytest.raises(AnalysisError, match=r"no column 'tokens', so .*\(--tokens-from 6N\)"):
        analysis.optimal_allocation(fit, 1e21)


def test_one_budget_has_an_optimum_and_no_growth():
    fit = analysis.fit_isoflop(without_tokens((1e19,)), bootstrap=100)
    assert fit.accepted[0].interval is not None
    assert (fit.exponents, fit.intervals) == ({}, None)
    with pytest.raises(AnalysisError, match="fewer than two budgets"):
        analysis.optimal_allocation(fit, 1e21)


def test_runs_without_budgets_are_told_so_in_a_few_lines():
    flops = np.geomspace(1e15, 1e18, 40)
    runs = pd.DataFrame({"params": np.linspace(1e6, 9e6, 40), "flops": flops, "loss": np.linspace(4, 3, 40)})
    found = analysis.fit_isoflop(runs)
    text = str(found)
    assert len(text.splitlines()) < 10
    assert "and 32 more refused: 1 model size; a valley needs at least 4" in text
    assert "name the column of the nominal budget (--budgets)" in text
    assert "bootstrap draws" not in text
    assert len(found.to_dict()["budgets"]) == 40


def test_the_allocation_of_isoflop_follows_its_power_law():
    fit = valleys_fit()
    found = analysis.optimal_allocation(fit, 1e21)
    low, high = found.intervals["params"]
    assert low < found.params < high
    assert found.params == pytest.approx(best_params(1e21), rel=0.15)
    assert found.extrapolation == pytest.approx(10, rel=1e-6)


def test_the_seed_decides_the_draws_of_the_frontier():
    runs = make_valleys(seeds=1)
    first, again, other = (analysis.fit_frontier(runs, bootstrap=200, seed=seed) for seed in (0, 0, 1))
    assert first.intervals == again.intervals != other.intervals


def test_the_frontier_is_the_runs_that_no_cheaper_run_beats():
    fit = analysis.fit_frontier(make_valleys(seeds=1, noise=0.0), bootstrap=200)
    assert [run["flops"] for run in fit.runs] == pytest.approx(BUDGETS)
    assert [run["params"] for run in fit.runs] == pytest.approx([best_params(flops) for flops in BUDGETS], rel=1e-6)
    assert fit.exponents["a"] == pytest.approx(0.37 / 0.72, abs=1e-6)
    found = analysis.optimal_allocation(fit, 1e19)
    assert found.params == pytest.approx(best_params(1e19), rel=1e-6)
    with pytest.raises(AnalysisError, match="the frontier has 2 of 14 runs"):
        analysis.fit_frontier(make_valleys((1e18, 1e19), seeds=1, noise=0.0))


@pytest.mark.slow
def test_figures_are_drawn_for_every_kind_of_law_and_for_valleys(tmp_path):
    runs = make_runs("power_offset", n=30, noise=0.004)
    for fit in (analysis.fit_scaling_law(runs, law="power_offset", bootstrap=100), noisy_fit()):
        assert law_figure(tmp_path / f"{fit.law}.png", fit).read_bytes().startswith(b"\x89PNG")
    valleys = analysis.fit_isoflop(without_tokens(seeds=1), bootstrap=100)
    assert isoflop_figure(tmp_path / "isoflop.png", valleys).read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_a_law_has_no_panel_that_shows_nothing():
    valleys = analysis.fit_isoflop(without_tokens(seeds=1), bootstrap=0)
    assert [panel.name for panel in isoflop_panels(valleys)] == ["valleys", "optima"]
    three = make_valleys((1e18,), seeds=1, sizes=3).drop(columns="tokens")
    assert [panel.name for panel in isoflop_panels(analysis.fit_isoflop(three, bootstrap=0))] == ["valleys"]
    runs = make_runs("power_offset", n=30, noise=0.004)
    for holdout, drawn in (("largest", ["law", "hold-out"]), (None, ["law"])):
        fit = analysis.fit_scaling_law(runs, law="power_offset", bootstrap=100, holdout=holdout)
        assert [panel.name for panel in law_panels(fit)] == drawn
