"""The scaling laws: what each says, its gradient, and where a search for it starts. Called by `minimisation`.

A law is a sum of positive terms, worked with in logarithms: log f = logsumexp(u_1 … u_K), so d log f = Σ softmax(u)_k
du_k, and nothing overflows. Inside a fit every quantity is counted in units of its geometric mean over the runs: the
law keeps its form there, its parameters are of order one and hardly correlated. `Law.natural` translates back.

Coordinates are the parameters in the order of `Law.parameters`, logarithms for those in `Law.logs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Side: TypeAlias = Literal["low", "high"]
Bounds: TypeAlias = dict[str, tuple[float, float]]
Term: TypeAlias = tuple[Array, Mapping[int, Array | float]]
"""u of one term, broadcastable to (rows, runs), and its derivative by each coordinate that it depends on."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """A parametric law of the loss.

    Attributes:
        formula: As people write it; x stands for the one variable of a law in one.
        parameters: Names, in the order of the coordinates.
        logs: Parameters whose coordinate is their logarithm: they are positive.
        columns: What the loss depends on; empty: one variable that the caller names.
        terms: u and du of every term at coordinates (rows, parameters) and log-columns (columns, runs).
        starts: Coordinates (starts, parameters) where a search begins, from the log-columns and the log-loss.
        bounds: Lowest and highest coordinate at which a parameter still means something, from the same two; a profile
            goes no further. Infinite: by a distance from the estimate. Parameters without an entry are logarithms.
        limits: Parameters that may lie beyond a bound, at zero ("low") or without end ("high"): the law has a limit
            there. Coefficients beside others have one at zero without being named.
        scales: (coefficient, exponent or None, column index): changing the unit of a column by e^m adds exponent × m
            (m itself for None) to the logarithm of the coefficient.
        coefficients: Parameters in which the law is linear, a term each; empty where it is not.
        exponents: The two exponents behind the optimal allocation, of params and of tokens; empty where there is none.
        source: Where the law comes from.
    """

    name: str
    formula: str
    parameters: tuple[str, ...]
    logs: frozenset[str]
    columns: tuple[str, ...]
    terms: Callable[[Array, Array], list[Term]]
    starts: Callable[[Array, Array], Array]
    bounds: Callable[[Array, Array], Bounds]
    limits: Mapping[str, tuple[Side, ...]] = field(default_factory=dict)
    scales: tuple[tuple[str, str | None, int], ...]
    coefficients: tuple[str, ...]
    exponents: tuple[str, ...] = ()
    source: str

    def at(self, centre: Array) -> Law:
        """This law for columns in units of exp(centre), which keeps its form."""
        return self

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters from the free ones: of an unrestricted law, these."""
        return dict(values)

    def whole_coordinates(self, theta: Array) -> Array:
        """Coordinates of all parameters (rows, parameters)."""
        return theta[:, : len(self.parameters)]

    def restriction(self, name: str) -> str | None:
        """Why a parameter has no interval of its own; None: it has."""
        return None

    @property
    def whole_exponents(self) -> tuple[str, ...]:
        """`exponents`, those that are tied or fixed included."""
        return self.exponents

    def index(self, name: str) -> int:
        """Position of a parameter among the coordinates."""
        return self.parameters.index(name)

    def log_loss(self, theta: Array, x: Array) -> Array:
        """log of the law at coordinates (rows, parameters) and log-columns (columns, runs): (rows, runs)."""
        with np.errstate(over="ignore", under="ignore"):
            total = np.logaddexp.reduce(np.broadcast_arrays(*(u for u, _ in self.terms(theta, x))), axis=0)
        return np.broadcast_to(total, (len(theta), x.shape[1]))

    def natural(self, theta: Array, centre: Array) -> Array:
        """Parameters (rows, parameters) in the units of the table, from coordinates in units of exp(centre)."""
        values = self.rescaled(theta, centre)
        for name in self.logs:
            with np.errstate(over="ignore"):  # a parameter that is not identified may be infinite
                values[:, self.index(name)] = np.exp(values[:, self.index(name)])
        return values

    def falls(self, theta: Array) -> NDArray[np.bool_]:
        """Rows of coordinates whose exponents are positive: with a negative one the law says that more does harm."""
        return np.asarray((theta[:, [self.index(name) for name in self.exponents]] > 0).all(axis=1))

    def rescaled(self, theta: Array, centre: Array) -> Array:
        """Coordinates in units that are exp(-centre) times the present ones."""
        moved = np.array(theta, dtype=float)
        for coefficient, exponent, column in self.scales:
            power: Array | float = 1.0
            if exponent is not None:
                power = theta[:, self.index(exponent)]
                power = np.exp(power) if exponent in self.logs else power
            moved[:, self.index(coefficient)] += power * centre[column]
        return moved


