"""`fit_scaling_law`: the known answer, the certificate, determinism, predictions and every refusal by name."""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_laws import TRUTH, best_params, loss_of, make_runs, noisy_fit

import analysis
from analysis.plain_json import dump_json
from analysis.scaling.certificate import HoldOut
from analysis.scaling.law_table import derive_tokens, drop_highest
from analysis.table.selection import rename_columns
from stackwise_ray.core.errors import AnalysisError

SHARED = os.environ.get("STACKWISE_DATA")
needs_data = pytest.mark.skipif(not SHARED, reason="STACKWISE_DATA is not set: no copy of the points of Chinchilla")


@cache
def chinchilla() -> analysis.ScalingFit:
    """The published points without the five highest losses, fitted once."""
    source = Path(str(SHARED)) / "scaling-laws" / "epoch-chinchilla" / "svg_extracted_data.csv"
    table = rename_columns(analysis.load_runs(source), {"params": "Model Size", "flops": "Training FLOP"})
    return analysis.fit_scaling_law(drop_highest(table, 5), tokens_from="6N")


@cache
def counted() -> analysis.ScalingFit:
    """Exact runs whose table has both counts of parameters, and FLOPs that are not six per parameter and token."""
    table = make_runs(n=60)
    table["params_total"] = table["params"] * 2
    table["flops"] *= 1.5
    return analysis.fit_scaling_law(table, bootstrap=0)


@cache
def flat(seed: int) -> analysis.ScalingFit:
    """Noisy runs whose tokens are in proportion to their params."""
    rng = np.random.default_rng(seed)
    params = 10 ** rng.uniform(7, 10.3, size=60)
    columns = {"params": params, "tokens": 20 * params, "flops": 120 * params**2}
    losses = loss_of("chinchilla", columns) * np.exp(0.005 * rng.standard_t(4, size=60))
    return analysis.fit_scaling_law(pd.DataFrame({**columns, "loss": losses}), bootstrap=100)


@cache
def clean() -> analysis.ScalingFit:
    return analysis.fit_scaling_law(make_runs(n=60), bootstrap=100)


@needs_data
def test_the_published_points_give_the_known_answer():
    fit = chinchilla()
    assert fit.n == 240
    assert fit.objective <= 1.0182745e-3
    # half a unit of the last digit that is given
    given = {"E": (1.81722, 5e-6), "A": (477.83, 5e-3), "B": (2143.4, 0.05), "alpha": (0.34731, 5e-6)}
    for name, (value, half) in {**given, "beta": (0.36717, 5e-6)}.items():
        assert fit.parameters[name] == pytest.approx(value, abs=half)
    assert fit.exponents["a"] == pytest.approx(0.5139, abs=5e-5)


@needs_data
def test_the_published_intervals_are_met_within_a_hundredth():
    ends = chinchilla().intervals
    assert ends["E"] == pytest.approx((1.77, 1.87), abs=0.01)
    assert ends["alpha"] == pytest.approx((0.317, 0.373), abs=0.01)
    assert ends["beta"] == pytest.approx((0.331, 0.415), abs=0.01)


@needs_data
def test_the_known_optimum_is_found_by_two_roads_and_is_identified():
    certificate = chinchilla().certificate
    assert certificate.optimum.confirmed
    assert certificate.optimum.variable_projection == pytest.approx(1.0182740e-3, abs=5e-10)
    assert certificate.optimum.reached > certificate.optimum.starts / 2
    assert certificate.not_identified == ()
    assert certificate.holdout.n >= 12
    assert certificate.ranges["params"] == pytest.approx((5.73e7, 1.62e10), rel=0.01)


@needs_data
def test_hoffmanns_rounded_constants_score_four_times_worse():
    fit = chinchilla()
    rounded = np.array([[np.log(1.69), np.log(406.4), np.log(410.7), 0.34, 0.28]])
    assert fit.problem.objective(rounded)[0][0] == pytest.approx(4.1e-3, abs=0.05e-3)


