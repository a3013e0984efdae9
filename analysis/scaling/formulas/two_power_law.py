"""The product of two power laws, without a floor: what is best to choose, such as a learning rate or a batch size."""

from __future__ import annotations

from itertools import product

import numpy as np

from stackwise_ray.core.registries import LAWS

from ..laws import Array, Bounds, Law, Term
from ._starting import ANY


def _terms(theta: Array, x: Array) -> list[Term]:
    A, alpha, beta = theta.T[:, :, None]
    return [(A - alpha * x[0] - beta * x[1], {0: 1.0, 1: -x[0], 2: -x[1]})]


def _starts(x: Array, y: Array) -> Array:
    slopes = (-0.5, 0.0, 0.5)
    return np.array([(np.median(y), alpha, beta) for alpha, beta in product(slopes, slopes)])


def _bounds(x: Array, y: Array) -> Bounds:
    return {"alpha": ANY, "beta": ANY}


LAWS.register("two_power")(
    Law(
        name="two_power",
        formula="A / (params^alpha tokens^beta)",
        quantity="value",
        parameters=("A", "alpha", "beta"),
        logs=frozenset({"A"}),
        columns=("params", "tokens"),
        terms=_terms,
        starts=_starts,
        bounds=_bounds,
        scales=(("A", "alpha", 0), ("A", "beta", 1)),
        coefficients=("A",),
        source="Li et al. (2025), arXiv 2503.04715, the best learning rate and batch size",
    )
)
