"""From a table of runs to scores by arm and task: what `ranking` and `aggregation` share.

Which runs count and what makes them incomparable is decided in `placement`; a fingerprint may differ between tasks
here, never within one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..table.placement import mixtures, placed, refuse_incomparable
from ..table.typed_columns import names_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoreTable:
    """Runs by arm and task.

    Attributes:
        values: {arm: {task: one value per run}}, in the order of the table.
        tasks: Every task of the table.
        lost: {(arm, task): why the cell must not be used: a value is not finite, or there is none}.
        notes: What a reader must know.
    """

    values: dict[str, dict[str, list[float]]]
    tasks: tuple[str, ...]
    lost: dict[tuple[str, str], str]
    notes: tuple[str, ...]


def task_scores(table: pd.DataFrame, metric: str, task: str, arm: str, seed: str) -> ScoreTable:
    """The runs of `table` by arm and task; `seed` tells the runs of a cell apart where that column is there.

    A cell with a value that is not finite is lost as a whole: the mean of the runs that survived is not its mean.

    Raises:
        AnalysisError: A column that is not there, differing runs in one place, mixed data within a task, or text
            where numbers should be.
    """
    columns = [task, seed] if seed in table.columns else [task]
    usable, notes = placed(table, metric, arm, columns, role="task")
    usable = usable.assign(_task=names_of(usable, task))
    for _, part in usable.groupby("_task"):
        refuse_incomparable(part, metric)
    arms, tasks = (tuple(dict.fromkeys(usable[name])) for name in ("_arm", "_task"))
    values: dict[str, dict[str, list[float]]] = {name: {} for name in arms}
    lost: dict[tuple[str, str], str] = {}
    for name, place, value in zip(usable["_arm"], usable["_task"], usable["_value"], strict=True):
        if not math.isfinite(value):
            lost[name, place] = f"{metric} is {value}"
        values[name].setdefault(place, []).append(float(value))
    for name in arms:
        for place in tasks:
            if place not in values[name]:
                lost[name, place] = "no such run in the table"
    return ScoreTable(values, tasks, lost, tuple(notes + mixtures(usable)))
