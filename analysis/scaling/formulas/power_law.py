"""A power law of one variable."""

from __future__ import annotations

import numpy as np

from stackwise_ray.core.registries import LAWS

from ..laws import Array, Bounds, Law, Term
from ._starting import EXPONENTS, RISING


def _terms(theta: Array, x: Array) -> list[Term]:
    A, alpha = theta.T[:, :, None]
    return [(A - alpha * x[0], {0: 1.0, 1: -x[0]})]


def _starts(x: Array, y: Array) -> Array:
    return np.array([(np.median(y), alpha) for alpha in (0.0, 0.02, 0.05, *EXPONENTS, 2.0)])


def _bounds(x: Array, y: Array) -> Bounds:
    return {"alpha": RISING}


LAWS.register("power")(
    Law(
        name="power",
        formula="A / x^alpha",
        parameters=("A", "alpha"),
        logs=frozenset({"A"}),
        columns=(),
        terms=_terms,
        starts=_starts,
        bounds=_bounds,
        scales=(("A", "alpha", 0),),
        coefficients=("A",),
        source="Kaplan et al. (2020), arXiv 2001.08361",
    )
)