@needs_data
def test_a_thousand_draws_of_the_known_fit_take_less_than_ten_seconds():
    from analysis.scaling.minimisation import draw

    fit = chinchilla()
    weights = np.random.default_rng(0).multinomial(240, np.full(240, 1 / 240), size=1000).astype(float)
    began = time.process_time()
    draw(fit.problem, fit.theta, weights, "bootstrap")
    assert time.process_time() - began < 10


def test_a_law_without_noise_is_found_with_a_certificate_that_holds():
    fit = clean()
    assert fit.parameters == pytest.approx(TRUTH["chinchilla"], rel=1e-3)
    assert fit.certificate.optimum.confirmed
    assert fit.certificate.not_identified == ()
    assert fit.certificate.holdout.mean_miss == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("digits", [17, 9])
def test_runs_that_lie_on_a_law_pass_the_hold_out_however_many_digits_they_have(digits: int):
    sizes, tokens = np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e8, 3e8, 1e9])
    loss = 1.7 + 400 / sizes**0.34 + 2000 / tokens**0.37
    rounded = [float(f"{value:.{digits}g}") for value in loss.ravel()]
    table = pd.DataFrame({"params": sizes.ravel(), "tokens": tokens.ravel(), "loss": rounded})
    found = analysis.fit_scaling_law(table, bootstrap=100).certificate.holdout
    assert found.passed
    assert found.inside == found.n


def test_intervals_of_noisy_runs_hold_the_truth_and_the_sentence_says_the_verdict():
    fit = noisy_fit()
    assert all(fit.intervals[name][0] < value < fit.intervals[name][1] for name, value in TRUTH["chinchilla"].items())
    assert set(fit.standard_errors) == {"E", "A", "B", "alpha", "beta", "a", "b"}
    assert fit.exponents["a"] + fit.exponents["b"] == pytest.approx(1)
    assert "holds on 60 runs: it passes the checks of its certificate." in fit.sentence
    assert fit.certificate.holds is True


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    table = make_runs(n=30, noise=0.004)
    first, again, other = (analysis.fit_scaling_law(table, law="power", bootstrap=100, seed=seed) for seed in (0, 0, 1))
    assert first.intervals == again.intervals
    assert first.certificate == again.certificate
    assert first.intervals != other.intervals


def test_without_bootstrap_there_are_no_intervals_and_the_certificate_says_what_it_lacks():
    fit = analysis.fit_scaling_law(make_runs(n=30, noise=0.004), bootstrap=0)
    assert fit.intervals is None
    assert fit.standard_errors is None
    assert fit.certificate.holdout is None
    assert "not checked with bootstrap=0" in fit.certificate.findings[-1]
    assert fit.certificate.holds is None
    assert (
        "it passes the checks of its certificate as far as it was checked (not: hold-out, range, residuals)"
        in fit.sentence
    )
    assert fit.predict(params=1e9, tokens=2e10)[1:] == (None, None)


def test_tokens_in_proportion_to_params_are_not_enough_to_identify_a_law():
    fit = flat(1)
    assert {"B", "beta"} <= set(fit.certificate.not_identified)
    assert not fit.certificate.holds
    assert "NOT IDENTIFIED" in str(fit)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", [pytest.param(s, marks=() if s == 1 else pytest.mark.slow) for s in (1, 2, 9, 10, 11)])
def test_where_the_valley_is_flat_the_law_is_not_identified_and_no_exponent_is_negative(seed: int):
    """These seeds had ended in a search that missed the lowest point, an infinite draw, or data that do harm."""
    missed, fit = seed == 9, flat(seed)
    assert fit.certificate.holds is False
    assert fit.certificate.not_identified
    assert ("a profile met" in str(fit)) == (not fit.certificate.optimum.confirmed) == missed
    assert min(fit.parameters["alpha"], fit.parameters["beta"]) > 0
    json.loads(dump_json(fit.to_dict()), parse_constant=pytest.fail)  # an infinite standard error is no number of JSON


