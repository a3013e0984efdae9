"""Runs that lie far from what is expected of them: named above a result, and left out only on request.

Called by whatever shows a result; `outlier_search` finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .exclusions import without
from .targets import unpaired
from .typed_columns import names_of

if TYPE_CHECKING:
    import pandas as pd

_MOST_LINES = 6


@dataclass(frozen=True)
class Outlier:
    """A run that lies far from what is expected of it.

    Attributes:
        run: How the run is named.
        value: What it measured.
        expected: What was expected.
        deviations: The distance in robust standard deviations, > 0 above.
        of: What it was expected from: "the median of its arm", "the law", "its neighbours".
    """

    run: str
    value: float
    expected: float
    deviations: float
    of: str

    @property
    def far(self) -> str:
        """The value and where it lies."""
        side = "above" if self.deviations > 0 else "below"
        times = f"{abs(self.deviations):.0f}" if abs(self.deviations) < 1e4 else f"{abs(self.deviations):.0e}"
        return f"{self.value:.4g} is {times} robust standard deviations {side} {self.of} ({self.expected:.4g})"

    def __str__(self) -> str:
        return f"{self.run}: {self.far}"


def run_name(arm: str, block: str, place: str) -> str:
    """The name of a run in a comparison."""
    return f"{arm}, {block} {place}"


def names_of_runs(table: pd.DataFrame, arm: str, block: str | Sequence[str]) -> list[str]:
    """The names of the runs of a table in a comparison, in the order of its rows."""
    columns = [block] if isinstance(block, str) else list(block)
    table, _ = unpaired(table, arm, columns)
    parts = [names_of(table, column, block=True) for column in columns]
    places = (" × ".join(part) for part in zip(*parts, strict=True))
    what = " × ".join(columns)
    return [run_name(name, what, place) for name, place in zip(names_of(table, arm), places, strict=True)]


def outlier_lines(outliers: Sequence[Outlier], of: int) -> tuple[str, ...]:
    """What stands above a result: each run that is far off, and that it counts all the same."""
    if not outliers:
        return ()
    does = "are far off and still count" if len(outliers) > 1 else "is far off and still counts"
    lines = [f"  {item}" for item in outliers[:_MOST_LINES]]
    more = len(outliers) - _MOST_LINES
    head = f"{len(outliers)} of {of} runs {does} (--drop-outliers leaves out what is listed):"
    return (head, *lines, *([f"  and {more} more"] if more > 0 else []))


def plain_outliers(outliers: Iterable[Outlier]) -> dict[str, list[dict[str, Any]]]:
    """The part of a result's plain data that lists its outliers."""
    return {"outliers": [asdict(item) for item in outliers]}


def leave_out(table: pd.DataFrame, names: Sequence[str], outliers: Iterable[Outlier]) -> pd.DataFrame:
    """The table without these runs, each listed among the exclusions.

    Args:
        names: The names of the rows of the table, as the outliers have them.
    """
    import pandas as pd

    for item in outliers:
        dropped = pd.Series([name == item.run for name in names], index=table.index)
        names = [name for name in names if name != item.run]
        table = without(table, dropped, "outlier", f"{item.far}, left out as asked")
    return table