def _power(theta: Array, x: Array) -> list[Term]:
    A, alpha = theta.T[:, :, None]
    return [(A - alpha * x[0], {0: 1.0, 1: -x[0]})]


def _power_offset(theta: Array, x: Array) -> list[Term]:
    E, A, alpha = theta.T[:, :, None]
    return [(E, {0: 1.0}), (A - alpha * x[0], {1: 1.0, 2: -x[0]})]


def _chinchilla(theta: Array, x: Array) -> list[Term]:
    E, A, B, alpha, beta = theta.T[:, :, None]
    return [
        (E, {0: 1.0}),
        (A - alpha * x[0], {1: 1.0, 3: -x[0]}),
        (B - beta * x[1], {2: 1.0, 4: -x[1]}),
    ]


def _bnsl(theta: Array, x: Array) -> list[Term]:
    a, b, c0, c1, d, log_f = theta.T[:, :, None]
    f = np.exp(log_f)
    gap = x[0] - d
    bend = np.logaddexp(0.0, gap / f)
    share = np.exp(-np.logaddexp(0.0, -gap / f))
    u = b - c0 * x[0] - c1 * f * bend
    return [(a, {0: 1.0}), (u, {1: 1.0, 2: -x[0], 3: -f * bend, 4: c1 * share, 5: -c1 * (f * bend - share * gap)})]


def _data_constrained(theta: Array, x: Array) -> list[Term]:
    E, A, B, log_alpha, log_beta, log_rd, log_rn = theta.T[:, :, None]
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    n, d, unique = x
    seen = np.minimum(d, unique)  # distinct tokens that the run saw
    value_d, slope_d, _ = _repeated(np.maximum(np.expm1(d - unique), 0.0), log_rd)
    effective_d = seen + value_d
    balance = log_alpha + A + beta * seen - log_beta - B
    best_n = balance / alpha  # the size that these distinct tokens feed at the optimum of the law without repetition
    excess = np.maximum(n - best_n, 0.0)
    value_n, slope_n, slope_excess = _repeated(np.expm1(excess), log_rn)
    effective_n = np.minimum(n, best_n) + value_n
    v = np.where(n > best_n, 1.0 - slope_excess, 0.0)  # d effective_n / d best_n
    return [
        (E, {0: 1.0}),
        (
            A - alpha * effective_n,
            {
                1: 1.0 - v,
                2: v,
                3: -alpha * effective_n - v * (1.0 - balance),
                4: -v * (beta * seen - 1.0),
                6: -alpha * slope_n,
            },
        ),
        (B - beta * effective_d, {2: 1.0, 4: -beta * effective_d, 5: -beta * slope_d}),
    ]


def _repeated(repeats: Array, log_scale: Array) -> tuple[Array, Array, Array]:
    """log(1 + R*(1 - exp(-R/R*))) for R repetitions, and its derivatives by log R* and by log(1 + R)."""
    scale = np.exp(log_scale)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        ratio = repeats / scale
        left = np.exp(-ratio)
        worth = 1.0 - scale * np.expm1(-ratio)
        by_scale = (worth - 1.0 - np.where(left > 0, repeats * left, 0.0)) / worth
        by_repeats = np.exp(np.log1p(repeats) - ratio) / worth
    return np.log(worth), by_scale, by_repeats


_SHARES = (0.3, 0.8)
"""Of the lowest loss, where the irreducible part starts."""
_EXPONENTS = (0.1, 0.35, 1.0)


def _levels(y: Array) -> list[tuple[float, float]]:
    """(log E, log of what is left at the middle of the runs) for each share."""
    lowest, middle = float(np.exp(y.min())), float(np.exp(np.median(y)))
    return [(float(np.log(share * lowest)), float(np.log(middle - share * lowest))) for share in _SHARES]


def _start_power(x: Array, y: Array) -> Array:
    return np.array([(np.median(y), alpha) for alpha in (0.0, 0.02, 0.05, *_EXPONENTS, 2.0)])


def _start_power_offset(x: Array, y: Array) -> Array:
    return np.array([(E, rest, alpha) for (E, rest), alpha in product(_levels(y), (0.02, 0.05, *_EXPONENTS, 2.0))])


def _start_chinchilla(x: Array, y: Array) -> Array:
    grid = product(_levels(y), (0.25, 0.75), _EXPONENTS, _EXPONENTS)
    return np.array([(E, r + np.log(part), r + np.log1p(-part), al, be) for (E, r), part, al, be in grid])


def _start_bnsl(x: Array, y: Array) -> Array:
    breaks = np.quantile(x[0], (0.25, 0.5, 0.75))
    grid = product(_levels(y), (0.05, 0.3), (-0.2, 0.2, 0.6), breaks)
    return np.array([(a, b, c0, c1, d, np.log(0.5)) for (a, b), c0, c1, d in grid])


