"""What the figures of laws and valleys draw: the runs, the law, the optima, and nothing that was not fitted."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_laws import make_runs, make_valleys

import analysis
from analysis.plots.figures import canvas
from analysis.plots.law_figures import isoflop_figure, isoflop_panels, law_figure, law_panels
from analysis.scaling.law_text import show_value


@cache
def law() -> analysis.ScalingFit:
    return analysis.fit_scaling_law(make_runs("power_offset", n=30, noise=0.004), law="power_offset", bootstrap=100)


@cache
def valleys() -> analysis.IsoFlopFit:
    return analysis.fit_isoflop(make_valleys(seeds=1).drop(columns="tokens"), bootstrap=100)


def drawn(panel: Any) -> tuple[Any, dict[str, Any]]:
    """The axes of a panel, and its named lines as arrays of points."""
    _, axes = canvas(1, 1, (5, 4))
    panel.draw(axes[0][0])
    lines = {line.get_label(): np.array(line.get_data(), dtype=float) for line in axes[0][0].lines}
    return axes[0][0], lines


def test_a_law_is_drawn_among_its_runs_with_its_interval() -> None:
    fit = law()
    axes, lines = drawn(law_panels(fit)[0])
    runs, curve = lines["runs"], lines["law"]
    order = np.argsort(runs[0])
    table = make_runs("power_offset", n=30, noise=0.004).sort_values("flops")
    assert runs[:, order] == pytest.approx(np.array([table["flops"], table["loss"]]))
    assert (curve[0, 0], curve[0, -1]) == pytest.approx((table["flops"].min(), table["flops"].max()))
    mean, low, high = fit.predict(flops=curve[0])
    assert curve[1] == pytest.approx(mean)
    (band,) = axes.collections
    assert band.get_label() == "95% prediction interval"
    ends = band.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == pytest.approx((low.min(), high.max()))
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (f"loss = {fit.formula}", "flops", "loss")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.xaxis.get_major_formatter()(1e21, 0) == "1e+21", "beyond the last prefix a power of ten"


def test_held_out_runs_lie_in_the_order_of_their_prediction_each_in_its_own_colour() -> None:
    fit = law()
    held = fit.certificate.holdout
    assert held is not None
    axes, lines = drawn(law_panels(fit)[1])
    assert len(law_panels(fit)) == 2
    assert axes.get_title() == "Hold-out: the largest budget"
    assert axes.get_ylabel() == f"runs from {held.at_least:.3g} flops on"
    order = np.argsort(np.array(held.predicted), kind="stable")[::-1]
    low, measured, high = (np.array(values)[order] for values in (held.low, held.measured, held.high))
    within = (low <= measured) & (measured <= high)
    assert within.sum() == held.inside < held.n
    for name, members in (("measured, inside", within), ("outside", ~within)):
        assert lines[name][0] == pytest.approx(measured[members])
        assert lines[name][1].tolist() == np.arange(held.n)[members].tolist()
    (errors,) = axes.containers
    segments = np.array(errors.lines[2][0].get_segments())
    assert segments[:, 0, 0] == pytest.approx(np.array(held.low)[order])
    assert segments[:, 1, 0] == pytest.approx(np.array(held.high)[order])


def test_every_budget_is_drawn_with_its_curve_and_its_floor() -> None:
    fit = valleys()
    axes, lines = drawn(isoflop_panels(fit)[0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1e+18", "1e+19", "1e+20"]
    unnamed = [value for name, value in lines.items() if name.startswith("_")]
    for budget, curve, floor in zip(fit.budgets, unnamed[::2], unnamed[1::2], strict=True):
        assert lines[budget.name] == pytest.approx(np.array([budget.sizes, budget.losses]))
        assert curve == pytest.approx(np.array([budget.curve_params, budget.curve_losses]))
        assert floor[0, 0] == pytest.approx(budget.params)
        assert floor[1, 0] == pytest.approx(curve[1].min(), rel=1e-4)
    assert axes.get_title() == "Loss over model size, by budget (FLOPs)"


def test_a_budget_without_an_optimum_says_so_and_has_no_floor() -> None:
    table = make_valleys(seeds=1).drop(columns="tokens")
    largest = table["flops"] == table["flops"].max()
    optimum = table["params"][largest].median()
    fit = analysis.fit_isoflop(table[~(largest & (table["params"] < 0.9 * optimum))], bootstrap=0)
    assert [budget.refused is None for budget in fit.budgets] == [True, True, False]
    axes, lines = drawn(isoflop_panels(fit)[0])
    assert "1e+20 (no optimum)" in lines
    (refused,) = [line for line in axes.lines if line.get_label() == "1e+20 (no optimum)"]
    assert refused.get_markerfacecolor() == "white"
    assert sum(name.startswith("_") for name in lines) == 4


def test_the_growth_of_the_optima_is_drawn_with_its_exponent() -> None:
    fit = valleys()
    _, lines = drawn(isoflop_panels(fit)[1])
    assert pytest.approx(np.array([(b.flops, b.params) for b in fit.accepted])) == lines["shared curve, 95%"].T
    assert pytest.approx(np.array([(b.flops, b.akima_params) for b in fit.accepted])) == lines["Akima"].T
    (label,) = [name for name in lines if name.startswith("flops^")]
    low, high = fit.intervals["a"]
    assert label == f"flops^{show_value(fit.exponents['a'])} [{show_value(low)} to {show_value(high)}]"
    (x0, x1), (y0, y1) = lines[label]
    assert (x0, x1) == pytest.approx((1e18, 1e20))
    assert np.log(y1 / y0) / np.log(x1 / x0) == pytest.approx(fit.exponents["a"])
    ends = [value[1].tolist() for name, value in lines.items() if name.startswith("_")]
    assert ends == [pytest.approx(budget.interval) for budget in fit.accepted]
    plain = analysis.fit_isoflop(make_valleys(seeds=1).drop(columns="tokens"), bootstrap=0)
    _, without = drawn(isoflop_panels(plain)[1])
    assert f"flops^{show_value(plain.exponents['a'])}" in without


def test_a_figure_has_all_panels_side_by_side(tmp_path: Path) -> None:
    from matplotlib.image import imread

    one, two = law_figure(tmp_path / "law.png", law()), isoflop_figure(tmp_path / "isoflop.png", valleys())
    assert (one, two) == (tmp_path / "law.png", tmp_path / "isoflop.png")
    for path in (one, two):
        height, width, _ = imread(path).shape
        assert width > 1.5 * height


# ---------------------------------------------------------------------------------------------------- the frontier


def test_a_frontier_says_how_params_and_tokens_grow_along_it() -> None:
    fit = analysis.fit_frontier(make_valleys(seeds=1, noise=0.0), bootstrap=100)
    assert fit.sentence.startswith("On the frontier (3 of 21 runs) params ∝ flops^0.51389 [")
    assert " and tokens ∝ flops^0.48611 [" in fit.sentence
    assert fit.exponents["a"] + fit.exponents["b"] == pytest.approx(1.0)
    assert fit.intervals is not None
    for key in "ab":
        low, high = fit.intervals[key]
        assert low < fit.exponents[key] < high
    assert fit.grid.columns == ("flops", "params", "tokens", "loss")
    assert [row[0] for row in fit.grid.rows] == ["1e+18", "1e+19", "1e+20"]
    assert fit.grid.rows[0] == ("1e+18", "8.44e+07", "1.975e+09", "3.3709")
    assert fit.notes[0].startswith("intervals: 100 bootstrap draws of 21 runs")
    plain = fit.to_dict()
    assert plain["sentence"] == fit.sentence
    assert plain["runs"] == fit.runs
    assert "line" not in plain


def test_without_draws_or_tokens_a_frontier_says_less() -> None:
    fit = analysis.fit_frontier(make_valleys(seeds=1, noise=0.0).drop(columns="tokens"), bootstrap=0)
    assert fit.sentence == "On the frontier (3 of 21 runs) params ∝ flops^0.51389 [no interval]."
    assert (fit.notes, fit.intervals, list(fit.exponents)) == ((), None, ["a"])
    assert [run["tokens"] for run in fit.runs] == [None] * 3


def test_of_runs_that_cost_the_same_the_best_is_on_the_frontier_and_a_dearer_one_that_is_no_better_is_not() -> None:
    table = make_valleys(seeds=1, noise=0.0).drop(columns="tokens")
    best = table.loc[table.groupby("flops")["loss"].idxmin()]
    dearer = best.iloc[[1]].assign(flops=5e19)
    table = pd.concat([best, dearer, dearer.assign(flops=7e19)], ignore_index=True)
    fit = analysis.fit_frontier(table, bootstrap=100)
    assert [run["flops"] for run in fit.runs] == pytest.approx([1e18, 1e19, 1e20])
    assert fit.n == 5
    assert 0 < fit.line.lost < 1, "a draw without one of the three has no growth"
