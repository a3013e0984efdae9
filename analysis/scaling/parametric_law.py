"""`fit_scaling_law`: a parametric law of the loss, with the certificate without which none is printed.

A law is fitted by L-BFGS with analytic gradients from a grid of starts, checked by variable projection, and carried
through a bootstrap over runs. The pieces: `laws` (what a law says), `law_losses` (how misses count), `law_table` (which
runs), `minimisation`, `certificate` (the checks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.registries import LAWS

from ..paired.intervals import check_draws
from .boundaries import BEYOND, natural_values, settled
from .certificate import Certificate, HoldOut, Optimum, check_holdout, check_trends
from .law_losses import make_loss
from .law_table import SPARE_RUNS, LawRuns, read_law_runs, require_runs
from .laws import Array, Law
from .minimisation import Problem, minimise, search
from .predictive import calibrate
from .profile_likelihood import Profile, profiles
from .resampling import draw, percentile_ends
from .restrictions import restricted
from .scaling_fit import ScalingFit, check_level
from .variable_projection import variable_projection

if TYPE_CHECKING:
    import pandas as pd

NOT_CALIBRATED = "prediction intervals: the law's own, coverage not measured (fewer than three budgets can be left out)"
TOO_NARROW = (
    "the runs are only {spare} more than the free parameters: 95 % bootstrap intervals were measured to cover 65 to "
    "70 % there (with 3 more 95 %), and those of predictions and allocations 85 %; the profile's cover 95 %"
)
VARIABLES = ("flops", "params", "tokens")
"""What x may be in a law of one variable."""


def fit_scaling_law(
    table: pd.DataFrame,
    law: str = "chinchilla",
    loss: str = "huber_log",
    delta: float = 1e-3,
    bootstrap: int = 1000,
    seed: int = 0,
    tokens_from: str | None = None,
    holdout: str | None = "largest",
    *,
    variable: str | None = None,
    level: float = 0.95,
    tie: Sequence[str] = (),
    fix: Mapping[str, float] | None = None,
) -> ScalingFit:
    """A law of the final loss, fitted to runs, with intervals and a certificate.

    Hypothesis: the runs' log-losses are the law's plus independent noise. Intervals are percentiles over bootstrap
    draws of runs; nothing is assumed of the noise but that it is exchangeable between runs.

    Args:
        table: One run per row: loss, and what the law depends on (positive, any unit).
        law: power (A / x^alpha), power_offset (E + A / x^alpha), chinchilla (E + A/params^alpha + B/tokens^beta), bnsl
            (a power law with one smooth break), data_constrained (repeated tokens; needs a column unique_tokens),
            two_power (A / (params^alpha tokens^beta) of another value than the loss), or one that a plugin registered.
        loss: huber_log, gaussian_log or student_t_log, all on log(law) - log(measured).
        delta: Where Huber's loss turns linear, in log-loss.
        bootstrap: Draws; 0: no intervals, and of the certificate only optimum and identifiability.
        seed: Of the draws: the same seed gives the same intervals.
        tokens_from: "6N" derives tokens = flops / (6 params) where the table has none.
        holdout: "largest": refit without the largest budgets and predict them; None: no hold-out.
        variable: x of a law in one variable: flops (the default), params or tokens.
        tie: Parameters that are equal, such as ("alpha=beta",); of these one is free.
        fix: Values of parameters that are known, such as {"E": 1.69}, in the units of the table.
        level: Of all intervals, from 0.5 to 0.99. Checks of the certificate stay at 95 %.

    Raises:
        AnalysisError: An option that does not exist or has no effect, a missing column, too few runs, or runs that no
            law may be fitted to (see `law_table`).

    Source: Hoffmann et al. (2022), arXiv 2203.15556; Besiroglu et al. (2024), arXiv 2404.10102 (sum, not mean, of the
    loss, so that the optimiser does not stop early).
    """
    chosen, columns = _choose(law, variable, bootstrap, holdout, tokens_from)
    chosen = restricted(chosen, tie, fix or {})
    check_draws(bootstrap, seed)
    check_level(level)
    counted = make_loss(loss, delta)
    runs = read_law_runs(table, columns, ("flops", "params", "tokens", "params_total"), tokens_from=tokens_from)
    require_runs(len(runs), len(chosen.parameters), law)
    problem = Problem.of(chosen, counted, {name: runs.columns[name] for name in columns}, runs.loss)
    table_units = problem.in_table_units()
    centred, optimum, scale, ends = _optimum(problem)
    theta = _in_table_units(problem, centred[None])[0]
    identifiability, lowest = profiles(table_units, theta, scale, level)
    least = float(table_units.objective(lowest[None])[0][0])
    if not table_units.same(optimum.objective, least, scale):  # a valley too flat for the search
        optimum = replace(optimum, confirmed=False, below=least)
    draws, lost = _draws(problem, centred, bootstrap, seed)
    certificate = _certify(problem, runs, optimum, identifiability, centred, ends, bootstrap, seed, holdout)
    order = (runs.compute or ("", runs.columns[columns[0]]))[1]
    calibration = calibrate(problem, centred, order, seed, level) if bootstrap else None
    free = dict(zip(chosen.parameters, natural_values(table_units, theta[None])[0].tolist(), strict=True))
    parameters = chosen.complete(free)
    values = {**parameters, **_exponents(chosen, parameters)}
    at_boundary = [profile for profile in identifiability if profile.boundary is not None]
    in_table_units = _in_table_units(problem, draws)
    errors, intervals = (
        _spread(table_units, in_table_units, tuple(values), at_boundary, level) if bootstrap else (None, None)
    )
    other = _other_convention(chosen, counted, runs, columns, tokens_from)
    return ScalingFit(
        law=law,
        formula=chosen.formula,
        variable=None if chosen.columns else columns[0],
        loss=loss,
        delta=delta if loss == "huber_log" else None,
        n=len(runs),
        parameters=parameters,
        exponents=_exponents(chosen, parameters),
        standard_errors=errors,
        intervals=intervals,
        boundaries={p.parameter: p.boundary for p in at_boundary if p.boundary is not None},
        objective=optimum.objective,
        certificate=certificate,
        calibration=calibration,
        level=level,
        bootstrap=bootstrap,
        seed=seed,
        flops_per_product=_flops_per_product(runs),
        other_convention=other,
        notes=_notes(
            runs, lost, bootstrap > 0 and calibration is None, other, len(chosen.parameters) if bootstrap else 0
        ),
        outliers=runs.outliers(table_units.residuals(theta[None])[0], len(chosen.parameters)),
        exclusions=runs.exclusions,
        problem=table_units,
        theta=theta,
        draws=in_table_units,
    )


def _notes(
    runs: LawRuns, lost: int, uncalibrated: bool, other: Mapping[str, Any] | None, drawn: int
) -> tuple[str, ...]:
    """What a reader must know beside the table and the certificate; `drawn`: free parameters that have draws."""
    notes = [NOT_CALIBRATED, *runs.notes] if uncalibrated else [*runs.notes]
    if drawn and len(runs) - drawn <= SPARE_RUNS:
        notes.insert(0, TOO_NARROW.format(spare=len(runs) - drawn))
    if lost:
        notes.append(f"{lost} bootstrap draws have no finite law and are left out")
    if other is not None:
        found = {**other["parameters"], **other["exponents"]}
        shown = ", ".join(f"{name} {value:.5g}" for name, value in found.items())
        notes.append(f"with embeddings (params_total): {shown}")
    return tuple(notes)


def _choose(
    law: str, variable: str | None, bootstrap: int, holdout: str | None, tokens_from: str | None
) -> tuple[Law, tuple[str, ...]]:
    """The law and its columns, with every option that cannot be met refused."""
    if law not in LAWS:
        raise AnalysisError(f"law = '{law}' is not a law; {did_you_mean(law, LAWS.names())}")
    if holdout not in ("largest", None):
        raise AnalysisError(f"holdout = '{holdout}' must be 'largest' or None")
    chosen: Law = LAWS.get(law)
    if chosen.columns:
        if variable is not None:
            raise AnalysisError(f"variable = '{variable}' has no effect on '{law}', which depends on {chosen.columns}")
        columns = chosen.columns
    else:
        if variable is not None and variable not in VARIABLES:
            raise AnalysisError(f"variable = '{variable}' must be one of {', '.join(VARIABLES)}")
        columns = (variable or "flops",)
    if tokens_from is not None and "tokens" not in columns:
        raise AnalysisError(f"tokens_from = '{tokens_from}' has no effect on '{law}' over {columns[0]}")
    return chosen, columns


def _optimum(problem: Problem) -> tuple[Array, Optimum, float, Array]:
    """Coordinates of the best law, how it was confirmed, the loss's scale there, and where a refit may begin."""
    there = problem.in_table_units()
    problem.law.refuse_outside(there.x, there.y)
    ends, values = search(problem)
    other = variable_projection(problem)
    begin = ends[:10]
    if other is not None:
        begin = np.vstack([begin, np.maximum(other, -50.0)])  # a coefficient of zero: e^-50 of it is none
    polished, objectives = settled(problem, *minimise(problem, begin, tolerance=1e-13), every_edge=True)
    falling = problem.law.falls(polished)
    best = int(np.nanargmin(np.where(falling, objectives, np.inf) if falling.any() else objectives))
    theta, objective = polished[best], float(objectives[best])
    scale = problem.loss.scale(problem.residuals(theta[None])[0], len(problem.law.parameters))
    reached = int(problem.same(values, objective, scale).sum())
    projected = None if other is None else float(problem.objective(other[None])[0][0])
    confirmed = reached >= 0.05 * len(values) if projected is None else bool(problem.same(projected, objective, scale))
    optimum = Optimum(
        starts=len(values), reached=reached, objective=objective, variable_projection=projected, confirmed=confirmed
    )
    return theta, optimum, scale, np.vstack([theta, begin])