def _start_data_constrained(x: Array, y: Array) -> Array:
    exponents = np.log(np.array((0.2, 0.5)))
    scales = np.log(np.array((2.0, 15.0)))
    grid = product(_levels(y), exponents, exponents, scales, scales)
    half = np.log(0.5)
    return np.array([(E, r + half, r + half, al, be, rd, rn) for (E, r), al, be, rd, rn in grid])


def _irreducible(y: Array) -> tuple[float, float]:
    """A thousandth of the lowest loss is none."""
    return float(y.min() - np.log(1e3)), float(y.min() + 0.5)


_RISING = (0.0, float("inf"))
"""An exponent: at 0 a term is a constant."""


def _bounds_power(x: Array, y: Array) -> Bounds:
    return {"alpha": _RISING}


def _bounds_power_offset(x: Array, y: Array) -> Bounds:
    return {"E": _irreducible(y), "alpha": _RISING}


def _bounds_chinchilla(x: Array, y: Array) -> Bounds:
    return {"E": _irreducible(y), "alpha": _RISING, "beta": _RISING}


def _bounds_bnsl(x: Array, y: Array) -> Bounds:
    any_slope = (-float("inf"), float("inf"))
    break_inside = (float(x[0].min()), float(x[0].max()))  # a break outside the runs is none
    return {"a": _irreducible(y), "c0": any_slope, "c1": any_slope, "d": break_inside}


def _bounds_data_constrained(x: Array, y: Array) -> Bounds:
    most = np.log(1e3) + max(0.0, float((x[1] - x[2]).max()))  # repeats that lose a thousandth of their worth lose none
    worth = (-float(np.log(1e3)), most)
    return {"E": _irreducible(y), "R_D": worth, "R_N": worth}


_ADDITIVE = frozenset({"E", "A", "B"})
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            name="power",
            formula="A / x^alpha",
            parameters=("A", "alpha"),
            logs=frozenset({"A"}),
            columns=(),
            terms=_power,
            starts=_start_power,
            bounds=_bounds_power,
            scales=(("A", "alpha", 0),),
            coefficients=("A",),
            source="Kaplan et al. (2020), arXiv 2001.08361",
        ),
        Law(
            name="power_offset",
            formula="E + A / x^alpha",
            parameters=("E", "A", "alpha"),
            logs=frozenset({"E", "A"}),
            columns=(),
            terms=_power_offset,
            starts=_start_power_offset,
            bounds=_bounds_power_offset,
            limits={"E": ("low",)},
            scales=(("A", "alpha", 0),),
            coefficients=("E", "A"),
            source="Henighan et al. (2020), arXiv 2010.14701",
        ),
        Law(
            name="chinchilla",
            formula="E + A / params^alpha + B / tokens^beta",
            parameters=("E", "A", "B", "alpha", "beta"),
            logs=_ADDITIVE,
            columns=("params", "tokens"),
            terms=_chinchilla,
            starts=_start_chinchilla,
            bounds=_bounds_chinchilla,
            limits={"E": ("low",)},
            scales=(("A", "alpha", 0), ("B", "beta", 1)),
            coefficients=("E", "A", "B"),
            exponents=("alpha", "beta"),
            source="Hoffmann et al. (2022), arXiv 2203.15556, approach 3",
        ),
        Law(
            name="bnsl",
            formula="a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)",
            parameters=("a", "b", "c0", "c1", "d", "f"),
            logs=frozenset({"a", "b", "d", "f"}),
            columns=(),
            terms=_bnsl,
            starts=_start_bnsl,
            bounds=_bounds_bnsl,
            limits={"a": ("low",)},
            scales=(("b", "c0", 0), ("d", None, 0)),
            coefficients=("a", "b"),
            source="Caballero et al. (2023), arXiv 2210.14891, one break",
        ),
        Law(
            name="data_constrained",
            formula="E + A / params'^alpha + B / tokens'^beta, params' and tokens' the worth "
            "of params beyond what the unique tokens feed (R_N) and of repeated tokens (R_D)",
            parameters=("E", "A", "B", "alpha", "beta", "R_D", "R_N"),
            logs=_ADDITIVE | {"alpha", "beta", "R_D", "R_N"},
            columns=("params", "tokens", "unique_tokens"),
            terms=_data_constrained,
            starts=_start_data_constrained,
            bounds=_bounds_data_constrained,
            limits={"E": ("low",), "R_D": ("low", "high"), "R_N": ("low", "high")},
            scales=(("A", "alpha", 0), ("B", "beta", 1)),
            coefficients=(),
            exponents=("alpha", "beta"),
            source="Muennighoff et al. (2023), arXiv 2305.16264, eq. 5",
        ),
    )
}
