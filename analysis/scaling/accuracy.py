"""`fit_accuracy`: from the loss to the accuracy on a task, a sigmoid; the second step after a law of the loss.

A law says the loss of a model that was not trained, the sigmoid what accuracy that loss has had so far. Its interval
holds both steps: draws of runs for the sigmoid, Student's t for its residuals, and, in `of_run`, the predictive draws
of the law.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from ..paired.intervals import check_draws
from ..render import Grid, GridView
from ..table.exclusions import exclusion_counts
from ..table.typed_columns import numbers_of
from .law_table import SPARE_RUNS, refuse_truncated, run_names
from .law_text import show_ends, show_value
from .laws import Array
from .predictive import interval_ends
from .scaling_fit import Prediction, ScalingFit, check_level

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("low", "high", "middle", "width")


@dataclass(frozen=True, kw_only=True, repr=False)
class AccuracyFit(GridView):
    """accuracy = low + (high - low) / (1 + exp((loss - middle) / width)).

    Attributes:
        column: The accuracy's column; `n`: runs.
        parameters: low (at a high loss: chance), high, middle and width (of the step, in units of the loss).
        intervals: By parameter, percentile bootstrap over runs; None with bootstrap=0. Fixed ones have none.
        free: How many of the parameters were fitted.
        residual: Standard deviation of the accuracy about the sigmoid.
        span: Smallest and largest loss of the runs.
    """

    column: str
    n: int
    parameters: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] | None
    free: int
    residual: float
    span: tuple[float, float]
    level: float
    bootstrap: int
    seed: int
    notes: tuple[str, ...]
    draws: Array = field(repr=False, compare=False)

    def predict(self, loss: ArrayLike) -> Prediction:
        """The accuracy of a run with this loss, and the interval in which it falls; arrays give arrays.

        Raises:
            AnalysisError: A loss that is not positive and finite.
        """
        losses = np.atleast_1d(np.asarray(loss, dtype=float))
        if not (np.isfinite(losses).all() and (losses > 0).all()):
            raise AnalysisError(f"loss = {losses} must be positive and finite")
        return self._predicted(losses, np.broadcast_to(losses, (max(1, len(self.draws)), losses.size)), np.ndim(loss))

    def of_run(self, law: ScalingFit, **columns: float) -> Prediction:
        """The accuracy of a run whose loss a law predicts; the interval holds the doubt of both steps.

        Args:
            law: Of the same loss; with draws of its own, as this fit has.
            columns: What it depends on, such as params and tokens.

        Raises:
            AnalysisError: A column that the law does not depend on, or draws that one of the two lacks.
        """
        if not (len(law.draws) and len(self.draws)):
            raise AnalysisError("an interval over both steps needs draws of both: give each bootstrap=100 or more")
        predicted, losses = law.predictive_losses(len(self.draws), **columns)
        return self._predicted(np.array([predicted]), losses[:, None], 0)

    def _predicted(self, at: Array, losses: Array, dimensions: int) -> Prediction:
        mean = _sigmoid(np.array([[self.parameters[name] for name in NAMES]]), at[None])[0]
        ends: list[Any] = [None, None]
        if len(self.draws):
            rng = np.random.default_rng([self.seed, 4])
            noise = self.residual * rng.standard_t(self.n - self.free, size=losses.shape)
            ends = list(interval_ends(np.clip(_sigmoid(self.draws, losses) + noise, 0.0, 1.0), self.level))
        prediction = Prediction(
            *(None if part is None else part if dimensions else float(part[0]) for part in (mean, *ends))
        )
        prediction.extrapolation = float(max(1.0, self.span[0] / at.min(), at.max() / self.span[1]))
        return prediction

    @property
    def sentence(self) -> str:
        """The sigmoid in words."""
        low, high, middle, width = (show_value(self.parameters[name]) for name in NAMES)
        return (
            f"{self.column} rises from {low} to {high} as the loss falls past {middle} (width {width}); {self.n} runs "
            f"lie {show_value(self.residual)} about it."
        )

    @property
    def grid(self) -> Grid:
        """The parameters with their intervals."""
        found = self.intervals or {}
        absent = "not measured" if self.intervals is None else "fixed"
        rows = tuple((name, show_value(v), show_ends(found.get(name), absent)) for name, v in self.parameters.items())
        columns = ("parameter", "estimate", f"{100 * self.level:g}% bootstrap")
        return Grid(columns, rows, f"{self.column} over the loss, {self.n} runs", self.notes, (1, 2))

    @property
    def short_grid(self) -> Grid:
        """What a terminal shows."""
        return self.grid

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included; without draws."""
        plain = {name: value for name, value in vars(self).items() if name != "draws"}
        return {"sentence": self.sentence, **plain}


