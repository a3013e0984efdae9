"""A fitted scaling law: parameters with intervals, its certificate, predictions. Made by `scaling_laws`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import AnalysisError
from ..render import Grid, GridView
from .certificate import Certificate
from .law_fit import Problem, percentile_ends
from .law_text import show_ends, show_value
from .laws import Array


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


@dataclass(frozen=True, kw_only=True)
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
        certificate: The five checks.
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
        from .certificate import widened_residuals

        rng = np.random.default_rng([self.seed, 2])
        return np.asarray(rng.choice(widened_residuals(self.problem, self.theta), size=len(self.draws)))

    @property
    def sentence(self) -> str:
        """The law, and whether its certificate holds."""
        values = ", ".join(f"{name} {show_value(value)}" for name, value in self.parameters.items())
        what = self.formula.replace("x", str(self.variable)) if self.variable else self.formula
        return f"loss = {what} on {self.n} runs: {values}. Its certificate {self.certificate.verdict}."

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
        return Grid(columns, tuple(rows), title, notes, (1, 2, 3, 4))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` and the certificate's findings included; without runs and draws."""
        left_out = {"problem", "theta", "draws", "certificate"}
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        certificate = asdict(self.certificate)
        certificate |= {"holds": self.certificate.holds, "failures": self.certificate.failures}
        certificate |= {"findings": self.certificate.findings}
        return {"sentence": self.sentence, **plain, "certificate": certificate}
