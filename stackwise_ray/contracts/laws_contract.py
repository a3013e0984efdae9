"""What every scaling law promises: an exact gradient, the same values in other units, and starts from which to search.

The checks count as a fit does: logarithms of the columns, each less its mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackwise_ray.contracts import require
from stackwise_ray.core.registries import LAWS

RUNS, ROWS, STEP = 40, 3, 1e-6
_ALLOWED = 2e-6
"""Of the largest derivative: central differences of step 1e-6 are good to about 1e-9 of a value over the step."""


def its_gradient_is_that_of_finite_differences(name: str) -> None:
    """The derivative of each term by each parameter is that of finite differences."""
    law, x, theta = _somewhere(name)
    for k, (u, derivatives) in enumerate(law.terms(theta, x)):
        size = max(1.0, float(np.max(np.abs(u))))
        for j, parameter in enumerate(law.parameters):
            step = np.zeros_like(theta)
            step[:, j] = STEP
            rise = (law.terms(theta + step, x)[k][0] - law.terms(theta - step, x)[k][0]) / (2 * STEP)
            said = np.asarray(derivatives.get(j, 0.0))
            far = float(np.max(np.abs(np.broadcast_to(rise - said, (len(theta), x.shape[1])))))
            size = max(size, float(np.max(np.abs(rise))))
            require(
                far <= _ALLOWED * size,
                f"the derivative of term {k} by {parameter} is off by {far:.3g} where it is up to {size:.3g}",
            )


def it_keeps_its_values_in_other_units(name: str) -> None:
    """In other units of its columns it has the same values, with the parameters that `scales` converts."""
    law, x, theta = _somewhere(name)
    shift = np.linspace(0.5, 1.5, len(x)) if "unique_tokens" not in law.columns else np.ones(len(x))
    here = law.log_loss(theta, x)
    there = law.at(shift).log_loss(law.rescaled(theta, shift), x + shift[:, None])
    far = float(np.max(np.abs(here - there)))
    require(far <= 1e-8, f"its logarithm changes by {far:.3g} with the units; name what changes in `scales`")


def its_starts_and_bounds_are_its_parameters(name: str) -> None:
    """Its starts are finite, one coordinate per parameter; its bounds, limits, logs and coefficients are parameters."""
    law, x, _ = _somewhere(name)
    starts = np.asarray(law.starts(x, _losses()))
    require(starts.ndim == 2 and starts.shape[1] == len(law.parameters), f"its starts have shape {starts.shape}")
    require(np.isfinite(starts).all(), "a start is not finite")
    named = {*law.bounds(x, _losses()), *law.limits, *law.logs, *law.coefficients, *law.exponents}
    unknown = sorted(named - set(law.parameters))
    require(not unknown, f"{', '.join(unknown)} is no parameter of it")
    unbounded = [one for one in law.parameters if one not in law.bounds(x, _losses()) and one not in law.logs]
    require(not unbounded, f"{', '.join(unbounded)} has no entry in `bounds` and is no logarithm")


def _losses() -> Any:
    return np.log(2.5) + 0.3 * np.random.default_rng(1).normal(size=RUNS)


def _somewhere(name: str) -> tuple[Any, Any, Any]:
    """The law, columns of runs, and rows of coordinates beside its starts."""
    law = LAWS.get(name)
    rng = np.random.default_rng(0)
    x = rng.uniform(-4.0, 4.0, size=(max(1, len(law.columns)), RUNS))
    starts = law.starts(x, _losses())
    chosen = starts[rng.choice(len(starts), size=min(ROWS, len(starts)), replace=False)]
    return law, x, chosen + 0.05 * rng.normal(size=chosen.shape)


CHECKS = (
    its_gradient_is_that_of_finite_differences,
    it_keeps_its_values_in_other_units,
    its_starts_and_bounds_are_its_parameters,
)