def fit_accuracy(
    table: pd.DataFrame,
    accuracy: str = "accuracy",
    *,
    chance: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> AccuracyFit:
    """The accuracy on a task as a sigmoid of the loss, by least squares.

    Args:
        table: One run per row with loss and an accuracy between 0 and 1.
        accuracy: Its column.
        chance: Accuracy of a guess, where it is known: 0.25 for four choices; None: fitted.
        bootstrap: Draws of runs; 0: no intervals.
        seed: Of the draws.
        level: Of the intervals.

    Raises:
        AnalysisError: A missing column, a value that is no accuracy (per cent?), too few runs, or an accuracy that does
            not rise as the loss falls.

    Source: Bhagia et al. (2024), arXiv 2412.04403 (task loss to accuracy); Dubey et al. (2024), arXiv 2407.21783.
    """
    from scipy.stats import spearmanr

    check_draws(bootstrap, seed)
    check_level(level)
    loss, measured = _columns(table, accuracy)
    free = 4 if chance is None else 3
    if chance is not None and not 0 <= chance < 1:
        raise AnalysisError(f"chance = {chance:g} must lie between 0 and 1, such as 0.25 for four choices")
    if loss.size < free + SPARE_RUNS:
        raise AnalysisError(f"too few runs: {loss.size}; a sigmoid of {free} free parameters needs {free + SPARE_RUNS}")
    if not spearmanr(loss, measured).statistic < 0:
        raise AnalysisError(f"'{accuracy}' does not rise as the loss falls: is it an accuracy of the same runs?")
    theta = _fitted(loss, measured, np.ones(loss.size), chance, _starts(loss, measured, chance))
    residuals = measured - _sigmoid(theta[None], loss[None])[0]
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(loss.size, np.full(loss.size, 1 / loss.size), size=bootstrap)
    draws = np.array([_fitted(loss, measured, row, chance, theta[None]) for row in counts]).reshape(-1, 4)
    intervals = None
    if bootstrap:
        low, high = interval_ends(draws, level)
        known = () if chance is None else ("low",)
        by_name = zip(NAMES, low.tolist(), high.tolist(), strict=True)
        intervals = {name: (first, last) for name, first, last in by_name if name not in known}
    return AccuracyFit(
        column=accuracy,
        n=loss.size,
        parameters=dict(zip(NAMES, theta.tolist(), strict=True)),
        intervals=intervals,
        free=free,
        residual=float(np.sqrt((residuals**2).sum() / (loss.size - free))),
        span=(float(loss.min()), float(loss.max())),
        level=level,
        bootstrap=bootstrap,
        seed=seed,
        notes=(
            *table.attrs.get("notes", ()),
            *(f"left out: {line}" for line in exclusion_counts(table.attrs.get("exclusions", ()))),
        ),
        draws=draws,
    )


def _columns(table: pd.DataFrame, accuracy: str) -> tuple[Array, Array]:
    refuse_truncated(table)
    values: list[Array] = []
    for column in ("loss", accuracy):
        if column not in table.columns:
            raise AnalysisError(f"no column '{column}' in the table; {did_you_mean(column, table.columns)}")
        numbers = np.asarray(numbers_of(table, column, run_names(table)), dtype=np.float64)
        if not np.isfinite(numbers).all():
            bad = int((~np.isfinite(numbers)).sum())
            raise AnalysisError(f"column '{column}': {bad} of {len(table)} values are not finite numbers")
        values.append(numbers)
    if values[1].min() < 0 or values[1].max() > 1:
        most = values[1].max()
        why = "it looks like per cent; divide by 100" if 1 < most <= 100 else "an accuracy lies between 0 and 1"
        raise AnalysisError(f"column '{accuracy}' goes from {values[1].min():g} to {most:g}: {why}")
    return values[0], values[1]


def _sigmoid(theta: Array, loss: Array) -> Array:
    """theta (rows, 4) and losses (rows or 1, points): (rows, points)."""
    low, high, middle, width = theta.T[:, :, None]
    with np.errstate(over="ignore"):
        return np.asarray(low + (high - low) / (1.0 + np.exp((loss - middle) / width)))


def _starts(loss: Array, measured: Array, chance: float | None) -> Array:
    low = float(measured.min()) if chance is None else chance
    spread = float(np.ptp(loss))
    middles = np.quantile(loss, (0.25, 0.5, 0.75))
    tops = (min(1.0, float(measured.max()) + 0.02), 1.0)
    return np.array([(low, top, m, spread * w) for top in tops for m in middles for w in (0.05, 0.25)])


def _fitted(loss: Array, measured: Array, counts: Array, chance: float | None, starts: Array) -> Array:
    """The sigmoid of least squares, each run counted so often, from the best of some starts."""
    from scipy.optimize import least_squares

    root = np.sqrt(counts)
    width = float(np.ptp(loss))
    low = (0.0, 1.0) if chance is None else (max(0.0, chance - 1e-12), chance + 1e-12)
    bounds = np.array([low, (low[0], 1.0), (loss.min() - 2 * width, loss.max() + 2 * width), (1e-4 * width, 4 * width)])

    def misses(theta: Array) -> Array:
        return np.asarray(root * (_sigmoid(theta[None], loss[None])[0] - measured))

    inside = np.clip(starts, bounds[:, 0] + 1e-15, bounds[:, 1] - 1e-15)
    ends = [
        least_squares(misses, start, bounds=(bounds[:, 0], bounds[:, 1]), x_scale=(0.1, 0.1, width, width))
        for start in inside
    ]
    return np.asarray(min(ends, key=lambda end: float(end.cost)).x)
