"""From a table of runs to paired values: which run stands in which block, what is missing, what must not be compared.

Called by `significance`, `sequential` and, for scores, by the room `tasks`. Everything that would make a pairing
dishonest is refused here by name (two runs in one place, mixed data, losses on other masks, unequal budgets) or stated
in `Pairing.notes`; nothing is dropped without a line about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import resolve_direction
from stackwise_ray.core.quantities import format_share
from stackwise_ray.core.records import NEXT_TOKENS, OWN_MASKS

from .block_order import BY_ROWS, block_order
from .cell_numbers import is_plain_number
from .columns import columns_of, metric_path
from .exclusions import left_out_words, lost_places, refuse_without_runs, without
from .run_status import check_words, is_finished, status_columns
from .typed_columns import name_of, names_of, numbers_of

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = ("flops", "tokens", "wall_seconds", "steps", "peak_bytes")
"""What may have to be equal, each the name of a metric."""
_MIXED = {
    "device": "devices",
    "backend": "backends",
    "cuda": "versions of CUDA",
    "driver": "drivers",
    "gpus": "numbers of GPUs",
    "device_memory_bytes": "amounts of device memory",
    "gpu_share": "shares of a GPU",
    "version": "versions of stackwise_ray",
    "torch": "versions of torch",
    "git": "commits",
}

_VERSIONS = {"cuda": r"\d+(\.\d+)+", "driver": r"\d+(\.\d+)+"}
"""What values of a column look like whose name a stranger may have given to something else."""

_SPEEDS = ("throughput/", "time/")
"""What depends on the machine as much as on the model."""

EMPTY = "empty in every run of the table; fill it in, or name another"
"""What is wrong with a column that is there and holds nothing."""
_APART = {"block": "block", "level": "level, or as item where all levels share it", "task": "seed"}
"""As what a column that tells runs apart is named, by what the places of runs are called."""


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
        baseline: Name of the baseline arm.
        values: {arm: {block: value}}, the baseline first, then the arms in the order of the table; finite values only.
        missing: Blocks of the sweep that an arm lacks.
        budgets: The budget that was checked in every pair and found equal; None where unequal ones were allowed, or
            where some pair has none on record, with the reason in `notes`.
        notes: What a reader must know beside the verdict.
        order: What the blocks are in the order of, in words.
    """

    baseline: str
    values: dict[str, dict[str, float]]
    missing: tuple[Missing, ...]
    budgets: str | None
    notes: tuple[str, ...]
    order: str = BY_ROWS

    def pairs(self, arm: str) -> tuple[list[str], list[float], list[float]]:
        """Complete blocks of `arm` and the baseline, with the values of both."""
        ours, theirs = self.values[arm], self.values[self.baseline]
        blocks = [block for block in theirs if block in ours]
        return blocks, [ours[block] for block in blocks], [theirs[block] for block in blocks]

    def family(self, declared: int | None) -> tuple[int, tuple[str, ...]]:
        """Over how many arms to correct, and a note where some of the `declared` are not here (None: those here).

        Raises:
            AnalysisError: Fewer were declared than there are.
        """
        arms = list(self.values)[1:]
        if declared is None or declared == len(arms):
            return len(arms), ()
        if declared < len(arms):
            raise AnalysisError(f"family = {declared} is below the {len(arms)} arms of the table: {', '.join(arms)}")
        return declared, (f"{declared - len(arms)} of the {declared} arms have no run yet, and count in the level",)


def pair(
    table: pd.DataFrame,
    metric: str,
    baseline: str,
    *,
    arm: str,
    block: str | Sequence[str],
    equal: str | None,
    tolerance: float,
    ordered: bool = False,
) -> Pairing:
    """The runs of `table` as paired values.

    Args:
        ordered: Whether the blocks are put in the order in which they came, which `Pairing.order` then says.

    Raises:
        AnalysisError: A column or arm that is not there, two differing runs in one place, mixed data fingerprints,
            unequal budgets, or text where numbers should be.
    """
    block_columns = [block] if isinstance(block, str) else list(block)
    usable, notes = placed(table, metric, arm, block_columns)
    lost = lost_places(usable, arm, block_columns, measured_in(metric, table))
    reasons = {(name_of(usable, arm, cells[arm]), _place(usable, block_columns, cells)): why for cells, why in lost}
    arms = list(dict.fromkeys([*usable["_arm"], *(name for name, _ in reasons)]))
    if baseline not in arms:
        raise AnalysisError(f"baseline = '{baseline}' is not an arm of the table; {did_you_mean(baseline, arms)}")
    if len(arms) < 2:
        raise AnalysisError(f"there is only one arm, '{baseline}', in column '{arm}': nothing to compare it with")
    refuse_incomparable(usable, metric)
    notes += _same_numbers(arms) + mixtures(usable) + _hampered(usable, metric, equal)
    budgets, budget_notes = _check_budgets(usable, baseline, equal, tolerance)
    order = block_order(usable, metric, block_columns) if ordered else None
    if order is not None:
        usable = usable.iloc[usable["_block"].map(order.blocks.index).argsort(kind="stable")]
    values: dict[str, dict[str, float]] = {name: {} for name in sorted(arms, key=lambda name: name != baseline)}
    for name, place, value in zip(usable["_arm"], usable["_block"], usable["_value"], strict=True):
        if math.isfinite(value):
            values[name][place] = float(value)
        else:
            reasons[name, place] = f"{metric} is {value}"
    words = BY_ROWS if order is None else order.words
    return Pairing(baseline, values, _missing(values, reasons), budgets, tuple(notes + budget_notes), words)


