"""A power law of one variable with one smooth break."""

from __future__ import annotations

from itertools import product

import numpy as np

from stackwise_ray.core.registries import LAWS

from ..laws import Array, Bounds, Law, Term
from ._starting import ANY, irreducible, levels


def _terms(theta: Array, x: Array) -> list[Term]:
    a, b, c0, c1, d, log_f = theta.T[:, :, None]
    f = np.exp(log_f)
    gap = x[0] - d
    bend = np.logaddexp(0.0, gap / f)
    share = np.exp(-np.logaddexp(0.0, -gap / f))
    u = b - c0 * x[0] - c1 * f * bend
    return [(a, {0: 1.0}), (u, {1: 1.0, 2: -x[0], 3: -f * bend, 4: c1 * share, 5: -c1 * (f * bend - share * gap)})]


def _starts(x: Array, y: Array) -> Array:
    breaks = np.quantile(x[0], (0.25, 0.5, 0.75))
    grid = product(levels(y), (0.05, 0.3), (-0.2, 0.2, 0.6), breaks)
    return np.array([(a, b, c0, c1, d, np.log(0.5)) for (a, b), c0, c1, d in grid])


def _bounds(x: Array, y: Array) -> Bounds:
    break_inside = (float(x[0].min()), float(x[0].max()))  # a break outside the runs is none
    return {"a": irreducible(y), "c0": ANY, "c1": ANY, "d": break_inside}


LAWS.register("bnsl")(
    Law(
        name="bnsl",
        formula="a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)",
        parameters=("a", "b", "c0", "c1", "d", "f"),
        logs=frozenset({"a", "b", "d", "f"}),
        columns=(),
        terms=_terms,
        starts=_starts,
        bounds=_bounds,
        limits={"a": ("low",)},
        scales=(("b", "c0", 0), ("d", None, 0)),
        coefficients=("a", "b"),
        source="Caballero et al. (2023), arXiv 2210.14891, one break",
    )
)
