"""An independent way to the optimum of a law: variable projection.

Given its exponents a law is linear in its coefficients, which are positive: non-negative least squares, reweighted
until it minimises the same objective, inside a search over the exponents alone. No gradient, no start for the
coefficients, no logsumexp: what `minimisation.search` finds by another road must be found here too. Called by
`parametric_law`.

Source: Golub and Pereyra (1973), SIAM J. Numerical Analysis 10; inner problem: Lawson and Hanson (1974), ch. 23.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .laws import Array
from .minimisation import Problem

_INNER_STEPS = 60
_RESTARTS = 6


def variable_projection(problem: Problem) -> Array | None:
    """Coordinates (coordinates,) of the best law, None where the law is not linear in any coefficient.

    A coefficient that comes out as zero is minus infinity among the coordinates.
    """
    law = problem.law
    if not law.coefficients:
        return None
    from scipy.optimize import minimize

    linear = [law.index(name) for name in law.coefficients]
    others = [j for j in range(len(law.parameters)) if j not in linear]
    starts = np.unique(law.starts(problem.x, problem.y)[:, others], axis=0)
    values = [_project(problem, linear, others, start)[0] for start in starts]
    outer = partial(_least, problem, linear, others)
    found: list[tuple[float, Array]] = []
    for cell in np.argsort(values, kind="stable")[: max(2, 2 * len(others) - 2)]:
        at, value = starts[cell], values[cell]
        for _ in range(_RESTARTS):  # a simplex that has collapsed short of the optimum is opened again
            options: Any = {"xatol": 1e-7, "fatol": 1e-9 * abs(value), "maxiter": 120 * len(others)}
            end = minimize(outer, at, method="Nelder-Mead", options=options)
            gained = value - float(end.fun)
            at, value = end.x, float(end.fun)
            if gained <= 1e-6 * abs(value):
                break
        found.append((value, at))
    return _project(problem, linear, others, min(found, key=lambda end: end[0])[1])[1]


def _least(problem: Problem, linear: list[int], others: list[int], exponents: Array) -> float:
    return _project(problem, linear, others, exponents)[0]


def _project(problem: Problem, linear: list[int], others: list[int], exponents: Array) -> tuple[float, Array]:
    """Least objective at these exponents over non-negative coefficients, and its coordinates."""
    from scipy.optimize import nnls

    theta = np.zeros(problem.n_coordinates)
    theta[others] = exponents
    n_law = len(problem.law.parameters)
    with np.errstate(over="ignore", divide="ignore"):
        terms = problem.law.terms(theta[None, :n_law], problem.x)
        logs = np.column_stack([np.broadcast_to(u, (1, problem.y.size))[0] for u, _ in terms])
        largest = logs.max(axis=0)
        basis = np.exp(logs - largest)  # columns of at most 1, whatever the exponents
    if not np.isfinite(basis).all():
        return np.inf, theta
    loss = np.exp(problem.y)
    coefficients = nnls(basis / loss[:, None], np.ones_like(loss))[0]
    if not (basis @ coefficients).min() > 0:
        return np.inf, theta
    log_scale = np.log(max(1e-9, float(np.median(np.abs(np.log(basis @ coefficients) - problem.y)))))
    value = _value(problem, basis @ coefficients, log_scale)
    for _ in range(_INNER_STEPS):
        f = basis @ coefficients
        r = np.log(f) - problem.y
        weight = problem.loss.weight(r[None], np.array([[log_scale]]))[0]
        if problem.loss.n_scales:
            log_scale += 0.5 * np.log(float(np.mean(weight * r * r)))
            value = _value(problem, f, log_scale)
        root = np.sqrt(weight)
        target = nnls(basis / f[:, None] * root[:, None], (1.0 - r) * root)[0]
        share, lower = 1.0, np.inf
        while share > 1e-4:  # the model is linear in the residual, so its step may be too long
            tried = coefficients + share * (target - coefficients)
            lower = _value(problem, basis @ tried, log_scale)
            if lower < value:
                break
            share *= 0.5
        if not lower < value:
            break
        done = value - lower <= 1e-11 * abs(value)
        coefficients, value = tried, lower
        if done:
            break
    with np.errstate(divide="ignore"):
        theta[linear] = np.log(coefficients) - largest
    if problem.loss.n_scales:
        theta[-1] = log_scale
    return value, theta


def _value(problem: Problem, f: Array, log_scale: float) -> float:
    if not f.min() > 0:
        return np.inf
    r = np.log(f) - problem.y
    return float(problem.loss.value(r[None], np.array([[log_scale]]))[0].sum())
