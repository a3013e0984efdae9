"""`fit_scaling_law`: a parametric law of the loss, with the certificate without which none is printed.

A law is fitted by L-BFGS with analytic gradients from a grid of starts, checked by variable projection, and carried
through a bootstrap over runs. The pieces: `laws` (what a law says), `law_losses` (how misses count), `law_table` (which
runs), `minimisation`, `certificate` (the checks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from ..paired.intervals import check_draws
from ..render import Grid, GridView
from ..table.outliers import Outlier, outlier_lines, plain_outliers
from .certificate import Certificate, HoldOut, Optimum, check_holdout, check_trends, widened_residuals
from .law_losses import make_loss
from .law_table import LawRuns, read_law_runs, require_runs
from .law_text import show_ends, show_value
from .law_words import law_caveats, law_sentence
from .laws import LAWS, Array, Law
from .minimisation import Problem, draw, minimise, percentile_ends, search
from .profile_likelihood import profiles
from .variable_projection import variable_projection

if TYPE_CHECKING:
    import pandas as pd

VARIABLES = ("flops", "params", "tokens")
"""What x may be in a law of one variable."""


class _MeanLowHigh(NamedTuple):
    mean: Any
    low: Any
    high: Any


class Prediction(_MeanLowHigh):
    """(mean, low, high) of a new run's loss; low and high are None without bootstrap draws.

    Attributes:
        extrapolation: How far outside the fitted runs this is, as a factor in the column that is farthest out; 1
            inside them. With several points, that of the farthest.
    """

    extrapolation: float

    @property
    def label(self) -> str:
        """ "within the fitted range", or "extrapolation by a factor of …"."""
        if self.extrapolation <= 1:
            return "within the fitted range"
        return f"extrapolation by a factor of {self.extrapolation:.3g}"


@dataclass(frozen=True, kw_only=True, repr=False)
class ScalingFit(GridView):
    """A law of the loss, fitted to runs.

    Attributes:
        law: Its name; `formula` as people write it; `variable`: what x is, for a law in one variable.
        loss: How misses were counted, with `delta` for Huber.
        n: Runs behind the fit.
        parameters: By name, in the units of the table.
        exponents: {a, b}: params and tokens of the optimum grow as flops^a and flops^b; empty where a law has none.
        standard_errors: Standard deviation over the bootstrap draws, by parameter and exponent; None with bootstrap=0.
        intervals: 95 % percentile bootstrap interval by parameter and exponent; None with bootstrap=0.
        objective: Least sum of the loss over the runs.
        certificate: The five checks; `outliers`: runs that miss the law by far, and count.
        bootstrap: Draws; `seed`: what they were drawn with.
        flops_per_product: Median, smallest and largest flops / (params tokens) of the runs; None where not recorded.
        other_convention: {column, parameters, exponents, objective} with `params_total` in place of `params`, where the
            table has both.
        problem: The runs in the units of the table.
        theta: Coordinates of the fit; `draws`: of the bootstrap, in the same units.
    """

    law: str
    formula: str
    variable: str | None
    loss: str
    delta: float | None
    n: int
    parameters: Mapping[str, float]
    exponents: Mapping[str, float]
    standard_errors: Mapping[str, float] | None
    intervals: Mapping[str, tuple[float, float]] | None
    objective: float
    certificate: Certificate
    bootstrap: int
    seed: int
    flops_per_product: tuple[float, float, float] | None
    other_convention: Mapping[str, Any] | None
    notes: tuple[str, ...]
    outliers: tuple[Outlier, ...]
    exclusions: tuple[Mapping[str, Any], ...] = field(repr=False)
    problem: Problem = field(repr=False, compare=False)
    theta: Array = field(repr=False, compare=False)
    draws: Array = field(repr=False, compare=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the loss depends on."""
        return self.problem.law.columns or (str(self.variable),)

    def predict(
        self,
        *,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        flops: ArrayLike | None = None,
        unique_tokens: ArrayLike | None = None,
    ) -> Prediction:
        """The loss of a new run: the law, and the 95 % interval in which it falls (parameters and noise).

        Args:
            params: As in the column that was fitted; an array gives arrays.
            tokens: Training tokens; likewise `flops` and `unique_tokens` for laws that depend on them.

        Raises:
            AnalysisError: A column that the law needs is not given, or one that it does not know is.
        """
        given = {"params": params, "tokens": tokens, "flops": flops, "unique_tokens": unique_tokens}
        x = self._points({name: value for name, value in given.items() if value is not None})
        shape = x.shape[1:]
        flat = x.reshape(len(x), -1)
        law, n = self.problem.law, len(self.parameters)
        mean = np.exp(law.log_loss(self.theta[None, :n], flat)[0])
        ends: list[Any] = [None, None]
        if len(self.draws):
            spread = law.log_loss(self.draws[:, :n], flat) + self._noise()[:, None]
            ends = [np.exp(end) for end in percentile_ends(spread)]
        shaped = [None if part is None else part.reshape(shape) if shape else float(part[0]) for part in (mean, *ends)]
        prediction = Prediction(*shaped)
        prediction.extrapolation = self.extrapolation(flat)
        return prediction

    def extrapolation(self, x: Array) -> float:
        """Factor by which log-columns (columns, points) lie outside the fitted ones, their product and their ratio
        included; ≥ 1."""
        fitted = self.problem.x
        if "params" in self.columns and "tokens" in self.columns:
            fitted, x = (np.vstack([part, part[0] + part[1], part[0] - part[1]]) for part in (fitted, x))
        low, high = fitted.min(axis=1, keepdims=True), fitted.max(axis=1, keepdims=True)
        far = float(np.exp(max(0.0, float(np.max(low - x)), float(np.max(x - high)))))
        return far if far > 1 + 1e-9 else 1.0

    def _points(self, given: Mapping[str, ArrayLike]) -> Array:
        missing = [name for name in self.columns if name not in given]
        surplus = [name for name in given if name not in self.columns]
        if missing or surplus:
            raise AnalysisError(
                f"'{self.law}' predicts from {', '.join(self.columns)}"
                + (f"; {', '.join(missing)} not given" if missing else "")
                + (f"; {', '.join(surplus)} has no effect on it" if surplus else "")
            )
        values = [np.asarray(given[name], dtype=float) for name in self.columns]
        for name, value in zip(self.columns, values, strict=True):
            if not (np.isfinite(value).all() and (value > 0).all()):
                raise AnalysisError(f"{name} must be positive and finite, not {value}")
        return np.asarray(np.log(np.stack(np.broadcast_arrays(*values))))

    def _noise(self) -> Array:
        rng = np.random.default_rng([self.seed, 2])
        return np.asarray(rng.choice(widened_residuals(self.problem, self.theta), size=len(self.draws)))

    @property
    def sentence(self) -> str:
        """The law, and whether it can be relied on; its parameters are in the table."""
        what = self.formula.replace("x", str(self.variable)) if self.variable else self.formula
        return law_sentence(what, self.n, self.certificate)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What speaks against the law."""
        return law_caveats(self.certificate)

    @property
    def grid(self) -> Grid:
        """Parameters and exponents with their intervals; the certificate below."""
        profiles = {profile.parameter: profile for profile in self.certificate.identifiability}
        rows = []
        for name, value in {**self.parameters, **self.exponents}.items():
            profile = profiles.get(name)
            ends = "from alpha, beta" if profile is None else show_ends((profile.low, profile.high))
            identified = "" if profile is None else "yes" if profile.identified else "NOT IDENTIFIED"
            error = None if self.standard_errors is None else self.standard_errors[name]
            interval = None if self.intervals is None else self.intervals[name]
            rows.append((name, show_value(value), show_value(error), show_ends(interval), ends, identified))
        columns = ("parameter", "estimate", "standard error", "95% bootstrap", "95% profile", "identified")
        title = f"{self.law} by {self.loss}, {self.n} runs, objective {self.objective:.7e}"
        verdict = "DOES NOT HOLD" if self.certificate.failures else self.certificate.verdict
        notes = (f"certificate: {verdict}", *self.certificate.findings, *self.notes)
        return Grid(columns, tuple(rows), title, notes, (1, 2, 3, 4), outlier_lines(self.outliers, self.n))

    @property
    def short_grid(self) -> Grid:
        """What a terminal shows."""
        return self.grid.of_columns("parameter", "estimate", "95% bootstrap", "identified")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` and the certificate's findings included; without runs and draws."""
        left_out = {"problem", "theta", "draws", "certificate"}
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        certificate = asdict(self.certificate)
        certificate |= {"holds": self.certificate.holds, "failures": self.certificate.failures}
        certificate |= {"findings": self.certificate.findings}
        return {"sentence": self.sentence, **plain, **plain_outliers(self.outliers), "certificate": certificate}


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
) -> ScalingFit:
    """A law of the final loss, fitted to runs, with intervals and a certificate.

    Hypothesis: the runs' log-losses are the law's plus independent noise. Intervals are percentiles over bootstrap
    draws of runs; nothing is assumed of the noise but that it is exchangeable between runs.

    Args:
        table: One run per row: loss, and what the law depends on (positive, any unit).
        law: power (A / x^alpha), power_offset (E + A / x^alpha), chinchilla (E + A/params^alpha + B/tokens^beta), bnsl
            (a power law with one smooth break), data_constrained (repeated tokens; needs a column unique_tokens).
        loss: huber_log, gaussian_log or student_t_log, all on log(law) - log(measured).
        delta: Where Huber's loss turns linear, in log-loss.
        bootstrap: Draws; 0: no intervals, and of the certificate only optimum and identifiability.
        seed: Of the draws: the same seed gives the same intervals.
        tokens_from: "6N" derives tokens = flops / (6 params) where the table has none.
        holdout: "largest": refit without the largest budgets and predict them; None: no hold-out.
        variable: x of a law in one variable: flops (the default), params or tokens.

    Raises:
        AnalysisError: An option that does not exist or has no effect, a missing column, too few runs, or runs that no
            law may be fitted to (see `law_table`).

    Source: Hoffmann et al. (2022), arXiv 2203.15556; Besiroglu et al. (2024), arXiv 2404.10102 (sum, not mean, of the
    loss, so that the optimiser does not stop early).
    """
    chosen, columns = _choose(law, variable, bootstrap, holdout, tokens_from)
    check_draws(bootstrap, seed)
    counted = make_loss(loss, delta)
    runs = read_law_runs(table, columns, ("flops", "params", "tokens", "params_total"), tokens_from=tokens_from)
    require_runs(len(runs), len(chosen.parameters), law)
    problem = Problem.of(chosen, counted, {name: runs.columns[name] for name in columns}, runs.loss)
    table_units = problem.in_table_units()
    centred, optimum, scale, ends = _optimum(problem)
    theta = _in_table_units(problem, centred[None])[0]
    identifiability, lowest = profiles(table_units, theta, scale)
    least = float(table_units.objective(lowest[None])[0][0])
    if not table_units.same(optimum.objective, least, scale):  # a valley too flat for the search
        optimum = replace(optimum, confirmed=False, below=least)
    draws, lost = _draws(problem, centred, bootstrap, seed)
    certificate = _certify(problem, runs, optimum, identifiability, centred, ends, bootstrap, seed, holdout)
    natural = chosen.natural(theta[None, : len(chosen.parameters)], np.zeros(len(columns)))[0]
    parameters = dict(zip(chosen.parameters, natural.tolist(), strict=True))
    values = {**parameters, **_exponents(chosen, parameters)}
    errors, intervals = _spread(chosen, _in_table_units(problem, draws), tuple(values)) if bootstrap else (None, None)
    notes = [*runs.notes, *([f"{lost} bootstrap draws have no finite law and are left out"] if lost else [])]
    other = _other_convention(chosen, counted, runs, columns, tokens_from)
    if other is not None:
        shown = ", ".join(
            f"{name} {value:.5g}" for name, value in {**other["parameters"], **other["exponents"]}.items()
        )
        notes.append(f"with embeddings (params_total): {shown}")
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
        objective=optimum.objective,
        certificate=certificate,
        bootstrap=bootstrap,
        seed=seed,
        flops_per_product=_flops_per_product(runs),
        other_convention=other,
        notes=tuple(notes),
        outliers=runs.outliers(table_units.residuals(theta[None])[0], len(chosen.parameters)),
        exclusions=runs.exclusions,
        problem=table_units,
        theta=theta,
        draws=_in_table_units(problem, draws),
    )


