"""The parts of a fit: gradients, the batched minimiser, variable projection, profiles."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_laws import TRUTH, loss_of, make_runs

from analysis.scaling.law_losses import LOSSES, make_loss
from analysis.scaling.minimisation import Problem, minimise, search
from analysis.scaling.profile_likelihood import profiles
from analysis.scaling.resampling import draw
from analysis.scaling.variable_projection import variable_projection
from stackwise_ray.core.registries import LAWS


def problem_of(law: str, loss: str = "huber_log", *, noise: float = 0.004, n: int = 60, seed: int = 0) -> Problem:
    table = make_runs(law, n=n, noise=noise, seed=seed)
    columns = {name: table[name].to_numpy() for name in LAWS.get(law).columns or ("flops",)}
    return Problem.of(LAWS.get(law), make_loss(loss, 1e-3), columns, table["loss"].to_numpy())


def somewhere(problem: Problem, rows: int = 3) -> np.ndarray:
    """Starts moved off the grid, so that no derivative vanishes by symmetry."""
    rng = np.random.default_rng(3)
    starts = problem.law.starts(problem.x, problem.y)
    chosen = starts[rng.choice(len(starts), size=rows, replace=False)]
    chosen = chosen + 0.05 * rng.normal(size=chosen.shape)
    return np.column_stack([chosen, np.full((rows, problem.loss.n_scales), -4.0)])


@pytest.mark.parametrize("law", LAWS.names())
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_finite_differences(law, loss):
    problem = problem_of(law, loss)
    theta, weights = somewhere(problem), np.random.default_rng(0).integers(0, 4, size=(3, 60)).astype(float)
    gradient = problem.objective(theta, weights)[1]
    for j in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, j] = 1e-6
        rise = problem.objective(theta + step, weights)[0] - problem.objective(theta - step, weights)[0]
        size = np.abs(gradient).max(axis=1)
        # central differences of step 1e-6 are good to about 1e-9 of the objective over the step
        np.testing.assert_allclose(gradient[:, j] / size, rise / 2e-6 / size, atol=2e-6)


@pytest.mark.parametrize("law", LAWS.names())
def test_the_law_is_what_its_paper_writes(law):
    problem, table = problem_of(law, noise=0.0).in_table_units(), make_runs(law)
    values = [np.log(v) if name in LAWS.get(law).logs else v for name, v in TRUTH[law].items()]
    log_loss = LAWS.get(law).log_loss(np.array([values]), problem.x)[0]
    np.testing.assert_allclose(np.exp(log_loss), loss_of(law, table), rtol=1e-10)


@pytest.mark.parametrize("law", LAWS.names())
def test_a_law_keeps_its_values_in_other_units(law):
    problem = problem_of(law)
    theta = somewhere(problem)[:, : len(LAWS.get(law).parameters)]
    moved = LAWS.get(law).rescaled(theta, problem.centre)
    np.testing.assert_allclose(
        LAWS.get(law).log_loss(theta, problem.x), LAWS.get(law).log_loss(moved, problem.in_table_units().x), rtol=1e-9
    )


SLOW = {"bnsl", "data_constrained"}


@pytest.mark.parametrize("law", [pytest.param(law, marks=[pytest.mark.slow] * (law in SLOW)) for law in LAWS.names()])
def test_without_noise_the_search_finds_the_law(law):
    problem = problem_of(law, noise=0.0)
    ends, _ = search(problem)
    found, _ = minimise(problem, ends[:3], tolerance=1e-13)
    natural = LAWS.get(law).natural(found[:1, : len(LAWS.get(law).parameters)], problem.centre)[0]
    np.testing.assert_allclose(natural, list(TRUTH[law].values()), rtol=2e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_variable_projection_finds_the_same_optimum_without_a_gradient(loss):
    problem = problem_of("chinchilla", loss)
    ends, _ = search(problem)
    best = float(minimise(problem, ends[:3], tolerance=1e-13)[1].min())
    other = variable_projection(problem)
    scale = problem.loss.scale(problem.residuals(ends[:1])[0], 5)
    assert problem.same(problem.objective(other[None])[0][0], best, scale)
    assert not problem.same(problem.objective(other[None] + 0.01)[0][0], best, scale)


@pytest.mark.slow
def test_variable_projection_survives_breaks_as_sharp_as_they_come():
    problem = problem_of("bnsl", noise=0.003, n=90, seed=2)
    law = problem.law
    truth = np.array([[np.log(value) if name in law.logs else value for name, value in TRUTH["bnsl"].items()]])
    best = float(minimise(problem, law.rescaled(truth, -problem.centre), tolerance=1e-13)[1][0])
    found = float(problem.objective(variable_projection(problem)[None])[0][0])
    assert found == pytest.approx(best, rel=1e-3)


def test_every_draw_ends_where_scipy_ends():
    from scipy.optimize import minimize

    problem = problem_of("chinchilla")
    theta = minimise(problem, search(problem)[0][:1], tolerance=1e-13)[0][0]
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=8).astype(float)
    rows, there = draw(problem, theta, weights, "test")
    assert there.size == 8
    ours = problem.objective(rows, weights)[0]
    for row, counts in enumerate(weights):

        def one(at, counts=counts):
            value, gradient = problem.objective(at[None], counts[None])
            return 1e3 * value[0], 1e3 * gradient[0]

        ends = [minimize(one, start, jac=True, method="BFGS", options={"gtol": 1e-9}) for start in (theta, rows[row])]
        assert 1e3 * ours[row] <= min(end.fun for end in ends) * (1 + 1e-6)


def test_a_run_that_counts_twice_is_the_same_as_two_runs():
    problem = problem_of("chinchilla", n=30)
    theta = search(problem)[0][:1]
    twice = np.ones((1, 30))
    twice[0, 4] = 2.0
    doubled = Problem(
        law=problem.law,
        loss=problem.loss,
        x=np.column_stack([problem.x, problem.x[:, 4]]),
        y=np.append(problem.y, problem.y[4]),
        centre=problem.centre,
    )
    a, b = minimise(problem, theta, twice, tolerance=1e-13), minimise(doubled, theta, tolerance=1e-13)
    assert a[1][0] == pytest.approx(b[1][0], rel=1e-7)


def test_the_profile_of_least_squares_is_the_textbook_interval():
    """For a straight line the likelihood-ratio interval is Student's: the estimate ± 2.0017 standard errors (58)."""
    problem = problem_of("power", "gaussian_log")
    theta = minimise(problem, search(problem)[0][:1], tolerance=1e-14)[0]
    raw = problem.in_table_units()
    at = problem.law.rescaled(theta, problem.centre)[0]
    scale = raw.loss.scale(raw.residuals(at[None])[0], 2)
    alpha = profiles(raw, at, scale)[0][1]
    half = 2.001717 * np.sqrt(scale / np.sum(problem.x[0] ** 2))
    assert alpha.identified
    assert (alpha.low, alpha.high) == pytest.approx((at[1] - half, at[1] + half), rel=1e-4)


def test_a_design_of_one_model_size_leaves_the_exponent_of_size_unidentified():
    problem = problem_of("chinchilla")
    x = problem.in_table_units().x.copy()
    x[0] = np.log(1e9)
    y = problem.law.log_loss(np.array([[np.log(1.8), np.log(480), np.log(2100), 0.35, 0.37]]), x)[0]
    y = y + 0.004 * np.random.default_rng(0).normal(size=y.size)
    flat = Problem(law=problem.law, loss=problem.loss, x=x, y=y, centre=np.zeros(2))
    found, _ = profiles(flat, np.log([1.8, 480, 2100, np.exp(0.35), np.exp(0.37)]), 6e-6)
    identified = {profile.parameter: profile.identified for profile in found}
    assert identified == {"E": False, "A": False, "B": True, "alpha": False, "beta": True}
