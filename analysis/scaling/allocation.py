"""How many parameters and tokens a budget is best spent on, by a law, by IsoFLOP optima or by the frontier.

`optimal_allocation` is the public face; `AllocationLine` is what `isoflop_valleys` and `frontier` share: the optimum as
a power law of the budget, fitted in logarithms, with its bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.quantities import format_count

from ..render import TextView
from .law_table import FLOPS_PER_PARAM_AND_TOKEN
from .law_text import bias_share, show_ends
from .laws import Array
from .resampling import percentile_ends
from .scaling_fit import ScalingFit

Ends = tuple[float, float]
LOST_SHARE = 0.025
"""Largest share of bootstrap draws without an optimum for which a 95 % interval is still given."""


class _ParamsTokens(NamedTuple):
    params: float
    tokens: float


class Allocation(_ParamsTokens, TextView):
    """(params, tokens) that spend `flops` best.

    Attributes:
        intervals: {"params": (low, high), "tokens": (low, high)}, 95 % percentile bootstrap; None without draws.
        extrapolation: Factor by which the budget lies outside the runs'; 1 inside.
        rule: How flops, params and tokens hang together.
        bias: Share by which IsoFLOP misses params on noise-free losses of the law that holds on the same runs; None:
            not computed, or of another method.
    """

    flops: float
    intervals: Mapping[str, Ends] | None
    extrapolation: float
    rule: str
    bias: float | None

    def __str__(self) -> str:
        return self.sentence

    @property
    def sentence(self) -> str:
        """The allocation in words."""
        parts = []
        for name, value in (("params", self.params), ("tokens", self.tokens)):
            ends = f" [{show_ends(self.intervals[name])}]" if self.intervals else ""
            parts.append(f"{format_count(value)} {name}{ends}")
        far = f"; extrapolation by a factor of {self.extrapolation:.3g}" if self.extrapolation > 1 else ""
        bias = "" if self.bias is None else f"; bias of params {bias_share(self.bias)}"
        return f"{self.flops:.4g} flops are best spent on {' and '.join(parts)} ({self.rule}{far}{bias})"


@dataclass(frozen=True, kw_only=True)
class AllocationLine:
    """log params and log tokens of the optimum as straight lines over log flops.

    Attributes:
        centre: Mean log flops of the optima.
        span: Smallest and largest flops behind the line.
        params: (value at the centre, slope); `tokens` likewise, None where tokens are not recorded.
        params_draws: Bootstrap draws (draws, 2) of `params`; `tokens_draws` likewise.
        lost: Share of the draws with too few optima for a line.
        bias: (value at the centre, slope) of log (1 + bias of params), on noise-free losses of a law that holds; None:
            not computed.
    """

    centre: float
    span: Ends
    params: tuple[float, float]
    tokens: tuple[float, float] | None
    params_draws: Array
    tokens_draws: Array | None
    lost: float
    bias: Ends | None = None

    @property
    def exponents(self) -> dict[str, float]:
        """{a, b}, or {a} without tokens."""
        return {"a": self.params[1]} | ({"b": self.tokens[1]} if self.tokens else {})

    @property
    def intervals(self) -> dict[str, Ends] | None:
        """95 % percentile interval by exponent; None without draws, or where too many of them have no optimum."""
        if not len(self.params_draws) or self.lost > LOST_SHARE:
            return None
        found = {"a": _ends(self.params_draws[:, 1])}
        return found | ({"b": _ends(self.tokens_draws[:, 1])} if self.tokens_draws is not None else {})

    def at(self, flops: float) -> Allocation:
        """The optimum at a budget."""
        if self.tokens is None or self.tokens_draws is None:
            raise AnalysisError(
                "the runs have no column 'tokens', so the optimal number of tokens is not "
                "known; name it (--map tokens=COLUMN), or derive it (--tokens-from 6N)"
            )
        far = math.log(flops) - self.centre
        allocation = Allocation(*(math.exp(level + slope * far) for level, slope in (self.params, self.tokens)))
        allocation.flops, allocation.intervals = flops, None
        if self.intervals is not None:
            allocation.intervals = {
                name: _ends(np.exp(draws @ np.array([1.0, far])))
                for name, draws in (("params", self.params_draws), ("tokens", self.tokens_draws))
            }
        allocation.bias = None if self.bias is None else math.expm1(self.bias[0] + self.bias[1] * far)
        allocation.extrapolation = max(1.0, self.span[0] / flops, flops / self.span[1])
        allocation.rule = "power laws through the optima of the runs"
        return allocation


class HasLine(Protocol):
    """A fit whose optimum is a power law of the budget: IsoFLOP optima, a frontier."""

    @property
    def line(self) -> AllocationLine:
        """The power law."""


def fit_line(flops: Array, params: Array, tokens: Array | None) -> AllocationLine:
    """Least-squares lines through optima, without draws; all arguments (budgets,)."""
    x = np.log(flops)
    centre = float(x.mean())
    lines = [None if y is None else slopes(x, np.log(y)[None], centre)[0] for y in (params, tokens)]
    assert lines[0] is not None
    return AllocationLine(
        centre=centre,
        span=(float(flops.min()), float(flops.max())),
        params=(float(lines[0][0]), float(lines[0][1])),
        tokens=None if lines[1] is None else (float(lines[1][0]), float(lines[1][1])),
        params_draws=np.empty((0, 2)),
        tokens_draws=None if tokens is None else np.empty((0, 2)),
        lost=0.0,
    )


def slopes(x: Array, y: Array, centre: float) -> Array:
    """(value at `centre`, slope) of each row of `y` (rows, points) over `x` (points,), by least squares.

    Points that are nan leave their row; each row has two or more that are not.
    """
    known = np.isfinite(y)
    count = known.sum(axis=1)
    middle = (known @ x) / count
    far = np.where(known, x - middle[:, None], 0.0)
    values = np.where(known, y, 0.0)
    slope = (values * far).sum(axis=1) / (far * far).sum(axis=1)
    return np.column_stack([values.sum(axis=1) / count + slope * (centre - middle), slope])


def _ends(draws: Array) -> Ends:
    low, high = percentile_ends(draws)
    return float(low), float(high)


def optimal_allocation(fit: ScalingFit | HasLine, flops: float) -> Allocation:
    """The params and tokens with the lowest loss at a budget of `flops`, with 95 % intervals.

    From a `chinchilla` law: the minimum of E + A/N^alpha + B/D^beta where flops = k N D, in closed form. k is the
    median of the runs' own flops / (params tokens) where all three are recorded, and 6 otherwise; `Allocation.rule`
    says which. From IsoFLOP optima or a frontier: their power law.

    Raises:
        AnalysisError: A budget that is not positive, a law without an optimum, or runs without tokens.
    """
    if not (math.isfinite(flops) and flops > 0):
        raise AnalysisError(f"flops = {flops:g} must be positive and finite")
    if not isinstance(fit, ScalingFit):
        return fit.line.at(flops)
    if fit.law != "chinchilla":
        raise AnalysisError(
            f"'{fit.law}' has no optimal split of a budget into params and tokens; fit law='chinchilla' for one"
        )
    k, low, high = fit.flops_per_product or (FLOPS_PER_PARAM_AND_TOKEN,) * 3
    params, tokens = _optimum(fit.problem.law.whole_coordinates(fit.theta[None]), flops / k)
    if not (np.isfinite(params[0]) and np.isfinite(tokens[0])):
        raise AnalysisError("alpha and beta are not both positive: more params or tokens never help in this law")
    allocation = Allocation(float(params[0]), float(tokens[0]))
    allocation.flops, allocation.intervals, allocation.bias = flops, None, None
    if len(fit.draws):
        draws = _optimum(fit.problem.law.whole_coordinates(fit.draws), flops / k)
        if np.mean(~np.isfinite(draws).all(axis=0)) <= LOST_SHARE:
            kept = draws[:, np.isfinite(draws).all(axis=0)]
            allocation.intervals = {"params": _ends(kept[0]), "tokens": _ends(kept[1])}
    allocation.extrapolation = fit.extrapolation(np.log(np.array([[allocation.params], [allocation.tokens]])))
    if fit.flops_per_product is None:
        allocation.rule = "flops = 6 params tokens is assumed: the runs have no flops"
    else:
        spread = "" if high <= low * 1.02 else f", {low:.3g} to {high:.3g} over them"
        allocation.rule = f"flops = {k:.4g} params tokens, the median of the runs{spread}"
    return allocation


def _optimum(theta: Array, product: float) -> Array:
    """params and tokens (2, rows) whose product is given, at the least of E + A/N^alpha + B/D^beta; nan for none."""
    A, B, alpha, beta = theta[:, 1:5].T
    with np.errstate(invalid="ignore", divide="ignore"):
        log_g = (np.log(alpha) + A - np.log(beta) - B) / (alpha + beta)
    log_n = log_g + beta / (alpha + beta) * math.log(product)
    return np.asarray(np.exp(np.array([log_n, math.log(product) - log_n])))
