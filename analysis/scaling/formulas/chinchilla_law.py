"""The law of params and tokens above an irreducible loss."""

from __future__ import annotations

from itertools import product

import numpy as np

from stackwise_ray.core.registries import LAWS

from ..laws import Array, Bounds, Law, Term
from ._starting import EXPONENTS, RISING, irreducible, levels


def _terms(theta: Array, x: Array) -> list[Term]:
    E, A, B, alpha, beta = theta.T[:, :, None]
    return [
        (E, {0: 1.0}),
        (A - alpha * x[0], {1: 1.0, 3: -x[0]}),
        (B - beta * x[1], {2: 1.0, 4: -x[1]}),
    ]


def _starts(x: Array, y: Array) -> Array:
    grid = product(levels(y), (0.25, 0.75), EXPONENTS, EXPONENTS)
    return np.array([(E, r + np.log(part), r + np.log1p(-part), al, be) for (E, r), part, al, be in grid])


def _bounds(x: Array, y: Array) -> Bounds:
    return {"E": irreducible(y), "alpha": RISING, "beta": RISING}


LAWS.register("chinchilla")(
    Law(
        name="chinchilla",
        formula="E + A / params^alpha + B / tokens^beta",
        parameters=("E", "A", "B", "alpha", "beta"),
        logs=frozenset({"E", "A", "B"}),
        columns=("params", "tokens"),
        terms=_terms,
        starts=_starts,
        bounds=_bounds,
        limits={"E": ("low",)},
        scales=(("A", "alpha", 0), ("B", "beta", 1)),
        coefficients=("E", "A", "B"),
        exponents=("alpha", "beta"),
        source="Hoffmann et al. (2022), arXiv 2203.15556, approach 3",
    )
)
