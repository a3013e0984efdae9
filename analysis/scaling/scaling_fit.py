"""`ScalingFit`: a fitted law with its intervals and its certificate, its predictions, and how it is printed.

Made by `parametric_law.fit_scaling_law`; read by the report, figures, commands and `optimal_allocation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stackwise_ray.core.errors import AnalysisError

from ..render import Grid, GridView
from ..table.outliers import Outlier, outlier_lines, plain_outliers
from .certificate import Certificate
from .law_text import show_ends, show_estimate, show_value
from .law_words import law_caveats, law_sentence
from .laws import Array, Side
from .minimisation import Problem
from .predictive import IntervalCalibration, interval_ends, predictive_draws


def check_level(level: float) -> float:
    """The level of an interval, refused where it is none: beyond 0.99 a thousand draws have no ends to speak of."""
    if not 0.5 <= level <= 0.99:
        raise AnalysisError(f"level = {level:g} must lie between 0.5 and 0.99, such as 0.95")
    return level


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
        parameters: By name, in the units of the table; those that are tied or fixed have no interval of their own.
        exponents: {a, b}: params and tokens of the optimum grow as flops^a and flops^b; empty where a law has none.
        standard_errors: Standard deviation over the bootstrap draws, by parameter and exponent; None with bootstrap=0.
        intervals: Percentile bootstrap interval by parameter and exponent; None with bootstrap=0. Of a parameter
            at its boundary, the one-sided interval of its profile.
        boundaries: Parameters that lie at the end of what they can be: at zero ("low") or without end ("high").
        objective: Least sum of the loss over the runs.
        certificate: The five checks; `outliers`: runs that miss the law by far, and count.
        calibration: What prediction intervals are widened by, and their measured coverage; None: not measured.
        level: Of all intervals.
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
    boundaries: Mapping[str, Side]
    objective: float
    certificate: Certificate
    calibration: IntervalCalibration | None
    level: float
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
        level: float | None = None,
        **others: ArrayLike,
    ) -> Prediction:
        """The loss of a new run: the law, and the interval in which it falls.

        The interval holds the law's own uncertainty and noise like that of the runs nearby, widened by the factor that
        `calibration` measured on budgets left out.

        Args:
            params: As in the column that was fitted; an array gives arrays.
            tokens: Training tokens; likewise `flops` and `unique_tokens` for laws that depend on them.
            others: Further columns, for a law of one's own.
            level: Share of new runs that the interval should hold; None: that of the fit.

        Raises:
            AnalysisError: A column that the law needs is not given, or one that it does not know is.
        """
        given = {"params": params, "tokens": tokens, "flops": flops, "unique_tokens": unique_tokens, **others}
        x = self._points({name: value for name, value in given.items() if value is not None})
        shape = x.shape[1:]
        flat = x.reshape(len(x), -1)
        law = self.problem.law
        mean = np.exp(law.log_loss(self.theta[None, : len(law.parameters)], flat)[0])
        ends: list[Any] = [None, None]
        if len(self.draws):
            factor = 1.0 if self.calibration is None else self.calibration.factor
            rng = np.random.default_rng([self.seed, 2])
            spread = predictive_draws(self.problem, self.theta, self.draws, flat, factor, rng)
            ends = [np.exp(end) for end in interval_ends(spread, self.level if level is None else check_level(level))]
        shaped = [None if part is None else part.reshape(shape) if shape else float(part[0]) for part in (mean, *ends)]
        prediction = Prediction(*shaped)
        prediction.extrapolation = self.extrapolation(flat)
        return prediction

    def predictive_losses(self, draws: int, **columns: float) -> tuple[float, Array]:
        """The loss of one run by the law, and draws (draws,) of what it may be: parameters, noise and misfit."""
        x = self._points(columns).reshape(len(self.columns), -1)
        law = self.problem.law
        mean = float(np.exp(law.log_loss(self.theta[None, : len(law.parameters)], x)[0, 0]))
        factor = 1.0 if self.calibration is None else self.calibration.factor
        rng = np.random.default_rng([self.seed, 5])
        chosen = self.draws[rng.integers(0, len(self.draws), size=draws)]
        return mean, np.exp(predictive_draws(self.problem, self.theta, chosen, x, factor, rng)[:, 0])

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

    @property
    def sentence(self) -> str:
        """The law, and whether it can be relied on; its parameters are in the table."""
        what = self.formula.replace("x", str(self.variable)) if self.variable else self.formula
        return law_sentence(what, self.n, self.certificate, self.problem.law.quantity)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What speaks against the law."""
        return law_caveats(self.certificate)

    @property
    def grid(self) -> Grid:
        """Parameters and exponents with their intervals; the certificate below."""
        rows = [self._row(name, value) for name, value in self.parameters.items()]
        behind = f"from {', '.join(self.problem.law.whole_exponents)}"
        said = self.problem.law.allocation_restriction
        for name, value in self.exponents.items():
            spread = self._spread(name) if said is None else (said, said)
            rows.append((name, show_value(value), *spread, behind, ""))
        share = f"{100 * self.level:g}%"
        columns = ("parameter", "estimate", "standard error", f"{share} bootstrap", f"{share} profile", "identified")
        title = f"{self.law} by {self.loss}, {self.n} runs, objective {self.objective:.7e}"
        verdict = "DOES NOT HOLD" if self.certificate.failures else self.certificate.verdict
        measured = () if self.calibration is None else (self.calibration.sentence,)
        notes = (f"certificate: {verdict}", *self.certificate.findings, *measured, *self.notes)
        return Grid(columns, tuple(rows), title, notes, (1, 2, 3, 4), outlier_lines(self.outliers, self.n))

    def _row(self, name: str, value: float) -> tuple[str, ...]:
        """The line of one parameter."""
        restriction, edge = self.problem.law.restriction(name), self.boundaries.get(name)
        if restriction is not None:
            return (name, show_value(value), restriction, restriction, restriction, "")
        profile = next(profile for profile in self.certificate.identifiability if profile.parameter == name)
        ends = show_ends((profile.low, profile.high), edge=edge)
        identified = "yes" if profile.identified else "NOT IDENTIFIED"
        if edge is None:
            return (name, show_value(value), *self._spread(name), ends, identified)
        return (name, show_estimate(value, edge), "one-sided", f"{ends} (profile)", ends, identified)

    def _spread(self, name: str) -> tuple[str, str]:
        """Standard error and interval over the draws."""
        error = None if self.standard_errors is None else self.standard_errors.get(name)
        interval = None if self.intervals is None else self.intervals.get(name)
        return show_value(error), show_ends(interval)

    @property
    def short_grid(self) -> Grid:
        """What a terminal shows."""
        return self.grid.of_columns("parameter", "estimate", f"{100 * self.level:g}% bootstrap", "identified")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` and the certificate's findings included; without runs and draws."""
        left_out = {"problem", "theta", "draws", "certificate", "calibration"}
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        certificate = asdict(self.certificate)
        certificate |= {"holds": self.certificate.holds, "failures": self.certificate.failures}
        certificate |= {"findings": self.certificate.findings}
        calibration = None if self.calibration is None else asdict(self.calibration)
        measured = {"calibration": calibration, "certificate": certificate}
        return {"sentence": self.sentence, **plain, **plain_outliers(self.outliers), **measured}
