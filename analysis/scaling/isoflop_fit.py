"""What `isoflop` found: the valley of each budget, the growth of its floor, and how they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stackwise_ray.core.quantities import format_number

from ..errors import AnalysisError
from ..render import Grid, GridView
from .allocation import AllocationLine
from .law_text import show_ends, show_value
from .laws import Array

_MOST_NAMES = 8


@dataclass(frozen=True, kw_only=True)
class IsoFlopBudget:
    """One budget's valley.

    Attributes:
        flops: Mean over its runs; `name`: the nominal budget, or the flops in words.
        sizes: Distinct params; `losses`: mean loss of each; `runs`: how many runs each has.
        refused: Why there is no optimum; None where there is one.
        params: Size at the parabola's floor; `interval`: 95 % bootstrap, None where too many draws have no floor.
        tokens: Tokens that go with it; None where not recorded.
        akima_params: Size at the floor of Akima's interpolation; None where that lies at an edge.
        bias: Parabola's optimum over the true one, less 1, on noise-free losses of the fitted surface; None: see notes.
        akima_bias: The same for Akima's interpolation.
        coefficients: Of the parabola over log params, the highest power first.
    """

    name: str
    flops: float
    sizes: tuple[float, ...]
    losses: tuple[float, ...]
    runs: tuple[int, ...]
    log_tokens: tuple[float, float] | None
    refused: str | None
    params: float | None = None
    interval: tuple[float, float] | None = None
    tokens: float | None = None
    akima_params: float | None = None
    akima_interval: tuple[float, float] | None = None
    bias: float | None = None
    akima_bias: float | None = None
    coefficients: tuple[float, ...] = ()

    @property
    def x(self) -> Array:
        """log params of the sizes."""
        return np.asarray(np.log(np.array(self.sizes)))


@dataclass(frozen=True, kw_only=True)
class IsoFlopFit(GridView):
    """Optimal size by budget, and its growth.

    Attributes:
        budgets: Every budget, refused ones included, the smallest first.
        exponents: {a, b}: optimal params and tokens grow as flops^a and flops^b, by the parabola; empty below two
            accepted budgets; no b where tokens are not recorded.
        intervals: 95 % bootstrap by exponent; None with bootstrap=0 or where too many draws have no optimum.
        akima_exponent: a by Akima's interpolation; None where fewer than two budgets have an optimum by it.
        exponent_bias: What the parabola adds to a on noise-free losses of the fitted surface; None: see notes.
        noise: "seeds" (deviations from each size's mean) or "residuals" (from the parabola: no size has two seeds).
        line: The power law through the optima; None below two.
    """

    budgets: tuple[IsoFlopBudget, ...]
    exponents: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] | None
    akima_exponent: float | None
    exponent_bias: float | None
    noise: str
    bootstrap: int
    seed: int
    notes: tuple[str, ...]
    exclusions: tuple[Mapping[str, Any], ...] = field(repr=False)
    optima: AllocationLine | None = field(repr=False, compare=False)

    @property
    def line(self) -> AllocationLine:
        """The power law through the optima.

        Raises:
            AnalysisError: Fewer than two budgets have an optimum.
        """
        if self.optima is None:
            raise AnalysisError(
                "fewer than two budgets have an optimum, so it has no growth: " + "; ".join(self.refusals)
            )
        return self.optima

    @property
    def accepted(self) -> tuple[IsoFlopBudget, ...]:
        """Budgets with an optimum."""
        return tuple(budget for budget in self.budgets if budget.refused is None)

    @property
    def refusals(self) -> tuple[str, ...]:
        """A line for each reason why a budget has none, with the budgets' names."""
        by_reason: dict[str, list[str]] = {}
        for budget in self.budgets:
            if budget.refused:
                by_reason.setdefault(budget.refused, []).append(budget.name)
        return tuple(
            f"budget{'s' if len(names) > 1 else ''} {listed(names)} refused: {reason}"
            for reason, names in by_reason.items()
        )

    @property
    def sentence(self) -> str:
        """The growth of the optimum in words."""
        of = f"{len(self.accepted)} of {len(self.budgets)} budgets have an optimum"
        if not self.exponents:
            return f"{of}: no growth to estimate."
        grown = [
            f"{name} ∝ flops^{self._shown(key)}"
            for key, name in (("a", "params"), ("b", "tokens"))
            if key in self.exponents
        ]
        return f"{of}; at it {' and '.join(grown)}."

    def _shown(self, key: str) -> str:
        ends = f" [{show_ends(self.intervals[key])}]" if self.intervals else " [no interval]"
        return show_value(self.exponents[key]) + ends

    @property
    def grid(self) -> Grid:
        """A row a budget; exponents, refusals and the parabola's bias below."""
        rows = []
        for budget in self.budgets if self.accepted else ():  # without one the reasons below say it all
            head = (budget.name, str(sum(budget.runs)), str(len(budget.sizes)))
            if budget.refused:
                rows.append((*head, "refused", "", "", "", "", ""))
                continue
            parabola = (show_value(budget.params), show_ends(budget.interval, "no interval"), _percent(budget.bias))
            akima = (show_value(budget.akima_params, "at an edge"), show_ends(budget.akima_interval, "no interval"))
            rows.append((*head, *parabola, *akima, show_value(budget.tokens)))
        columns = ("budget", "runs", "sizes", "params (parabola)", "95%", "bias", "params (Akima)", "95%", "tokens")
        notes = [*self.refusals]
        if self.exponent_bias is not None:
            shown = format_number(self.exponent_bias, 4, signed=True)
            notes.append(f"the parabola's bias in a, on noise-free losses of the fitted surface: {shown}")
        if self.akima_exponent is not None:
            notes.append(f"a by Akima's interpolation: {show_value(self.akima_exponent)}")
        if self.bootstrap and self.accepted:
            whence = "between seeds" if self.noise == "seeds" else "in the residuals of the parabolas: one seed a size"
            notes.append(f"intervals: {self.bootstrap} bootstrap draws of the noise {whence}")
        return Grid(columns, tuple(rows), f"IsoFLOP: {self.sentence}", (*notes, *self.notes), (1, 2, 3, 4, 5, 6, 7, 8))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        plain = {name: value for name, value in vars(self).items() if name not in ("optima", "budgets")}
        return {"sentence": self.sentence, "budgets": [asdict(budget) for budget in self.budgets], **plain}


def listed(names: Sequence[str]) -> str:
    """The names, and how many there are beyond eight.

    >>> listed([str(number) for number in range(10)])
    '0, 1, 2, 3, 4, 5, 6, 7 and 2 more'
    """
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def _percent(share: float | None) -> str:
    return "not computed" if share is None else f"{format_number(100 * share, 1, signed=True)}%"
