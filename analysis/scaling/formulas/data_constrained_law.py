"""The law of params and tokens where tokens are repeated."""

from __future__ import annotations

from itertools import product

import numpy as np

from stackwise_ray.core.registries import LAWS

from ..laws import Array, Bounds, Law, Term
from ._starting import irreducible, levels


def _terms(theta: Array, x: Array) -> list[Term]:
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


def _starts(x: Array, y: Array) -> Array:
    exponents = np.log(np.array((0.2, 0.5)))
    scales = np.log(np.array((2.0, 15.0)))
    grid = product(levels(y), exponents, exponents, scales, scales)
    half = np.log(0.5)
    return np.array([(E, r + half, r + half, al, be, rd, rn) for (E, r), al, be, rd, rn in grid])


def _bounds(x: Array, y: Array) -> Bounds:
    most = np.log(1e3) + max(0.0, float((x[1] - x[2]).max()))  # repeats that lose a thousandth of their worth lose none
    worth = (-float(np.log(1e3)), most)
    return {"E": irreducible(y), "R_D": worth, "R_N": worth}


LAWS.register("data_constrained")(
    Law(
        name="data_constrained",
        formula="E + A / params'^alpha + B / tokens'^beta, params' and tokens' the worth "
        "of params beyond what the unique tokens feed (R_N) and of repeated tokens (R_D)",
        parameters=("E", "A", "B", "alpha", "beta", "R_D", "R_N"),
        logs=frozenset({"E", "A", "B"}) | {"alpha", "beta", "R_D", "R_N"},
        columns=("params", "tokens", "unique_tokens"),
        terms=_terms,
        starts=_starts,
        bounds=_bounds,
        limits={"E": ("low",), "R_D": ("low", "high"), "R_N": ("low", "high")},
        scales=(("A", "alpha", 0), ("B", "beta", 1)),
        coefficients=(),
        exponents=("alpha", "beta"),
        source="Muennighoff et al. (2023), arXiv 2305.16264, eq. 5",
    )
)
