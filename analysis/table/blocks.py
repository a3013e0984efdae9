"""From a table of runs to paired values: which run stands in which block, what is missing, what must not be compared.

Called by `significance` and `sequential`; which runs count is decided in `placement`. Unequal budgets are refused here,
and what a reader must know is in `Pairing.notes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import resolve_direction
from stackwise_ray.core.quantities import format_share

from .block_order import BY_ROWS, block_order
from .cell_numbers import is_plain_number
from .columns import columns_of, metric_path
from .exclusions import lost_places
from .placement import measured_in, mixtures, placed, refuse_incomparable
from .targets import check_reference, unpaired
from .typed_columns import name_of, numbers_of

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = ("flops", "tokens", "wall_seconds", "steps", "peak_bytes")
"""What may have to be equal, each the name of a metric."""
_SPEEDS = ("throughput/", "time/")
"""What depends on the machine as much as on the model."""


@dataclass(frozen=True)
class Missing:
    """A block in which an arm has no usable value, and why."""

    arm: str
    block: str
    reason: str


@dataclass(frozen=True)
class Pairing:
    """Values by arm and block, checked.

    Attributes:
        baseline: Name of the baseline arm; None: a target is compared with.
        target: The value that every arm is compared with; None: the baseline is.
        values: {arm: {block: value}}, the baseline first, then the arms in the order of the table; finite values only.
        missing: Blocks of the sweep that an arm lacks.
        budgets: The budget that was checked in every pair and found equal; None where unequal ones were allowed, or
            where some pair has none on record, with the reason in `notes`.
        notes: What a reader must know beside the verdict.
        order: What the blocks are in the order of, in words.
    """

    baseline: str | None
    target: float | None
    values: dict[str, dict[str, float]]
    missing: tuple[Missing, ...]
    budgets: str | None
    notes: tuple[str, ...]
    order: str = BY_ROWS

    @property
    def arms(self) -> list[str]:
        """The arms that are compared."""
        return [name for name in self.values if name != self.baseline]

    @property
    def baseline_values(self) -> dict[str, float]:
        """The baseline's value by block; none of a target."""
        return {} if self.baseline is None else dict(self.values[self.baseline])

    def lost(self, arm: str) -> list[Missing]:
        """The blocks that `arm` or the baseline lacks."""
        return [item for item in self.missing if item.arm in (arm, self.baseline)]

    def pairs(self, arm: str) -> tuple[list[str], list[float], list[float]]:
        """Complete blocks of `arm` and the baseline (of a target: all of the arm's), with the values of both."""
        ours = self.values[arm]
        theirs = self.baseline_values if self.target is None else dict.fromkeys(ours, self.target)
        blocks = [block for block in theirs if block in ours]
        return blocks, [ours[block] for block in blocks], [theirs[block] for block in blocks]

    def family(self, declared: int | None) -> tuple[int, tuple[str, ...]]:
        """Over how many arms to correct, and a note where some of the `declared` are not here (None: those here).

        Raises:
            AnalysisError: Fewer were declared than there are.
        """
        arms = self.arms
        if declared is None or declared == len(arms):
            return len(arms), ()
        if declared < len(arms):
            raise AnalysisError(f"family = {declared} is below the {len(arms)} arms of the table: {', '.join(arms)}")
        return declared, (f"{declared - len(arms)} of the {declared} arms have no run yet, and count in the level",)


