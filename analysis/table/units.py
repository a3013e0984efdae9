"""In which units a table counts: conversions that were asked for, and the refusal of sizes that can be no counts.

Laws are about counts of parameters, tokens and FLOPs, and about nats. A table in millions and billions fits as well,
and its answers are wrong by these factors, so `check_units` refuses what no model is: called by `law_table` for tables
that our sweeps did not write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from .exclusions import Unchanged
from .typed_columns import COUNTS, Texts, numbers_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_SCALES = {"1": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21}
_FLOPS = {f"{prefix}FLOPs": scale for prefix, scale in _SCALES.items() if prefix not in ("1", "B", "k")} | {
    "PFdays": 8.64e19,
    "PF-days": 8.64e19,
}
_LOSSES = {"1": 1.0, "nats": 1.0, "bits": math.log(2)}
_TIMES = {"1": 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "days": 86400.0}
_FEWEST_PARAMS = 1_000
_FEWEST_TOKENS_PER_PARAM = 1e-3
_LARGEST_IN_BILLIONS = 2_000
"""No model has more parameters, so a table that goes further is not in billions."""
_TOTAL_FACTORS = (1.0, 100.0)
_NON_EMBEDDING_FACTORS = (1.0, 1000.0)
"""FLOPs per parameter and token: 6 for the parameters in use, and a large vocabulary alone adds some hundred."""


def convert_units(table: pd.DataFrame, units: Mapping[str, str]) -> pd.DataFrame:
    """The table with columns in counts, nats and seconds, from the units that it is said to be in.

    Args:
        units: By column, its unit: params="M", tokens="B", flops="PFdays" or "TFLOPs", loss="bits". "1" says that a
            column is in counts already, whatever it looks like.

    Raises:
        AnalysisError: A column that is not there, or a unit that is none of it.
    """
    converted, notes = {}, []
    for column, unit in units.items():
        if column not in table.columns:
            raise AnalysisError(
                f"units: '{column}' is not a column of the table; {did_you_mean(column, table.columns)}"
            )
        known = _units_of(column)
        if unit not in known:
            raise AnalysisError(f"units: {column} = {unit} is no unit of it; {did_you_mean(unit, known)}")
        values = numbers_of(table, column)
        converted[column] = values * known[unit]
        into = "nats" if unit == "bits" else "seconds" if known is _TIMES else "counts"
        notes.append(
            f"{column} is in counts, as said"
            if unit == "1"
            else f"{column} converted from {unit} to {into} (× {known[unit]:.6g})"
        )
    changed = table.assign(**converted)
    texts = {name: kept for name, kept in table.attrs.get("texts", {}).items() if name not in converted}
    changed.attrs = {
        **table.attrs,
        "notes": Unchanged([*table.attrs.get("notes", ()), *notes]),
        "units": {**table.attrs.get("units", {}), **units},
        "texts": Texts(texts),
    }
    return changed


def check_units(table: pd.DataFrame, columns: Mapping[str, NDArray[np.float64]], labels: tuple[str, ...]) -> None:
    """Refuse sizes that can be no counts, with the likely unit; what `--units` named is meant.

    Args:
        columns: Positive values by name, of those of params, tokens and flops that a law uses.
        labels: How to name each run.

    Raises:
        AnalysisError: Params below 1,000, tokens below a thousandth of the params, or FLOPs per parameter and token
            outside 1 to 100 (1 to 1,000 where only the non-embedding parameters are known).
    """
    import numpy as np

    if table.attrs.get("ours") or {"trial_id", "role"} <= set(table.columns):
        return
    said = set(table.attrs.get("units", {}))
    params, tokens, flops = (columns.get(name) for name in ("params", "tokens", "flops"))
    if params is not None and "params" not in said and (params < _FEWEST_PARAMS).any():
        _refuse("params", params, params < _FEWEST_PARAMS, labels, "a model has thousands of parameters at least")
    if params is None or tokens is None:
        return
    if not {"params", "tokens"} <= said and (tokens < _FEWEST_TOKENS_PER_PARAM * params).any():
        few = tokens < _FEWEST_TOKENS_PER_PARAM * params
        _refuse("tokens", tokens, few, labels, "fewer than one per thousand parameters", scale=params)
    if flops is None or {"params", "tokens", "flops"} <= said:
        return
    total = "params_total" in table.columns and table["params_total"].notna().all()
    sizes = numbers_of(table, "params_total").to_numpy() if total else params
    low, high = _TOTAL_FACTORS if total else _NON_EMBEDDING_FACTORS
    factor = flops / (sizes * tokens)
    odd = ~((factor >= low) & (factor <= high))
    if odd.any():
        first = int(np.flatnonzero(odd)[0])
        raise AnalysisError(
            f"flops / ({'total params' if total else 'params'} · tokens) is {factor[first]:.3g} ({labels[first]}; "
            f"{int(odd.sum())} of {len(factor)} runs), where a run spends about 6 and {low:g} to {high:g} at most: a "
            f"column is in another unit{_likely_factor(float(np.median(factor)))}; say so (--units params=M tokens=B "
            f"flops=PFdays; =1 where the column is in counts)"
        )


def _units_of(column: str) -> Mapping[str, float]:
    if column.rpartition("/")[2] in ("loss", "masked_loss"):
        return _LOSSES
    if column in ("wall_seconds", "attempt_seconds"):
        return _TIMES
    return _SCALES | _FLOPS if column == "flops" or column not in COUNTS else _SCALES


def _refuse(
    column: str,
    values: NDArray[np.float64],
    odd: NDArray[np.bool_],
    labels: tuple[str, ...],
    why: str,
    scale: NDArray[np.float64] | None = None,
) -> None:
    import numpy as np

    first = int(np.flatnonzero(odd)[0])
    likely, unit = _likely_params(values) if scale is None else _likely_tokens(float(np.median(values / scale)))
    raise AnalysisError(
        f"column '{column}' is {values[first]:g} ({labels[first]}; {int(odd.sum())} of {len(values)} runs): {why}, so "
        f"it is likely in {likely}; say so (--units {column}={unit}, or {column}=1 where it is meant)"
    )


def _likely_params(values: NDArray[np.float64]) -> tuple[str, str]:
    """The unit in which sizes below a thousand are models of a usual size, in words and as it is written."""
    small = values.min() < 1 or values.max() < 5
    if small and values.max() > _LARGEST_IN_BILLIONS:
        return "millions", "M"
    return ("billions", "B") if small else ("millions", "M")


def _likely_tokens(per_param: float) -> tuple[str, str]:
    """The unit that brings tokens nearest to 20 per parameter, in words and as it is written."""
    units = (("thousands", "K"), ("millions", "M"), ("billions", "B"))
    return min(units, key=lambda unit: abs(math.log(per_param * _SCALES[unit[1]] / 20)))


def _likely_factor(factor: float) -> str:
    """What would bring FLOPs per parameter and token to 6, where one power of a thousand does."""
    for name, scale in (("thousands", 1e3), ("millions", 1e6), ("billions", 1e9)):
        if 1 <= factor / scale <= 100:
            return f" (likely params or tokens in {name})"
    for name, scale in (("GFLOPs", 1e9), ("TFLOPs", 1e12), ("PFLOPs", 1e15), ("EFLOPs", 1e18), ("PFdays", 8.64e19)):
        if 1 <= factor * scale <= 40:
            return f" (likely flops in {name})"
    return ""


def parse_units(words: list[str]) -> dict[str, str]:
    """Units as they are written on the command line: params=M tokens=B, apart or in one word.

    Raises:
        AnalysisError: A word that is no NAME=UNIT, or a column twice.
    """
    found: dict[str, str] = {}
    for word in " ".join(words).replace(",", " ").split():
        column, sign, unit = word.partition("=")
        if not (column and sign and unit):
            raise AnalysisError(f"--units '{word}': write COLUMN=UNIT, for example params=M")
        if column in found:
            raise AnalysisError(f"--units names '{column}' twice: {found[column]} and {unit}")
        found[column] = unit
    return found