@pytest.mark.slow
def test_runs_in_which_nothing_falls_are_answered_by_a_certificate_that_does_not_hold():
    """From this table the search had left for where the law overflows, and ended in an error of the linear algebra."""
    rng = np.random.default_rng(962864578)
    params, tokens = 10 ** rng.uniform(5, 9, 12), 10 ** rng.uniform(7, 11, 12)
    losses = 3.0 * np.exp(0.01 * rng.standard_normal(12))
    table = pd.DataFrame({"params": params, "tokens": tokens, "flops": 6 * params * tokens, "loss": losses})
    fit = analysis.fit_scaling_law(table, law="bnsl", bootstrap=100)
    assert fit.certificate.holds is False


def test_runs_of_another_shape_fail_the_certificate_by_their_residuals():
    table = make_runs("bnsl", n=60, noise=0.001)
    fit = analysis.fit_scaling_law(table, law="power", bootstrap=100)
    assert any(trend.found and trend.variable == "flops" for trend in fit.certificate.trends)
    assert any("residuals depend on flops" in failure for failure in fit.certificate.failures)


def test_a_break_beyond_the_smaller_budgets_fails_the_hold_out():
    table = make_runs(n=60, noise=0.002)
    table.loc[table["flops"] == table["flops"].max(), "loss"] *= 1.05
    fit = analysis.fit_scaling_law(table, bootstrap=100)
    assert not fit.certificate.holdout.passed
    assert fit.certificate.holdout.mean_miss > 0.03
    assert fit.certificate.holdout.n == 10


@pytest.mark.parametrize("metric", ["validation/loss", "train/loss"])
def test_losses_on_other_masks_are_refused_under_any_name(metric: str):
    table = make_runs(n=12, noise=0.004)
    kinds = ["next tokens", "masks on 0.15"] * 6
    table = table.assign(**{metric: table["loss"], "validation/loss": table["loss"], "loss_kind": kinds})
    with pytest.raises(AnalysisError, match=r"masks on 0\.15"):
        analysis.fit_scaling_law(rename_columns(table, {"loss": metric}), law="power")


@pytest.mark.slow
def test_too_few_runs_below_the_largest_budget_are_said_to_be_too_few():
    fit = analysis.fit_scaling_law(make_runs(n=10, noise=0.004), bootstrap=100)
    assert "fewer than two per parameter" in fit.certificate.no_holdout


def test_a_prediction_outside_the_runs_is_labelled_with_its_factor():
    fit = noisy_fit()
    inside = fit.predict(params=1e9, tokens=2e10)
    mean, low, high = inside
    assert low < 1.8 + 480 / 1e9**0.35 + 2100 / 2e10**0.37 < high
    assert low < mean < high
    assert inside.label == "within the fitted range"
    largest = float(np.exp(fit.problem.x.sum(axis=0).max()))
    far = fit.predict(params=np.sqrt(largest) * 10, tokens=np.sqrt(largest) * 10)
    assert far.extrapolation >= 100 * (1 - 1e-9)
    assert far.label.startswith("extrapolation by a factor of")
    several = fit.predict(params=[1e9, 2e9], tokens=2e10)
    assert several.mean.shape == (2,)
    assert several.mean[0] == pytest.approx(mean)


def test_a_prediction_interval_holds_new_runs_as_often_as_it_claims():
    fit, fresh = noisy_fit(), make_runs(n=600, noise=0.004, seed=9)
    _, low, high = fit.predict(params=fresh["params"], tokens=fresh["tokens"])
    share = float(((low < fresh["loss"]) & (fresh["loss"] < high)).mean())
    assert 0.90 < share < 0.99  # one fit: its own error shifts all 600 together


def test_the_optimal_allocation_is_the_published_closed_form():
    params, tokens = analysis.optimal_allocation(clean(), 1e21)
    assert params == pytest.approx(best_params(1e21), rel=2e-3)
    assert 6 * params * tokens == pytest.approx(1e21, rel=1e-9)
    low, high = analysis.optimal_allocation(noisy_fit(), 1e21).intervals["params"]
    assert low < best_params(1e21) < high
    beyond = analysis.optimal_allocation(noisy_fit(), 1e24)
    assert beyond.extrapolation > 50
    assert "extrapolation by a factor" in beyond.sentence