def _certify(
    problem: Problem,
    runs: LawRuns,
    optimum: Optimum,
    identifiability: Any,
    theta: Array,
    ends: Array,
    bootstrap: int,
    seed: int,
    holdout: str | None,
) -> Certificate:
    """The certificate; hold-out, range and residuals only where draws were asked for."""
    if bootstrap == 0:
        return Certificate(
            optimum=optimum,
            identifiability=identifiability,
            holdout=None,
            no_holdout="bootstrap=0",
            ranges=None,
            trends=None,
        )
    names = problem.law.columns or tuple(name for name in runs.columns if name in VARIABLES)
    columns = {name: runs.columns[name] for name in names}
    order = runs.compute or next(iter(columns.items()))
    columns[order[0]] = order[1]
    held: HoldOut | None = None
    why: str | None = "not asked for"
    if holdout is not None:
        held, why = check_holdout(problem, runs, order, ends, seed)
    return Certificate(
        optimum=optimum,
        identifiability=identifiability,
        holdout=held,
        no_holdout=why if held is None else None,
        ranges={name: (float(values.min()), float(values.max())) for name, values in columns.items()},
        trends=check_trends(-problem.residuals(theta[None])[0], columns),
    )


def _draws(problem: Problem, theta: Array, bootstrap: int, seed: int) -> tuple[Array, int]:
    """Bootstrap draws of the coordinates, and how many of them had no finite law."""
    if bootstrap == 0:
        return np.empty((0, problem.n_coordinates)), 0
    n = problem.y.size
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=bootstrap).astype(float)
    draws, there = draw(problem, theta, weights, "bootstrap")
    return draws, bootstrap - there.size