def _choose(
    law: str, variable: str | None, bootstrap: int, holdout: str | None, tokens_from: str | None
) -> tuple[Law, tuple[str, ...]]:
    """The law and its columns, with every option that cannot be met refused."""
    if law not in LAWS:
        raise AnalysisError(f"law = '{law}' is not a law; {did_you_mean(law, LAWS)}")
    if holdout not in ("largest", None):
        raise AnalysisError(f"holdout = '{holdout}' must be 'largest' or None")
    chosen = LAWS[law]
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
    ends, values = search(problem)
    other = variable_projection(problem)
    begin = ends[:10]
    if other is not None:
        begin = np.vstack([begin, np.maximum(other, -50.0)])  # a coefficient of zero: e^-50 of it is none
    polished, objectives = minimise(problem, begin, tolerance=1e-13)
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
    return draw(problem, theta, weights, "bootstrap")


def _in_table_units(problem: Problem, theta: Array) -> Array:
    n = len(problem.law.parameters)
    return np.column_stack([problem.law.rescaled(theta[:, :n], problem.centre), theta[:, n:]])


def _exponents(law: Law, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Exponents of the optimal params and tokens in flops, where flops are proportional to params × tokens."""
    if not law.exponents:
        return {}
    alpha, beta = (parameters[name] for name in law.exponents)
    return {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}


def _spread(law: Law, draws: Array, names: tuple[str, ...]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Standard deviation and 95 % percentile interval over the draws, by name."""
    natural = law.natural(draws[:, : len(law.parameters)], np.zeros(len(law.columns) or 1))
    values: dict[str, Array] = dict(zip(law.parameters, natural.T, strict=True))
    values.update(_exponents(law, values))
    low, high = percentile_ends(np.column_stack([values[name] for name in names]))
    with np.errstate(over="ignore", invalid="ignore"):  # draws may be infinite where a parameter is not identified
        spread = {name: float(np.std(values[name], ddof=1)) for name in names}
    errors = {name: error if np.isfinite(error) else math.inf for name, error in spread.items()}
    return errors, {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


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
    parameters = dict(zip(law.parameters, natural.tolist(), strict=True))
    return {
        "column": "params_total",
        "parameters": parameters,
        "exponents": _exponents(law, parameters),
        "objective": optimum.objective,
        "optimum_confirmed": optimum.confirmed,
    }
