"""How a law's misses are counted: Huber, Gaussian and Student t on the logarithm of the loss. Called by `minimisation`.

Each takes residuals r = log(law) - log(measured). `scale` is what turns twice a rise of the objective into a
likelihood ratio (squared Student t for one parameter), so that profiles mean the same for all.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from .laws import Array

FREEDOM = 4.0
"""Degrees of freedom of the Student t loss (Lange, Little and Taylor 1989): a dozen runs cannot tell it from others."""
DELTA = 1e-3


class Loss(Protocol):
    """A loss on log residuals; `n_scales` coordinates (0 or 1) follow those of the law."""

    name: str
    n_scales: int

    def value(self, r: Array, log_scale: Array | None) -> tuple[Array, Array, Array | None]:
        """rho, its derivative by r, and by the log scale; `r` is (rows, runs), `log_scale` (rows, 1)."""
        ...

    def weight(self, r: Array, log_scale: Array | None) -> Array:
        """psi(r) / r: the weights with which least squares makes the same step."""
        ...

    def scale(self, r: Array, n_parameters: int) -> float:
        """E psi^2 / E psi' at the residuals (runs,) of a fit."""
        ...


class HuberLog:
    """Quadratic up to `delta`, linear beyond: a run far off pulls no harder than one a little off."""

    name = "huber_log"
    n_scales = 0

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def value(self, r: Array, log_scale: Array | None) -> tuple[Array, Array, None]:
        psi = np.minimum(np.maximum(r, -self.delta), self.delta)  # as np.clip, which takes longer to begin
        return psi * (r - 0.5 * psi), psi, None

    def weight(self, r: Array, log_scale: Array | None) -> Array:
        return np.asarray(self.delta / np.maximum(np.abs(r), self.delta))

    def scale(self, r: Array, n_parameters: int) -> float:
        """Source: Schrader and Hettmansperger (1980), Biometrika 67 (likelihood-ratio tests of M-estimates).

        psi' is 1 within delta and 0 beyond. Where delta is far below the noise few runs lie within it, so the share is
        read off a window as wide as a density estimate needs, without the runs (one per parameter) that such a fit
        passes through.
        """
        freedom = max(1, r.size - n_parameters)
        squares = float(np.sum(self.value(r[None], None)[1] ** 2)) / freedom
        spread = 1.4826 * float(np.median(np.abs(r)))
        window = max(self.delta, spread * r.size**-0.2)
        within = max(1, int(np.count_nonzero(np.abs(r) <= window)) - n_parameters)
        return float(squares / (within / freedom * self.delta / window))


class GaussianLog:
    """Least squares on the log-loss."""

    name = "gaussian_log"
    n_scales = 0

    def value(self, r: Array, log_scale: Array | None) -> tuple[Array, Array, None]:
        return 0.5 * r * r, r, None

    def weight(self, r: Array, log_scale: Array | None) -> Array:
        return np.ones_like(r)

    def scale(self, r: Array, n_parameters: int) -> float:
        return float(np.sum(r * r)) / max(1, r.size - n_parameters)


class StudentTLog:
    """Negative log-likelihood of Student's t with 4 degrees of freedom and a scale that is fitted with the law."""

    name = "student_t_log"
    n_scales = 1

    def value(self, r: Array, log_scale: Array | None) -> tuple[Array, Array, Array]:
        assert log_scale is not None
        z = (r * np.exp(-log_scale)) ** 2 / FREEDOM
        constant = math.lgamma(FREEDOM / 2) - math.lgamma((FREEDOM + 1) / 2) + 0.5 * math.log(FREEDOM * math.pi)
        rho = constant + log_scale + 0.5 * (FREEDOM + 1) * np.log1p(z)
        return rho, r * self.weight(r, log_scale), 1.0 - (FREEDOM + 1) * z / (1.0 + z)

    def weight(self, r: Array, log_scale: Array | None) -> Array:
        assert log_scale is not None
        return np.asarray((FREEDOM + 1) / (FREEDOM * np.exp(2 * log_scale) + r * r))

    def scale(self, r: Array, n_parameters: int) -> float:
        return 1.0


LOSSES = ("huber_log", "gaussian_log", "student_t_log")


def make_loss(name: str, delta: float) -> Loss:
    """The loss of that name.

    Raises:
        AnalysisError: No such loss, a delta that is not positive, or one for a loss that has none.
    """
    if name not in LOSSES:
        raise AnalysisError(f"loss = '{name}' is not a loss; {did_you_mean(name, LOSSES)}")
    if name == "huber_log":
        if not (math.isfinite(delta) and delta > 0):
            raise AnalysisError(f"delta = {delta:g} must be a positive number (0.001 is usual)")
        return HuberLog(delta)
    if delta != DELTA:
        raise AnalysisError(f"delta = {delta:g} has no effect on loss = '{name}'; it belongs to 'huber_log'")
    return GaussianLog() if name == "gaussian_log" else StudentTLog()
