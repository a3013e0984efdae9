"""Which runs of a table count and where they belong: what is left out, doubled, or not to be compared.

Called by `blocks` for pairs and by `tasks` for scores. Everything that would make a comparison dishonest is refused
here by name (two runs in one place, mixed data, losses on other masks) or noted; nothing is dropped without a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.records import NEXT_TOKENS, OWN_MASKS

from .columns import columns_of, metric_path
from .exclusions import left_out_words, refuse_without_runs, without
from .run_status import check_words, is_finished, status_columns
from .typed_columns import names_of, numbers_of

if TYPE_CHECKING:
    import pandas as pd

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

EMPTY = "empty in every run of the table; fill it in, or name another"
"""What is wrong with a column that is there and holds nothing."""
_APART = {"block": "block", "level": "level, or as item where all levels share it", "task": "seed"}
"""As what a column that tells runs apart is named, by what the places of runs are called."""


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


def _refuse_absent(table: pd.DataFrame, column: str, name: str) -> None:
    """Refuse a column that the table does not have, or that is empty in every run that counts."""
    absent, empty = column not in table.columns, column in table.attrs.get("empty", ())
    if not absent and not (empty and table[column].isna().all()):
        return
    words = left_out_words(table)
    if table.empty and words:
        raise AnalysisError(f"{words}; no run is left to answer from")
    asked = "" if column == name else column  # where it is the default, no column is meant by something like it
    hint = did_you_mean(asked, [other for other in table.columns if table[other].notna().any()])
    what = f"not a column of the table; {hint} (--{name} COLUMN)" if absent else EMPTY
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
            f"or name the column that tells them apart as {_APART[role]}{_tidied(table)}"
        )
    return table, notes


def _tidied(table: pd.DataFrame) -> str:
    """The end of a message about runs that may share a name only since blanks were removed."""
    blanks = [note for note in table.attrs.get("notes", ()) if note.startswith("blanks ")]
    return f" ({'; '.join(blanks)})" if blanks else ""


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


def mixtures(table: pd.DataFrame) -> list[str]:
    notes = []
    for column, words in _MIXED.items():
        if column in table.columns and table[column].dropna().nunique() > 1:
            values = table[column].dropna().astype(str)
            if (values == table["_arm"][values.index]).all():
                continue  # it names the arms, and says nothing of what ran them
            if not values.str.fullmatch(_VERSIONS.get(column, ".*")).all():
                continue
            parts = table.dropna(subset=[column]).groupby(column)["_arm"].unique()
            shown = "; ".join(f"{str(value)[:40]} ({', '.join(arms)})" for value, arms in parts.items())
            notes.append(f"mixed {words}: {shown}")
    if "data_fingerprint" in table.columns and 0 < table["data_fingerprint"].isna().sum() < len(table):
        notes.append(f"{int(table['data_fingerprint'].isna().sum())} runs carry no data fingerprint")
    return notes


def _hashable(value: Any) -> bool:
    return not isinstance(value, (list, dict, set))
