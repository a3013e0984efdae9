"""Laws with tied and fixed parameters: fewer free ones, in the units of the table, and what cannot be asked."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from synthetic_laws import TRUTH, make_runs

import analysis
from analysis.scaling.law_losses import make_loss
from analysis.scaling.minimisation import Problem, minimise
from analysis.scaling.restrictions import restricted
from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.registries import LAWS

RESTRICTIONS = [
    ("chinchilla", ("alpha=beta",), {"E": 1.69}),
    ("chinchilla", ("A=B",), {}),
    ("chinchilla", (), {"A": 480.0, "beta": 0.37}),
    ("power_offset", (), {"alpha": 0.16}),
    ("bnsl", (), {"d": 3e19}),
    ("data_constrained", ("alpha=beta", "R_D=R_N"), {"B": 1488.0}),
]


def problem_of(law: str, tie: tuple[str, ...], fix: dict[str, float]) -> Problem:
    table = make_runs(law, n=60, noise=0.004)
    columns = {name: table[name].to_numpy() for name in LAWS.get(law).columns or ("flops",)}
    return Problem.of(
        restricted(LAWS.get(law), tie, fix), make_loss("huber_log", 1e-3), columns, table["loss"].to_numpy()
    )


@cache
def tied() -> analysis.ScalingFit:
    """Six runs are enough for a law of three free parameters."""
    table = make_runs(n=6, noise=0.001, seed=2)
    return analysis.fit_scaling_law(table, tie=("alpha=beta",), fix={"E": 1.8}, bootstrap=100)


@pytest.mark.parametrize(("law", "tie", "fix"), RESTRICTIONS)
def test_the_gradient_of_a_restricted_law_is_that_of_finite_differences(law, tie, fix):
    problem = problem_of(law, tie, fix)
    starts = problem.law.starts(problem.x, problem.y)
    theta = starts[:: max(1, len(starts) // 3)][:3] + 0.05
    gradient = problem.objective(theta)[1]
    for j in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, j] = 1e-6
        rise = problem.objective(theta + step)[0] - problem.objective(theta - step)[0]
        size = np.abs(gradient).max(axis=1)
        np.testing.assert_allclose(gradient[:, j] / size, rise / 2e-6 / size, atol=2e-6)


@pytest.mark.parametrize(("law", "tie", "fix"), RESTRICTIONS)
def test_what_is_tied_or_fixed_is_so_in_the_units_of_the_table(law, tie, fix):
    problem = problem_of(law, tie, fix)
    theta = problem.law.starts(problem.x, problem.y)[:2]
    moved, table_units = problem.law.rescaled(theta, problem.centre), problem.in_table_units()
    np.testing.assert_allclose(problem.residuals(theta), table_units.residuals(moved), atol=1e-9)
    free = table_units.law.natural(moved, np.zeros_like(problem.centre))[0]
    whole = table_units.law.complete(dict(zip(problem.law.parameters, free, strict=True)))
    assert tuple(whole) == LAWS.get(law).parameters
    assert all(whole[name] == pytest.approx(value) for name, value in fix.items())
    assert all(whole[first] == whole[second] for first, second in (words.split("=") for words in tie))
    coordinates = table_units.law.whole_coordinates(moved)
    unrestricted = Problem.of(LAWS.get(law), problem.loss, dict(enumerate(np.exp(table_units.x))), np.exp(problem.y))
    there = LAWS.get(law).log_loss(coordinates, unrestricted.in_table_units().x) - problem.y
    np.testing.assert_allclose(there, problem.residuals(theta), atol=1e-8)


def test_a_restriction_that_is_true_leaves_the_optimum_where_it_is():
    truth = TRUTH["chinchilla"]
    problem = problem_of("chinchilla", (), {"E": truth["E"], "A": truth["A"]})
    found, value = minimise(problem, problem.law.starts(problem.x, problem.y), tolerance=1e-12)
    best = problem.law.natural(found[[int(np.nanargmin(value))]], problem.centre)[0]
    assert best == pytest.approx([truth[name] for name in ("B", "alpha", "beta")], rel=0.1)


def test_six_runs_are_enough_for_three_free_parameters_and_the_table_says_what_was_not_free():
    fit = tied()
    assert fit.parameters["E"] == 1.8
    assert fit.parameters["alpha"] == fit.parameters["beta"] == pytest.approx(0.36, abs=0.05)
    assert set(fit.intervals) == {"A", "B", "alpha", "beta"}
    rows = {row[0]: row for row in fit.grid.rows}
    assert rows["E"][1:4] == ("1.8000", "fixed", "fixed")
    assert not any("more than the free parameters" in note for note in fit.notes)
    assert rows["beta"][2:5] == ("= alpha",) * 3
    assert rows["a"][1:4] == ("0.50000", "tied", "tied")  # the split follows from the tie, not from the runs
    params, tokens = analysis.optimal_allocation(fit, 1e21)
    assert 6 * params * tokens == pytest.approx(1e21)


@pytest.mark.parametrize(
    ("tie", "fix", "message"),
    [
        ((), {"F": 1.0}, "fix: 'chinchilla' has no parameter 'F'"),
        (("alpha=betta",), {}, "did you mean 'beta'?"),
        (("alpha",), {}, "write two parameters with = between, such as alpha=beta"),
        (("alpha=alpha",), {}, "write two parameters with = between"),
        (("alpha=beta",), {"beta": 0.3}, "'beta' is both tied and fixed"),
        (("A=alpha",), {}, "one is searched for in logarithms"),
        ((), {"A": -1.0}, "A = -1 must be positive"),
        ((), {"alpha": float("nan")}, "alpha = nan must be a finite number"),
        ((), dict.fromkeys(("E", "A", "B", "alpha", "beta"), 1.0), "every parameter of 'chinchilla' is fixed"),
    ],
)
def test_a_restriction_that_cannot_be_is_refused(tie, fix, message):
    with pytest.raises(AnalysisError) as refused:
        restricted(LAWS.get("chinchilla"), tie, fix)
    assert message in str(refused.value)


def test_six_runs_are_too_few_for_five_free_parameters():
    message = "6 for the 5 free parameters of 'chinchilla', which needs 2 more than these, 7; add runs, or tie or fix"
    with pytest.raises(AnalysisError, match=message):
        analysis.fit_scaling_law(make_runs(n=6))


def test_exponents_that_are_fixed_leave_the_split_without_an_interval():
    fit = analysis.fit_scaling_law(make_runs(n=12, noise=0.001), fix={"alpha": 0.35, "beta": 0.37}, bootstrap=100)
    rows = {row[0]: row for row in fit.grid.rows}
    assert fit.exponents["a"] == pytest.approx(0.37 / 0.72)
    assert rows["a"][2:4] == ("fixed", "fixed")
    assert set(fit.intervals) == set(fit.standard_errors) == {"E", "A", "B"}


@pytest.mark.parametrize("fix", [{"E": 5.0}, {"alpha": -0.3}, {"beta": 0.0}])
def test_a_fixed_value_that_means_nothing_for_the_runs_is_refused(fix):
    with pytest.raises(AnalysisError, match="is outside what it can be for these runs in 'chinchilla'"):
        analysis.fit_scaling_law(make_runs(n=12), fix=fix, bootstrap=0)


def test_the_bootstrap_of_two_spare_runs_says_how_little_it_covers():
    fit = analysis.fit_scaling_law(make_runs(n=6, noise=0.001), tie=("alpha=beta",), bootstrap=100)
    assert "only 2 more than the free parameters: 95 % bootstrap intervals were measured to cover 65" in fit.notes[0]
