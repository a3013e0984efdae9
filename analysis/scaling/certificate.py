"""What stands beside a law before anybody believes it: optimum, identifiability, hold-out, range, residuals.

`parametric_law` fits a law and asks `certify` for its certificate. Each of the five checks is a frozen record with a
sentence; none of them changes the fit, and a check that fails is printed, not hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stackwise_ray.core.quantities import format_number

from ..paired.deciding_tests import adjust_p
from ..render import equals_p
from .law_table import LawRuns, budget_groups
from .law_text import show_value
from .laws import Array
from .minimisation import Problem, draw, minimise, percentile_ends
from .profile_likelihood import Profile

HOLDOUT_DRAWS = 200
HOLDOUT_SHARE = 0.05
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """(1) Is the fit the global optimum?

    Attributes:
        starts: Where L-BFGS began; `reached`: how many ended as low as the best (a likelihood ratio of 0.001).
        objective: The lowest objective, a sum over the runs.
        variable_projection: The lowest that variable projection found; None: the law is not linear in a coefficient.
        confirmed: Variable projection ended as low as the best; where there is none, 5 % of the starts did.
        below: A lower objective that a profile met on its way, so that nothing is confirmed; None: none did.
    """

    starts: int
    reached: int
    objective: float
    variable_projection: float | None
    confirmed: bool
    below: float | None = None

    @property
    def sentence(self) -> str:
        """The finding in words."""
        text = f"optimum {'confirmed' if self.confirmed else 'NOT confirmed'}: {self.reached} of {self.starts} starts "
        text += f"reach {self.objective:.7e}"
        if self.below is not None:
            text += f"; a profile met {self.below:.7e}"
        if self.variable_projection is None:
            return f"{text}; variable projection does not apply to this law"
        return f"{text}; variable projection finds {self.variable_projection:.7e}"


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """(3) Does the law predict the largest budget from the others?

    Attributes:
        variable: What orders the budgets: flops, or params × tokens, or the law's own variable.
        at_least: Smallest held-out value of it.
        n: Runs held out; `fitted`: runs behind the prediction.
        predicted: Loss of each held-out run by the law without them; `low`, `high`: 95 % prediction interval.
        measured: Loss of each held-out run.
        inside: How many measured losses lie inside; `mean_miss`: mean of log(measured / predicted).
        p: Share of the draws, each taken for the truth with noise of its own, that lie as far from the middle of the
            prediction as the measured losses: by the sum of squares, each in standard deviations of its prediction,
            so that one far run counts as well as many at the edge. The measured runs count as a draw.
        passed: p is above 5 %.
    """

    variable: str
    at_least: float
    n: int
    fitted: int
    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    measured: tuple[float, ...]
    inside: int
    mean_miss: float
    p: float
    passed: bool

    @property
    def sentence(self) -> str:
        """The finding in words."""
        verdict = "passed" if self.passed else "FAILED"
        miss = 100 * float(np.expm1(self.mean_miss))
        side = f"{format_number(abs(miss), 2)} % {'above' if miss > 0 else 'below'} the predicted"
        return (
            f"hold-out {verdict}: of {self.n} run{'s' if self.n > 1 else ''} from {self.at_least:.3g} {self.variable} "
            f"on, predicted from the other {self.fitted}, {self.inside} inside the 95 % prediction interval; as far "
            f"from it together, {equals_p(self.p)}; the measured losses lie {side} on average"
        )


@dataclass(frozen=True, kw_only=True)
class Trend:
    """(5) Do the residuals still depend on a column? p values after Holm's correction over all columns and tests.

    Attributes:
        slope: Spearman's rank correlation with the column; `bend`: with its distance from the middle; nan, and p
            None, where one of the two does not vary.
        wave: Von Neumann's ratio of the ranked residuals in the order of the column: 2 for independent ones, less where
            neighbours are alike; p by permutation.
    """

    variable: str
    slope: float
    p_slope: float | None
    bend: float
    p_bend: float | None
    wave: float
    p_wave: float

    @property
    def kind(self) -> tuple[str, float]:
        """The test with the smallest p value, and that; a test that could not be made has none."""
        tests = (("slope", self.p_slope), ("bend", self.p_bend), ("wave", self.p_wave))
        return min(((name, p) for name, p in tests if p is not None), key=lambda test: test[1])

    @property
    def found(self) -> bool:
        """Whether any is significant at 5 %."""
        return self.kind[1] < 1 - _LEVEL


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The five checks of one law. Where there were no bootstrap draws, only the first two were made.

    Attributes:
        identifiability: (2) A profile for each parameter.
        holdout: None where none was made; `no_holdout` says why.
        ranges: (4) Smallest and largest value of each column; None where not asked for.
        trends: (5) One for each column that varies; None where not asked for.
    """

    optimum: Optimum
    identifiability: tuple[Profile, ...]
    holdout: HoldOut | None
    no_holdout: str | None
    ranges: Mapping[str, tuple[float, float]] | None
    trends: tuple[Trend, ...] | None

    @property
    def not_identified(self) -> tuple[str, ...]:
        """Parameters with a flat profile."""
        return tuple(profile.parameter for profile in self.identifiability if not profile.identified)

    @property
    def failures(self) -> tuple[str, ...]:
        """The checks that failed, in words."""
        failed = [] if self.optimum.confirmed else ["optimum not confirmed"]
        if self.not_identified:
            failed.append(f"not identified: {', '.join(self.not_identified)}")
        if self.holdout is not None and not self.holdout.passed:
            failed.append("hold-out failed")
        if any(trend.found for trend in self.trends or ()):
            failed.append("residuals depend on " + ", ".join(t.variable for t in self.trends or () if t.found))
        return tuple(failed)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The checks that were not made."""
        return tuple(
            name
            for name, made in (("hold-out", self.holdout), ("range", self.ranges), ("residuals", self.trends))
            if not made
        )

    @property
    def holds(self) -> bool | None:
        """Whether every check passed; None where none failed and some were not made."""
        return False if self.failures else None if self.unchecked else True

    @property
    def verdict(self) -> str:
        """What follows the words "the certificate"."""
        if self.failures:
            return f"does NOT hold: {'; '.join(self.failures)}"
        return f"holds as far as it was checked (not: {', '.join(self.unchecked)})" if self.unchecked else "holds"

    @property
    def findings(self) -> tuple[str, ...]:
        """One line for each check."""
        lines = [f"(1) {self.optimum.sentence}"]
        if self.not_identified:
            lines += [f"(2) {_flat(profile)}" for profile in self.identifiability if not profile.identified]
        else:
            lines.append("(2) every parameter is identified (profile likelihood, 95 %)")
        if self.ranges is None:
            return (*lines, "(3)–(5) hold-out, range and residuals: not checked with bootstrap=0")
        lines.append(f"(3) {self.holdout.sentence if self.holdout else f'hold-out not made: {self.no_holdout}'}")
        spans = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in self.ranges.items())
        lines.append(f"(4) fitted on {spans}; a prediction beyond is an extrapolation, labelled with its factor")
        lines.append(f"(5) {_trend_sentence(self.trends or ())}")
        return tuple(lines)


def _flat(profile: Profile) -> str:
    low, high = profile.flat_from
    sides = [f"down to {show_value(low)}"] if low is not None else []
    sides += [f"up to {show_value(high)}"] if high is not None else []
    return f"{profile.parameter} is NOT IDENTIFIED: its profile stays flat {' and '.join(sides)}"


def _trend_sentence(trends: tuple[Trend, ...]) -> str:
    if not trends:
        return "residuals: no column varies enough for a trend test"
    found = [trend for trend in trends if trend.found]
    if not found:
        least = min(trend.kind[1] for trend in trends)
        names = ", ".join(trend.variable for trend in trends)
        return f"residuals: no trend over {names} (smallest adjusted {equals_p(least)})"
    parts = [f"{trend.variable} ({trend.kind[0]}, adjusted {equals_p(trend.kind[1])})" for trend in found]
    alike = ", or neighbouring ones share their noise" if any(trend.kind[0] == "wave" for trend in found) else ""
    return f"residuals DEPEND on {', '.join(parts)}: the law does not have the shape of these runs{alike}"


_RESOLUTION = 1e-7
"""Of a log-loss: what rounding in the runs and the end of the search leave open. Runs that lie on a law without noise
would else be expected to the last bit."""


def check_holdout(
    problem: Problem, runs: LawRuns, order: tuple[str, Array], ends: Array, seed: int
) -> tuple[HoldOut | None, str | None]:
    """Refit without the largest budgets and predict them, with 200 bootstrap draws of its own.

    Held out is the largest budget, with those below it until they are 5 % of the runs (runs whose `order` lies within
    2 % are one budget).

    Args:
        order: Name and values (runs,) of what orders the budgets.
        ends: Coordinates where the refit may begin (starts, coordinates).

    Returns:
        The hold-out, or None and why there is none.
    """
    variable, values = order
    groups = budget_groups(values)
    group = int(groups.max())
    while group > 0 and np.count_nonzero(groups >= group) < HOLDOUT_SHARE * len(runs):
        group -= 1
    held = groups >= group
    n_fitted, n_parameters = int((~held).sum()), len(problem.law.parameters)
    if n_fitted < 2 * n_parameters:
        why = f"{n_fitted} run{'s' if n_fitted != 1 else ''} would be left below the largest budget"
        return None, f"{why}, fewer than two per parameter ({2 * n_parameters})"
    kept = Problem(law=problem.law, loss=problem.loss, x=problem.x[:, ~held], y=problem.y[~held], centre=problem.centre)
    found, objective = minimise(kept, ends, tolerance=1e-12)
    theta = found[int(np.nanargmin(objective))]
    rng = np.random.default_rng([seed, 1])
    weights = rng.multinomial(n_fitted, np.full(n_fitted, 1 / n_fitted), size=HOLDOUT_DRAWS).astype(float)
    draws, _ = draw(kept, theta, weights, "hold-out")
    law = problem.law
    predicted = law.log_loss(theta[None, :n_parameters], problem.x[:, held])[0]
    noise = rng.choice(widened_residuals(kept, theta), size=(len(draws), int(held.sum())))
    spread = law.log_loss(draws[:, :n_parameters], problem.x[:, held]) + noise
    spread = spread[np.isfinite(spread).all(axis=1)]
    low, high = percentile_ends(spread)
    measured = problem.y[held]
    low, high = low - _RESOLUTION, high + _RESOLUTION
    inside = int(((low <= measured) & (measured <= high)).sum())
    # the runs share the law's error, so they do not miss independently: the draws say how often so much is missed
    middle, width = spread.mean(axis=0), spread.std(axis=0) + _RESOLUTION
    missed = ((np.maximum(np.abs(measured - middle) - _RESOLUTION, 0) / width) ** 2).sum()
    p = float((1 + np.count_nonzero((((spread - middle) / width) ** 2).sum(axis=1) >= missed)) / (1 + len(spread)))
    return HoldOut(
        variable=variable,
        at_least=float(values[held].min()),
        n=measured.size,
        fitted=n_fitted,
        predicted=tuple(np.exp(predicted).tolist()),
        low=tuple(np.exp(low).tolist()),
        high=tuple(np.exp(high).tolist()),
        measured=tuple(np.exp(measured).tolist()),
        inside=inside,
        mean_miss=float(np.mean(measured - predicted)),
        p=p,
        passed=p > 1 - _LEVEL,
    ), None


def widened_residuals(problem: Problem, theta: Array) -> Array:
    """log(measured) - log(law) at a fit, as wide as the noise: the parameters have taken their share of it."""
    r = -problem.residuals(theta[None])[0]
    return np.asarray(r * np.sqrt(r.size / (r.size - len(problem.law.parameters))))


def check_trends(residuals: Array, columns: Mapping[str, Array]) -> tuple[Trend, ...]:
    """Tests of the residuals (runs,) over every column that takes three values or more; see `Trend`."""
    from scipy.stats import rankdata, spearmanr

    found: list[tuple[str, float, float, float]] = []
    ranked = rankdata(residuals)
    shuffled = np.random.default_rng(0).permuted(np.tile(ranked, (_PERMUTATIONS, 1)), axis=1)
    p_values: list[float] = []
    for name, values in columns.items():
        if np.unique(values).size < 3 or np.ptp(residuals) == 0:
            continue
        ranks = rankdata(values)
        slope = spearmanr(ranks, residuals)
        bend = spearmanr(np.abs(ranks - ranks.mean()), residuals)
        wave = float(_von_neumann(ranked[np.argsort(values, kind="stable")]))
        alike = np.count_nonzero(_von_neumann(shuffled) <= wave)
        found.append((name, float(slope.statistic), float(bend.statistic), wave))
        p_values += [float(slope.pvalue), float(bend.pvalue), (1 + alike) / (1 + _PERMUTATIONS)]
    adjusted = adjust_p(p_values, "holm")
    trends = []
    by_column = zip(found, adjusted[::3], adjusted[1::3], adjusted[2::3], strict=True)
    for (variable, sloping, bending, waving), p_slope, p_bend, p_wave in by_column:
        assert p_wave is not None  # a count of permutations
        trends.append(
            Trend(
                variable=variable,
                slope=sloping,
                p_slope=p_slope,
                bend=bending,
                p_bend=p_bend,
                wave=waving,
                p_wave=p_wave,
            )
        )
    return tuple(trends)


_PERMUTATIONS = 1999


def _von_neumann(values: Array) -> Array:
    """Sum of squared differences of neighbours over the sum of squares, along the last axis. Source: von Neumann 1941;
    of ranks: Bartels 1982."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return np.asarray((np.diff(values, axis=-1) ** 2).sum(axis=-1) / (centred**2).sum(axis=-1))