def pair(
    table: pd.DataFrame,
    metric: str,
    baseline: str | None,
    *,
    arm: str,
    block: str | Sequence[str],
    equal: str | None,
    tolerance: float,
    target: float | None = None,
    ordered: bool = False,
) -> Pairing:
    """The runs of `table` as paired values.

    Args:
        target: What every run is compared with, in place of a baseline; no budget is then to be equal.
        ordered: Whether the blocks are put in the order in which they came, which `Pairing.order` then says.

    Raises:
        AnalysisError: A column or arm that is not there, two differing runs in one place, mixed data fingerprints,
            unequal budgets, or text where numbers should be; neither or both of baseline and target.
    """
    check_reference(baseline, target)
    block_columns = [block] if isinstance(block, str) else list(block)
    alone: list[str] = []
    named = list(block_columns)
    if target is not None:
        named = [column for column in block_columns if column in table.columns]
        table, alone = unpaired(table, arm, block_columns)
    usable, notes = placed(table, metric, arm, block_columns)
    lost = lost_places(usable, arm, block_columns, measured_in(metric, table))
    reasons = {(name_of(usable, arm, cells[arm]), _place(usable, block_columns, cells)): why for cells, why in lost}
    arms = list(dict.fromkeys([*usable["_arm"], *(name for name, _ in reasons)]))
    if not arms:
        raise AnalysisError(f"no run of the table can be used: {'; '.join(notes) or 'it is empty'}")
    if baseline is not None and baseline not in arms:
        raise AnalysisError(f"baseline = '{baseline}' is not an arm of the table; {did_you_mean(baseline, arms)}")
    if baseline is not None and len(arms) < 2:
        raise AnalysisError(f"there is only one arm, '{baseline}', in column '{arm}': nothing to compare it with")
    refuse_incomparable(usable, metric)
    notes += _same_numbers(arms) + mixtures(usable) + _hampered(usable, metric, equal)
    if baseline is None:
        budgets, budget_notes = None, [*alone, *_free_starts(usable)]
    else:
        budgets, budget_notes = _check_budgets(usable, baseline, equal, tolerance)
    order = block_order(usable, metric, named) if ordered else None
    if order is not None:
        place = {name: index for index, name in enumerate(order.blocks)}
        usable = usable.iloc[usable["_block"].map(place).argsort(kind="stable")]
    values: dict[str, dict[str, float]] = {name: {} for name in sorted(arms, key=lambda name: name != baseline)}
    for name, place, value in zip(usable["_arm"], usable["_block"], usable["_value"], strict=True):
        if math.isfinite(value):
            values[name][place] = float(value)
        else:
            reasons[name, place] = f"{metric} is {value}"
    missing = _missing(values, reasons, paired=baseline is not None)
    words = BY_ROWS if order is None else order.words
    return Pairing(baseline, target, values, missing, budgets, tuple(notes + budget_notes), words)


def _place(table: pd.DataFrame, columns: Sequence[str], cells: Mapping[str, Any]) -> str:
    return " × ".join(name_of(table, column, cells[column], block=True) for column in columns)


def _same_numbers(arms: Sequence[str]) -> list[str]:
    """A note on arms whose names are one number written in two ways."""
    found: dict[Decimal, list[str]] = {}
    for name in arms:
        if is_plain_number(name):
            found.setdefault(Decimal(name), []).append(name)
    return [f"{' and '.join(same)} are different arms, as they are written" for same in found.values() if len(same) > 1]


def _hampered(table: pd.DataFrame, metric: str, equal: str | None) -> list[str]:
    """What a reader must know of runs whose speed is not that of a GPU of their own that computes their type."""
    if equal != "wall_seconds" and not metric_path(metric).startswith(_SPEEDS):
        return []
    import pandas as pd

    notes = []
    if "gpu_share" in table.columns:
        shares = pd.to_numeric(table["gpu_share"], errors="coerce")  # a stranger's column may hold words
        sharing = dict.fromkeys(table.loc[shares < 1, "_arm"])
        if sharing:
            notes.append(
                f"asked for a share of a GPU, so that the speed depends on what ran beside: {', '.join(sharing)}"
            )
    if "computes_slowly" in table.columns:
        for kind, part in table.dropna(subset=["computes_slowly"]).groupby("computes_slowly"):
            notes.append(f"ran on a GPU that computes {kind} slowly: {', '.join(dict.fromkeys(part['_arm']))}")
    return notes