@pytest.mark.slow
def test_an_allocation_counts_flops_as_the_runs_did():
    found = analysis.optimal_allocation(counted(), 1.5e21)
    assert found.params == pytest.approx(best_params(1e21), rel=2e-3)
    assert "flops = 9 params tokens, the median of the runs" in found.rule


@pytest.mark.slow
def test_both_conventions_of_params_are_fitted_where_both_are_there():
    other = counted().other_convention
    assert other["column"] == "params_total"
    assert other["parameters"]["A"] == pytest.approx(480 * 2**0.35, rel=1e-2)
    assert other["exponents"]["a"] == pytest.approx(0.37 / 0.72, abs=1e-3)


@pytest.mark.parametrize(("miss", "said"), [(-0.2697, "23.64 % below"), (0.01, "1.01 % above")])
def test_a_hold_out_says_on_which_side_the_measured_losses_lie(miss, said):
    values = (2.0, 2.1)
    held = HoldOut(
        variable="flops",
        at_least=1e18,
        n=2,
        fitted=8,
        predicted=values,
        low=values,
        high=values,
        measured=values,
        inside=0,
        mean_miss=miss,
        p=1e-6,
        passed=False,
    )
    assert held.sentence.endswith(f", p < 0.0001; the measured losses lie {said} the predicted on average")


def test_results_become_json_markdown_latex_and_a_page():
    fit = noisy_fit()
    plain = json.loads(dump_json(fit.to_dict()))
    assert plain["parameters"]["alpha"] == fit.parameters["alpha"]
    assert plain["certificate"]["holds"] is True
    assert {"problem", "draws"}.isdisjoint(plain)
    assert "| parameter | estimate |" in fit.to_markdown()
    assert r"\begin{tabular}" in fit.to_latex()
    assert "<table>" in fit._repr_html_()


def drop(column: str):
    return lambda table: table.drop(columns=column)


def put(column: str, values: dict[int, object], other: object = None):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        cells = list(table[column]) if column in table.columns else [other] * len(table)
        for row, value in values.items():
            cells[row] = value
        return table.assign(**{column: cells})

    return change


