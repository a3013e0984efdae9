"""Which column of a table holds a metric, whatever of its names the table uses: the metric catalogue decides.

Called where a table is read (`runs`), where its runs are paired (`blocks`), and by the command line. A column of the
very name that was asked for comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from stackwise_ray.core.metric_catalogue import metric_called
from stackwise_ray.core.records import TABLE_COLUMNS


def metric_path(name: str) -> str:
    """The path of the metric that is called so; the name itself where nobody registered one.

    >>> metric_path("val_loss"), metric_path("their_score")
    ('validation/loss', 'their_score')
    """
    found = metric_called(name)
    return name if found is None else found.path


def columns_of(name: str, columns: Iterable[str]) -> tuple[str, ...]:
    """The columns that hold the metric of this name: its own, then that of its path, then those of its other names.

    >>> columns_of("flops", ["arm", "flops/total"])
    ('flops/total',)
    """
    found = metric_called(name)
    names = (name,) if found is None else (name, found.path, *found.also_called)
    there = set(columns)
    return tuple(dict.fromkeys(each for each in names if each in there))


@cache
def short_names() -> dict[str, str]:
    """The columns of the one table that are a metric under a short name, with its path."""
    found = {name: metric_path(name) for name in TABLE_COLUMNS}
    return {name: path for name, path in found.items() if path != name}