def placed(
    table: pd.DataFrame, metric: str, arm: str, columns: Sequence[str], role: str = "block"
) -> tuple[pd.DataFrame, list[str]]:
    """The runs that count, one for each arm and place, with `_arm`, `_block` and `_value` (nan where not measured).

    Args:
        columns: Their values together are the place of a run.
        role: What they are called in a message.

    Returns:
        The table, its exclusions complete, and notes for the reader.
    """
    measured = measured_in(metric, table)
    for column, name in ((measured, "metric"), (arm, "arm"), *((column, role) for column in columns)):
        _refuse_absent(table, column, name)
    refuse_without_runs(table)
    usable, notes = _usable(table)
    refuse_without_runs(usable)
    if measured != metric:
        notes.append(f"{metric} is the column '{measured}' of the table")
    for column in (arm, *columns):
        empty = usable[column].isna()
        if empty.any():
            raise AnalysisError(
                f"column '{column}' is empty in {int(empty.sum())} of {len(usable)} runs (first: row "
                f"{usable.index[empty][0]}), so nobody knows where they belong; fill it in, or leave these runs out "
                f"(--drop-missing)"
            )
    attrs = usable.attrs
    names = [names_of(usable, column, block=role != "task") for column in columns]
    usable = usable.assign(_arm=names_of(usable, arm), _block=[" × ".join(row) for row in zip(*names, strict=True)])
    usable, duplicates = _single(usable, measured, arm, role)
    where = [
        f"{arm} '{name}', {role} {place}, row {index}"
        for name, place, index in zip(usable["_arm"], usable["_block"], usable.index, strict=True)
    ]
    usable = usable.assign(_value=numbers_of(usable, measured, where))
    usable.attrs = attrs
    return usable, notes + duplicates


def measured_in(metric: str, table: pd.DataFrame) -> str:
    """The column of the table that holds a metric; the metric's own name where none does."""
    return next(iter(columns_of(metric, table.columns)), metric)


def _place(table: pd.DataFrame, columns: Sequence[str], cells: Mapping[str, Any]) -> str:
    return " × ".join(name_of(table, column, cells[column], block=True) for column in columns)


def _refuse_absent(table: pd.DataFrame, column: str, name: str) -> None:
    """Refuse a column that the table does not have, or that is empty in every run that counts."""
    absent, empty = column not in table.columns, column in table.attrs.get("empty", ())
    if not absent and not (empty and table[column].isna().all()):
        return
    words = left_out_words(table)
    if table.empty and words:
        raise AnalysisError(f"{words}; no run is left to answer from")
    hint = did_you_mean(column, [other for other in table.columns if table[other].notna().any()])
    what = f"not a column of the table; {hint}" if absent else EMPTY
    raise AnalysisError(f"{name} = '{column}' is {what}" + (f" ({words})" if words else ""))