REFUSED = {
    "no column 'loss'": (drop("loss"), {}),
    "no column 'params'": (drop("params"), {}),
    'tokens_from="6N" derives tokens': (drop("tokens"), {}),
    "no column 'unique_tokens'": (None, {"law": "data_constrained"}),
    "no column 'flops'": (drop("flops"), {"law": "power"}),
    "too few runs: 9 for the 5 parameters": (lambda table: table.head(9), {}),
    "the table has no rows": (lambda table: table.head(0), {}),
    "1 stopped among 30 runs": (put("status", {3: "stopped"}, "finished"), {}),
    "1 of 30 values are not positive finite numbers (first: nan": (put("loss", {3: float("nan")}), {}),
    "(first: inf, row 4)": (put("loss", {4: float("inf")}), {}),
    "(first: -1,": (put("tokens", {2: -1.0}), {}),
    "text where a number should be: 'diverged' (row 2)": (put("loss", {2: "diverged"}), {}),
    "mixed different data": (put("data_fingerprint", {5: "b"}, "a"), {}),
    "mixed kinds of loss in column 'tokenizer'": (put("tokenizer", {5: "bytes"}, "bpe:512"), {}),
    "mixed kinds of loss in column 'loss_kind'": (put("loss_kind", {5: "masked"}, "causal"), {}),
    "encoders (loss on masked tokens)": (
        put("parameters/model", {5: "encoder/bert_family/tiny"}, "decoder/gpt2_family/tiny"),
        {},
    ),
    "duplicated runs: row 0, row 30": (lambda table: pd.concat([table, table.head(1)], ignore_index=True), {}),
    "run x stands in the table more than once": (
        lambda table: table.assign(trial_id=["x", "x", *map(str, range(28))]),
        {},
    ),
    "law = 'chinchila' is not a law; did you mean 'chinchilla'?": (None, {"law": "chinchila"}),
    "loss = 'l2' is not a loss": (None, {"loss": "l2"}),
    "delta = 0.01 has no effect on loss = 'gaussian_log'": (None, {"loss": "gaussian_log", "delta": 0.01}),
    "delta = 0 must be a positive number": (None, {"delta": 0.0}),
    "bootstrap = 20: a 95 % interval needs at least 100 draws": (None, {"bootstrap": 20}),
    "seed = -1 of the draws must be 0 or above": (None, {"seed": -1}),
    "holdout = 'smallest' must be 'largest' or None": (None, {"holdout": "smallest"}),
    "variable = 'flops' has no effect on 'chinchilla'": (None, {"variable": "flops"}),
    "variable = 'seconds' must be one of": (None, {"law": "power", "variable": "seconds"}),
    "tokens_from = '6N' would replace the tokens": (None, {"tokens_from": "6N"}),
    "tokens_from = '2N' is not a rule": (drop("tokens"), {"tokens_from": "2N"}),
    "tokens_from = '6N' has no effect on 'power' over flops": (drop("tokens"), {"law": "power", "tokens_from": "6N"}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_fitted_is_refused_by_name(message):
    change, options = REFUSED[message]
    table = make_runs(n=30, noise=0.004)
    table = table if change is None else change(table)
    with pytest.raises(AnalysisError) as refused:
        analysis.fit_scaling_law(table, **{"bootstrap": 0, **options})
    assert message in str(refused.value)


def test_runs_of_two_seeds_with_one_loss_are_not_copies():
    table = make_runs(n=30, noise=0.004)
    both = pd.concat([table.assign(seed=0), table.assign(seed=1)], ignore_index=True)
    assert analysis.fit_scaling_law(both, law="power", bootstrap=0).n == 60


def test_predicting_from_what_the_law_does_not_know_is_refused():
    with pytest.raises(AnalysisError, match="tokens not given; flops has no effect"):
        noisy_fit().predict(params=1e9, flops=1e20)
    with pytest.raises(AnalysisError, match="params must be positive"):
        noisy_fit().predict(params=-1, tokens=1e9)
    power = analysis.fit_scaling_law(make_runs(n=30), law="power", bootstrap=0)
    with pytest.raises(AnalysisError, match="'power' has no optimal split"):
        analysis.optimal_allocation(power, 1e20)
    with pytest.raises(AnalysisError, match="flops = -1 must be positive"):
        analysis.optimal_allocation(noisy_fit(), -1)


def test_what_was_derived_and_left_out_stands_beside_the_fit():
    table = derive_tokens(drop_highest(make_runs(n=32, noise=0.004), 2).drop(columns="tokens"), "6N")
    fit = analysis.fit_scaling_law(table, bootstrap=0)
    assert "tokens derived as flops / (6 params), not counted" in fit.notes
    assert "left out: 2 × among the 2 highest losses, as asked" in fit.notes
    assert len(fit.exclusions) == 2


def test_a_column_that_another_takes_the_name_of_keeps_its_numbers_under_another_name():
    table = make_runs(n=4)
    assert "params" in rename_columns(table.rename(columns={"params": "Model Size"}), {"params": "Model Size"}).columns
    with pytest.raises(AnalysisError, match="'Model' is not a column"):
        rename_columns(table, {"params": "Model"})
    moved = rename_columns(table, {"params": "tokens"})
    assert moved["params"].tolist() == table["tokens"].tolist()
    assert moved["original_params"].tolist() == table["params"].tolist()
    assert "params is the column 'tokens', as asked" in moved.attrs["notes"][0]
    with pytest.raises(AnalysisError, match="column 'tokens' cannot be params and flops at once"):
        rename_columns(table, {"params": "tokens", "flops": "tokens"})
    with pytest.raises(AnalysisError, match="drop_highest = 4 must lie between"):
        drop_highest(table, 4)