def _in_table_units(problem: Problem, theta: Array) -> Array:
    n = len(problem.law.parameters)
    return np.column_stack([problem.law.rescaled(theta[:, :n], problem.centre), theta[:, n:]])


def _exponents(law: Law, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Exponents of the optimal params and tokens in flops, where flops are proportional to params × tokens."""
    if not law.whole_exponents:
        return {}
    alpha, beta = (parameters[name] for name in law.whole_exponents)
    return {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}


def _spread(
    problem: Problem, draws: Array, names: tuple[str, ...], at_boundary: Sequence[Profile], level: float
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Standard deviation and percentile interval over the draws, by name.

    Of a parameter at its boundary a bootstrap says nothing (Andrews 2000, Econometrica 68): its interval is the
    profile's, one-sided.
    """
    law = problem.law
    values: dict[str, Any] = law.complete(dict(zip(law.parameters, natural_values(problem, draws).T, strict=True)))
    names = tuple(name for name in names if law.restriction(name) != "fixed")
    if law.allocation_restriction is None:
        values.update(_exponents(law, values))
    else:
        names = tuple(name for name in names if name in values)
    low, high = percentile_ends(np.column_stack([values[name] for name in names]), level)
    with np.errstate(over="ignore", invalid="ignore"):  # draws may be infinite where a parameter is not identified
        spread = {name: float(np.std(values[name], ddof=1)) for name in names}
    errors = {name: error if np.isfinite(error) else math.inf for name, error in spread.items()}
    ends = {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
    return errors, ends | {
        p.parameter: (p.low if p.low is not None else BEYOND["low"], p.high if p.high is not None else BEYOND["high"])
        for p in at_boundary
    }


def _flops_per_product(runs: LawRuns) -> tuple[float, float, float] | None:
    if not {"flops", "params", "tokens"} <= set(runs.columns):
        return None
    ratio = runs.columns["flops"] / (runs.columns["params"] * runs.columns["tokens"])
    return float(np.median(ratio)), float(ratio.min()), float(ratio.max())


def _other_convention(
    law: Law, loss: Any, runs: LawRuns, columns: tuple[str, ...], tokens_from: str | None
) -> dict[str, Any] | None:
    """The law over params_total, where a law over params was fitted and both are there."""
    if "params" not in columns or "params_total" not in runs.columns:
        return None
    total = runs.columns["params_total"]
    swapped = {**runs.columns, "params": total}
    if tokens_from is not None:
        swapped["tokens"] = runs.columns["tokens"] * runs.columns["params"] / total
    problem = Problem.of(law, loss, {name: swapped[name] for name in columns}, runs.loss)
    theta, optimum, _, _ = _optimum(problem)
    natural = law.natural(theta[None, : len(law.parameters)], problem.centre)[0]
    parameters = law.complete(dict(zip(law.parameters, natural.tolist(), strict=True)))
    return {
        "column": "params_total",
        "parameters": parameters,
        "exponents": _exponents(law, parameters),
        "objective": optimum.objective,
        "optimum_confirmed": optimum.confirmed,
    }
