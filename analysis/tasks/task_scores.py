"""From a table of runs to scores by arm and task: what `ranking` and `aggregation` share.

Which runs count and what makes them incomparable is decided in `placement`; a fingerprint may differ between tasks
here, never within one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import resolve_direction

from ..table.blocks import resolve
from ..table.columns import columns_of
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


MOST_SHOWN = 8
"""Columns that a message names."""


def as_tasks(table: pd.DataFrame, metrics: Sequence[str], direction: Direction | None = None) -> pd.DataFrame:
    """A table with one row per run as one with a row per run and metric: each metric is a task, its value the `score`.

    Args:
        direction: Of all of them; None: as is known of each.

    Raises:
        AnalysisError: A metric that is not a column, one that is named twice, or metrics of which some are better
            when low and others when high.
    """
    import pandas as pd

    named = {metric: next(iter(columns_of(metric, table.columns)), None) for metric in metrics}
    if len(named) < len(metrics):
        raise AnalysisError(f"a metric is named twice: {', '.join(metrics)}")
    for metric, column in named.items():
        if column is None:
            hint = did_you_mean(metric, table.columns)
            raise AnalysisError(f"metric = '{metric}' is not a column of the table; {hint}")
    ways = {metric: resolve(table, metric, direction)[0] for metric in metrics}
    if len(set(ways.values())) > 1:
        shown = "; ".join(f"{metric}: {way}" for metric, way in ways.items())
        raise AnalysisError(f"the metrics are not better in the same direction ({shown}): rank those of each by itself")
    kept = table.drop(columns=[column for column in named.values() if column is not None])
    long = pd.concat(
        [kept.assign(task=metric, score=table[column]) for metric, column in named.items()], ignore_index=True
    )
    long.attrs = dict(table.attrs)
    return long


def _without_tasks(table: pd.DataFrame, task: str) -> str:
    """What to give where no column says on which task a run was scored."""
    known = [name for name in table.columns if not resolve_direction(str(name))[1]]
    numbers = [name for name in table.columns if table[name].dtype.kind in "if" and name not in ("seed", "flops")]
    names = list(map(str, known or numbers))
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return (
        f"task = '{task}' is not a column of the table; name the column of the tasks (--task), or, where a row has a "
        f"score per task, give each score as a metric (--metric A --metric B): {', '.join(names[:MOST_SHOWN])}{more}"
    )


def task_scores(table: pd.DataFrame, metric: str, task: str, arm: str, seed: str) -> ScoreTable:
    """The runs of `table` by arm and task; `seed` tells the runs of a cell apart where that column is there.

    A cell with a value that is not finite is lost as a whole: the mean of the runs that survived is not its mean.

    Raises:
        AnalysisError: A column that is not there, differing runs in one place, mixed data within a task, or text
            where numbers should be.
    """
    if task not in table.columns:
        raise AnalysisError(_without_tasks(table, task))
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
