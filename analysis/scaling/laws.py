"""What a scaling law is: its formula, its gradient, where a search for it starts and where its parameters end.

The laws themselves are in `formulas`, one module each, and a plugin may register more. Called by `minimisation`.

A law is a sum of positive terms, worked with in logarithms: log f = logsumexp(u_1 … u_K), so d log f = Σ softmax(u)_k
du_k, and nothing overflows. Inside a fit every quantity is counted in units of its geometric mean over the runs: the
law keeps its form there, its parameters are of order one and hardly correlated. `Law.natural` translates back.

Coordinates are the parameters in the order of `Law.parameters`, logarithms for those in `Law.logs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """A parametric law of the loss; one registration in `core.registries.LAWS` adds one.

    Attributes:
        formula: As people write it; x stands for the one variable of a law in one.
        parameters: Names, in the order of the coordinates.
        logs: Parameters whose coordinate is their logarithm: they are positive.
        quantity: What it describes: the loss, or another value in the column of that name.
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
    quantity: str = "loss"

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
    def allocation_restriction(self) -> str | None:
        """Why the exponents of the allocation have no interval of their own; None: they have."""
        return None

    def refuse_outside(self, x: Array, y: Array) -> None:
        """Refuse fixed values that mean nothing for these runs; an unrestricted law has none."""

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
