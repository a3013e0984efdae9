"""Runs that are compared with a target value and not with each other. Called by `blocks`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import AnalysisError

from .typed_columns import label

if TYPE_CHECKING:
    import pandas as pd


def check_reference(baseline: str | None, target: float | None) -> None:
    """Refuse both or neither of what an arm can be compared with.

    Raises:
        AnalysisError: Also for a target that is not finite, and a baseline that is no text.
    """
    if baseline is not None and not isinstance(baseline, str):
        raise AnalysisError(f"baseline = {baseline!r} is no text, and arms are names: write '{label(baseline)}'")
    if target is not None and baseline is not None:
        raise AnalysisError(f"baseline = '{baseline}' and target = {target:g}: compare with one of them")
    if target is None and baseline is None:
        raise AnalysisError("there is neither a baseline nor a target to compare with")
    if target is not None and not math.isfinite(target):
        raise AnalysisError(f"target = {target:g} must be finite")


def unpaired(table: pd.DataFrame, arm: str, columns: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """A table for a comparison with a target, which needs no pairs: a row is a run where no column says which."""
    notes = []
    if arm == "arm" and arm not in table.columns:
        table = table.assign(arm="the only arm")
        notes.append("no column 'arm': all runs count as one arm")
    if columns == ["seed"] and "seed" not in table.columns:
        table = table.assign(seed=[f"row {number}" for number in range(1, len(table) + 1)])
        notes.append("no column 'seed': every row counts as a run of its own")
    return table, notes