def _check_budgets(
    table: pd.DataFrame, baseline: str, equal: str | None, tolerance: float
) -> tuple[str | None, list[str]]:
    """The budget that every pair was found equal in, and notes; refuses where they differ block by block."""
    if equal is None:
        return None, ["budgets not required to be equal", *_free_starts(table)]
    column = next((name for name in columns_of(equal, table.columns) if table[name].notna().any()), None)
    if column is None:
        if equal not in BUDGETS:
            raise AnalysisError(f"equal = '{equal}' is not a budget; {did_you_mean(equal, BUDGETS)}")
        return None, [f"budgets not recorded ({equal}): whether they are equal was not checked"]
    spent = _spent(table, column, equal)
    reference = spent.set_axis(table["_block"])[(table["_arm"] == baseline).to_numpy()]
    notes, unequal, unknown, pairs = _free_starts(table), [], 0, 0
    for name, place, value in zip(table["_arm"], table["_block"], spent, strict=True):
        base = float(reference.get(place, math.nan))
        if name != baseline and place in reference.index:
            pairs += 1
            if not (math.isfinite(value) and math.isfinite(base)):
                unknown += 1
            elif abs(value - base) > tolerance * abs(base):
                unequal.append((name, place, value, base))
    if unequal:
        name, place, value, base = max(unequal, key=lambda item: abs(item[2] / item[3] - 1) if item[3] else math.inf)
        arms = ", ".join(dict.fromkeys(item[0] for item in unequal))
        raise AnalysisError(
            f"{equal} differ by more than {format_share(tolerance)} from those of '{baseline}' (arms {arms}; most: "
            f"{name} in block {place}, {value:.6g} against {base:.6g}); compare at equal budgets, or say that "
            f"none must be equal (equal=None; --equal none)"
        )
    if unknown:
        others = f"; equal within {format_share(tolerance)} in the others" if unknown < pairs else ""
        notes.append(f"budgets not recorded ({equal}) in {unknown} of the {pairs} pairs: not checked there{others}")
    return (None if unknown or not pairs else equal), notes


def _spent(table: pd.DataFrame, column: str, equal: str) -> pd.Series:
    """The budget that each run used, with the cost of the weights that it began from where its budget paid for them."""
    spent = numbers_of(table, column)
    if {"init/charged", f"init/{equal}"} <= set(table.columns):
        spent = spent + numbers_of(table, f"init/{equal}").where(numbers_of(table, "init/charged") == 1, 0.0)
    return spent


def _free_starts(table: pd.DataFrame) -> list[str]:
    """A note on runs that began from weights whose cost no budget paid for."""
    free = table[numbers_of(table, "init/charged") == 0] if "init/charged" in table.columns else table.iloc[:0]
    arms = ", ".join(map(str, dict.fromkeys(free["_arm"])))
    return [f"the cost of the initial weights is not charged: {arms}"] if arms else []


def _missing(
    values: dict[str, dict[str, float]], reasons: dict[tuple[str, str], str], *, paired: bool
) -> tuple[Missing, ...]:
    if not paired:  # an arm needs no block of another
        return tuple(Missing(name, place, why) for (name, place), why in reasons.items())
    blocks = dict.fromkeys([*(place for cells in values.values() for place in cells), *(place for _, place in reasons)])
    return tuple(
        Missing(name, place, reasons.get((name, place), "no such run in the table"))
        for name in values
        for place in blocks
        if place not in values[name]
    )


def resolve(
    table: pd.DataFrame, metric: str, direction: Direction | None, assumed: bool = False
) -> tuple[Direction, bool]:
    """Which way of a metric is better, and whether that is an assumption.

    What is given counts; then what the source says (the goal of a study, `higher_is_better` of a harness); then what
    is known of the metric.
    """
    found, open_ = resolve_direction(metric, direction or table.attrs.get("directions", {}).get(metric))
    return found, assumed or open_


def check_level(alpha: float) -> None:
    """Refuse a level that no test is decided at."""
    if not 0 < alpha < 0.5:
        raise AnalysisError(f"alpha = {alpha:g} must lie between 0 and 0.5")


def check_goal(direction: str, margin: float | None, tolerance: float = 0.0) -> None:
    """Refuse a direction that is none, a margin that no difference lies within, or a tolerance that is no share."""
    if direction not in ("minimize", "maximize"):
        hint = did_you_mean(direction, ("minimize", "maximize"))
        raise AnalysisError(f"direction = '{direction}' is not known; {hint}")
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise AnalysisError(f"margin = {margin:g} must be positive and finite")
    if not 0 <= tolerance < 1:
        raise AnalysisError(f"tolerance = {tolerance:g} must lie between 0 and 1 (0.01 is one percent)")