def _usable(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Finished replicates of a table that knows roles and states; everything of one that does not."""
    notes = list(table.attrs.get("notes", ()))
    states = status_columns(table.columns)
    for column in states:
        check_words(column, table[column].dropna())
    for column, by in (("role", "role"), *((column, "status") for column in states)):
        if column not in table.columns or table.empty:
            continue
        known = table[column].notna()
        is_other = known & (table[column] != "replicate" if by == "role" else ~table[column].map(is_finished).eq(True))
        if by == "role" and is_other.all():
            continue  # a table of search or tuning trials alone: the caller asked for these
        for value, count in table.loc[is_other, column].value_counts().items():
            notes.append(f"{count} run{'s' if count > 1 else ''} left out: {by} {value}")
        table = _without_states(table, is_other, column, by)
    return table, notes


def _without_states(table: pd.DataFrame, dropped: pd.Series[bool], column: str, by: str) -> pd.DataFrame:
    """The table without these runs, each listed with its state and the reason that it gives."""
    reasons = table["reason"] if "reason" in table.columns else [None] * len(table)
    whys = [
        f"{by} {state}" + (f": {reason}" if isinstance(reason, str) else "") if out else ""
        for state, reason, out in zip(table[column], reasons, dropped, strict=True)
    ]
    why_of = dict(zip(table.index, whys, strict=True))
    for why in dict.fromkeys(why for why in whys if why):
        table = without(table, table.index.map(why_of) == why, by, why)
    return table


def _single(table: pd.DataFrame, metric: str, arm: str, role: str) -> tuple[pd.DataFrame, list[str]]:
    """One run for each arm and place: exact copies are dropped with a note, anything else is refused."""
    columns = [name for name in table.columns if table[name].map(_hashable).all()]
    copies = table.duplicated(subset=columns)
    notes = []
    if copies.any():
        names = sorted(
            {f"{a} in block {b}" for a, b in zip(table["_arm"][copies], table["_block"][copies], strict=True)}
        )
        notes.append(f"{int(copies.sum())} exact copies of a run left out: {', '.join(names)}")
        table = table[~copies]
    twice = table[table.duplicated(subset=["_arm", "_block"], keep=False)]
    if len(twice):
        name, place = twice["_arm"].iloc[0], twice["_block"].iloc[0]
        same = twice[(twice["_arm"] == name) & (twice["_block"] == place)]
        shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in same[metric][:3])
        raise AnalysisError(
            f"{arm} '{name}' has {len(same)} different runs in block {place} ({metric} = {shown}); keep one of them, "
            f"or name the column that tells them apart as {_APART[role]}"
        )
    return table, notes


def refuse_incomparable(table: pd.DataFrame, metric: str) -> None:
    """Refuse values that answer different questions, as far as the table records it: other data, or other masks."""
    _refuse_mixed_data(table)
    if metric_path(metric) not in OWN_MASKS or "loss_kind" not in table.columns:
        return
    arms = table.dropna(subset=["loss_kind"]).groupby("loss_kind")["_arm"].unique()
    if len(arms) < 2:
        return
    shown = "; ".join(f"{kind} ({', '.join(names)})" for kind, names in arms.items())
    fix = "so keep the arms of one"
    if NEXT_TOKENS not in arms.index:
        fix = "so compare validation/masked_loss, which is on the same masks for all, or keep the arms of one"
    raise AnalysisError(f"{metric} is of what each arm was asked, and that differs: {shown}; {fix}")


def _refuse_mixed_data(table: pd.DataFrame) -> None:
    if "data_fingerprint" not in table.columns:
        return
    prints = table["data_fingerprint"].dropna()
    if prints.nunique() > 1:
        where = [
            f"{str(value)[:12]} ({', '.join(dict.fromkeys(table['_arm'][part.index]))})"
            for value, part in prints.groupby(prints)
        ]
        raise AnalysisError(
            f"the runs used different data: fingerprints {', '.join(where)}; losses on different data cannot be "
            f"compared, so keep the runs of one"
        )


def _same_numbers(arms: Sequence[str]) -> list[str]:
    """A note on arms whose names are one number written in two ways."""
    found: dict[float, list[str]] = {}
    for name in arms:
        if is_plain_number(name):
            found.setdefault(float(name), []).append(name)
    return [f"{' and '.join(same)} are different arms, as they are written" for same in found.values() if len(same) > 1]


def mixtures(table: pd.DataFrame) -> list[str]:
    notes = []
    for column, words in _MIXED.items():
        if column in table.columns and table[column].dropna().nunique() > 1:
            values = table[column].dropna().astype(str)
            if not values.str.fullmatch(_VERSIONS.get(column, ".*")).all():
                continue
            parts = table.dropna(subset=[column]).groupby(column)["_arm"].unique()
            shown = "; ".join(f"{str(value)[:40]} ({', '.join(arms)})" for value, arms in parts.items())
            notes.append(f"mixed {words}: {shown}")
    if "data_fingerprint" in table.columns and 0 < table["data_fingerprint"].isna().sum() < len(table):
        notes.append(f"{int(table['data_fingerprint'].isna().sum())} runs carry no data fingerprint")
    return notes


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


def _missing(values: dict[str, dict[str, float]], reasons: dict[tuple[str, str], str]) -> tuple[Missing, ...]:
    blocks = dict.fromkeys([*(place for cells in values.values() for place in cells), *(place for _, place in reasons)])
    return tuple(
        Missing(name, place, reasons.get((name, place), "no such run in the table"))
        for name in values
        for place in blocks
        if place not in values[name]
    )


def resolve(metric: str, direction: Direction | None, assumed: bool = False) -> tuple[Direction, bool]:
    """Which way of a metric is better, and whether that is an assumption: what is given, else what is known of it."""
    found, open_ = resolve_direction(metric, direction)
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


def _hashable(value: Any) -> bool:
    return not isinstance(value, (list, dict, set))
