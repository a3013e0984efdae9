"""The bias of IsoFLOP on noise-free losses of the law that holds on the same runs. Called by `isoflop_valleys`.

A bias is known only where a surface is: the law E + A/N^alpha + B/D^beta, fitted to the same runs, has to pass every
check of its own certificate. From a surface that does not describe the runs no bias is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise_ray.core.errors import AnalysisError

from .akima_floors import akima_floors
from .laws import Array
from .valley_fit import ValleyFit, fit_valleys
from .valley_floors import find_floors

if TYPE_CHECKING:
    import pandas as pd

_DRAWS = 100
"""Bootstrap draws of the surface: none of its intervals is used, but without draws three checks are not made."""
_AROUND = 3.0
"""Log params beyond the sizes where the surface's own optimum is looked for."""


@dataclass(frozen=True, kw_only=True)
class Biases:
    """Optimum over the true one, less 1, by budget: on the curves, and by Akima's interpolation (None: at an edge)."""

    curve: tuple[float | None, ...]
    akima: tuple[float | None, ...]


def biases(
    table: pd.DataFrame, fit: ValleyFit, log_tokens: Sequence[tuple[float, float] | None]
) -> tuple[Biases | None, str | None]:
    """How far both methods miss the surface's own optimum at each budget without noise, or None and why not.

    Args:
        log_tokens: Slope and intercept of log tokens over log params at each budget.
    """
    from .parametric_law import fit_scaling_law

    if any(along is None for along in log_tokens):
        return None, "the runs have no column 'tokens'"
    try:
        law = fit_scaling_law(table, bootstrap=_DRAWS)
    except AnalysisError as error:
        return None, f"no law could be fitted ({error})"
    if law.certificate.holds is not True:
        return None, f"it needs a law that holds, and the certificate of chinchilla {law.certificate.verdict}"
    lines = [along for along in log_tokens if along is not None]
    cells = fit.cells
    clean = np.empty(cells.y.size)
    true, akima = [], []
    for budget, along in enumerate(lines):
        m = cells.budget == budget
        clean[m] = _log_loss(law, cells.x[m], along)
        true.append(_optimum(law, cells.x[m], along))
        akima.append(float(akima_floors(cells.x[m], np.exp(clean[m])[None])[0]))
    found = find_floors(fit_valleys(replace(cells, y=clean), None), 0, np.random.default_rng(0)).floors
    return Biases(
        curve=tuple(_missed(one, other) for one, other in zip(found.tolist(), true, strict=True)),
        akima=tuple(_missed(one, other) for one, other in zip(akima, true, strict=True)),
    ), None


def _log_loss(law: Any, x: Array, along: tuple[float, float]) -> Array:
    points = np.array([x, along[0] * x + along[1]])
    return np.asarray(law.problem.law.log_loss(law.theta[None, :5], points)[0])


def _optimum(law: Any, x: Array, along: tuple[float, float]) -> float:
    """log params at the surface's lowest loss."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda at: float(_log_loss(law, np.array([at]), along)[0]),
        bounds=(float(x[0]) - _AROUND, float(x[-1]) + _AROUND),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.x)


def _missed(found: float, true: float) -> float | None:
    return None if np.isnan(found) else float(np.expm1(found - true))
