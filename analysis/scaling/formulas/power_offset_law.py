"""A power law of one variable above an irreducible loss."""

from __future__ import annotations

from itertools import product

import numpy as np

from stackwise_ray.core.registries import LAWS

from ..laws import Array, Bounds, Law, Term
from ._starting import EXPONENTS, RISING, irreducible, levels


def _terms(theta: Array, x: Array) -> list[Term]:
    E, A, alpha = theta.T[:, :, None]
    return [(E, {0: 1.0}), (A - alpha * x[0], {1: 1.0, 2: -x[0]})]


def _starts(x: Array, y: Array) -> Array:
    return np.array([(E, rest, alpha) for (E, rest), alpha in product(levels(y), (0.02, 0.05, *EXPONENTS, 2.0))])


def _bounds(x: Array, y: Array) -> Bounds:
    return {"E": irreducible(y), "alpha": RISING}


LAWS.register("power_offset")(
    Law(
        name="power_offset",
        formula="E + A / x^alpha",
        parameters=("E", "A", "alpha"),
        logs=frozenset({"E", "A"}),
        columns=(),
        terms=_terms,
        starts=_starts,
        bounds=_bounds,
        limits={"E": ("low",)},
        scales=(("A", "alpha", 0),),
        coefficients=("E", "A"),
        source="Henighan et al. (2020), arXiv 2010.14701",
    )
)
