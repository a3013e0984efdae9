"""What a fitted law says in one sentence, and what speaks against it."""

from __future__ import annotations

import pytest

from analysis.scaling.certificate import Certificate, Optimum, Trend
from analysis.scaling.law_words import exponent_notes, law_caveats, law_sentence, valley_caveats, valley_sentence


def certificate(*, confirmed: bool = True, ranges=None, slope: float = 0.9) -> Certificate:
    optimum = Optimum(starts=8, reached=8, objective=1.0, variable_projection=None, confirmed=confirmed)
    trend = Trend(variable="params", slope=0.1, p_slope=slope, bend=0.1, p_bend=0.9, wave=1.9, p_wave=0.9)
    return Certificate(
        optimum=optimum, identifiability=(), holdout=None, no_holdout="few", ranges=ranges, trends=(trend,)
    )


RANGES = {"flops": (1e15, 2e16), "params": (1e6, 3e7)}


def test_a_law_that_passes_says_which_checks_were_not_made():
    found = certificate(ranges=RANGES)
    assert law_sentence("A·C^−α", 12, found) == (
        "loss = A·C^−α holds on 12 runs: it passes the checks of its certificate as far as it was checked "
        "(not: hold-out)."
    )
    assert law_caveats(found) == (
        "The law's hold-out was not checked.",
        "The law is fitted on 1.00P to 20.0P flops, 1.00M to 30.0M params: a prediction beyond is an extrapolation.",
    )


def test_a_law_that_fails_leads_with_that_and_every_failure_is_a_weak_point():
    found = certificate(confirmed=False, slope=1e-6)
    assert law_sentence("E", 12, found) == (
        "No law can be relied on: loss = E, fitted to 12 runs, does not hold "
        "(optimum not confirmed; residuals depend on params)."
    )
    assert law_caveats(found) == (
        "The law's certificate does not hold: optimum not confirmed.",
        "The law's certificate does not hold: residuals depend on params.",
        "The law's hold-out was not checked.",
        "The law's range was not checked.",
    )


EDGE = "the optimum lies at the edge, at the smallest size; add sizes beyond it"


@pytest.mark.parametrize(
    ("exponents", "accepted", "refused", "only", "said"),
    [
        ({}, 0, [EDGE], None, f"No best size was found at the only budget: {EDGE}."),
        ({}, 0, [EDGE, EDGE], None, f"No best size was found at any of 2 budgets: {EDGE}."),
        ({}, 0, [EDGE, "another", EDGE], None, "No best size was found at any of 3 budgets."),
        ({}, 1, [EDGE] * 2, None, "1 of 3 budgets has a best size: how it grows cannot be said."),
        ({}, 1, [EDGE] * 2, 2e6, "1 of 3 budgets has a best size, 2.00M parameters: how it grows cannot be said."),
        (
            {"a": 0.5, "b": 0.25},
            3,
            [],
            None,
            "With the budget the best number of parameters grows as FLOPs^0.50000 and its tokens grow as FLOPs^0.25000 "
            "(3 of 3 budgets have a best size).",
        ),
        (
            {"a": 0.5},
            2,
            [EDGE],
            None,
            "With the budget the best number of parameters grows as FLOPs^0.50000 (2 of 3 budgets have a best size).",
        ),
    ],
)
def test_the_growth_of_the_best_size_is_said_as_far_as_it_was_found(exponents, accepted, refused, only, said):
    assert valley_sentence(exponents, accepted, refused, only, None) == said


def test_a_known_bias_is_in_the_sentence_and_misfit_and_outliers_are_weak_points():
    said = valley_sentence({"a": 0.5}, 3, [], None, -0.0012)
    assert said.endswith("(3 of 3 budgets have a best size; the method's bias in the first exponent is −0.0012).")
    assert valley_caveats([], 3, 0.0031, 2) == (
        "The curves miss the runs by 0.31% of the loss beyond their noise.",
        "2 sizes far off the valley took no part.",
    )


def test_budgets_without_a_best_size_and_a_line_through_two_of_them_are_weak_points():
    assert valley_caveats(["budget 1e17: no valley"], 3, 0.0, 0) == ("Budget 1e17: no valley.",)
    assert valley_caveats([], 2, 0.0, 0) == ("The growth is a line through two budgets: nothing checks its shape.",)


def test_exponents_are_noted_with_their_own_intervals():
    ends = {"a": (0.4, 0.6), "b": (0.2, 0.3)}
    params, tokens = exponent_notes({"a": 0.5, "b": 0.25}, ends)
    assert params == "params ∝ flops^0.50000 [0.40000 to 0.60000]"
    assert tokens == "tokens ∝ flops^0.25000 [0.20000 to 0.30000]"
    assert exponent_notes({"b": 0.25}, None) == ["tokens ∝ flops^0.25000 [no interval]"]
