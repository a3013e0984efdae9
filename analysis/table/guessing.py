"""What a table is about where nobody said: which column holds the arms, which the blocks, which the metric.

Called by `commands.guess_command`. A guess is made from names that the field uses and from how values repeat: arms
recur, blocks tell the runs of an arm apart and recur in every arm, a metric differs from run to run. Guesses are
ranked, and those of the best rank are equally good: who calls asks the reader which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING

from stackwise_ray.core.metric_catalogue import metric_called

from .blocks import resolve
from .run_status import status_columns
from .typed_columns import names_of

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_ray.core.metric import Direction

MOST_ARMS = 30
_HELD_OUT = r"(?:val|valid|validation|eval|evaluation|test|dev|heldout)"
_METRICS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:.*/)?{_HELD_OUT}[/_. -]?loss",
        r"loss",
        rf"(?:.*/)?{_HELD_OUT}[/_. -].*|.*[/_. -]{_HELD_OUT}|perplexity|ppl|bits_per_byte|bpb",
        r"(?:.*/)?(?:acc|accuracy|acc_norm|exact_match|f1|bleu|rouge.*|score|reward|return|auc|value|values/\d+|error)",
        r"(?:.*[/_. -])?(?:loss|metric)",
    )
)
"""Names of metrics, the best guess first: a loss on held-out data, the loss, another number on these, a score."""
_NO_METRIC = re.compile(
    r".*(?:stderr|runtime|per_second|samples|_size|seconds|steps?|epoch|time|timestamp|grad_norm).*|lr"
)
_ARMS = (
    re.compile(r"arm|variant|treatment|condition|group", re.IGNORECASE),
    re.compile(
        r"(?:.*[./_])?(?:method|model|optimi[sz]er|algorithm|architecture|arch|mixer)(?:[./_]name)?", re.IGNORECASE
    ),
)
_BLOCKS = (
    re.compile(r"(?:.*[./_])?seed", re.IGNORECASE),
    re.compile(r"(?:.*[./_])?(?:fold|split|replicate|repeat|rep|item|task|dataset)", re.IGNORECASE),
    re.compile(r"path/\d+"),
)
_BOOKKEEPING = re.compile(
    r"_.*|path/\d+|.*(?:run_?name|run_?id|trial_?id|run|id|name|user|notes|tags|created|runtime|sweep|hostname|start_time|"
    r"attempt_seconds|last_step|global_step|task_version|config\.model_args|reason|role|git|version|date|duration)",
    re.IGNORECASE,
)
_BASELINES = re.compile(r".*(?:baseline|control|default|vanilla|reference|original).*", re.IGNORECASE)
BUDGETS = frozenset({"params", "params_total", "tokens", "flops", "budget", "unique_tokens"})


def metrics(table: pd.DataFrame, apart: Iterable[str] = ()) -> list[str]:
    """The columns that are equally good guesses of the metric; empty where no column can be one.

    Args:
        apart: Columns that are something else.
    """
    import pandas as pd

    taken = {*apart, *BUDGETS}
    numeric = [
        str(name)
        for name in table.columns
        if str(name) not in taken
        and pd.api.types.is_numeric_dtype(table[name])
        and not pd.api.types.is_bool_dtype(table[name])
        and table[name].nunique() > 1
    ]
    named = [name for name in numeric if not _NO_METRIC.fullmatch(name)]
    for pattern in _METRICS:
        found = [name for name in named if pattern.fullmatch(name)]
        if found:
            return _one_of_each(table, found)
    known = [name for name in named if metric_called(name) is not None]
    free = [name for name in named if not _BOOKKEEPING.fullmatch(name) and table[name].nunique() > 0.8 * len(table)]
    return known or free


def _one_of_each(table: pd.DataFrame, names: list[str]) -> list[str]:
    """The names without those that repeat the values of an earlier one."""
    kept: list[str] = []
    for name in names:
        if not any(table[name].equals(table[other]) for other in kept):
            kept.append(name)
    return kept


def arms(table: pd.DataFrame) -> list[str]:
    """The columns that are equally good guesses of the arms; empty where none can be."""
    states = set(status_columns(table.columns))
    ranked: dict[int, list[str]] = {}
    parts: list[pd.Series[str]] = []
    for name in map(str, table.columns):
        if name in states or name in BUDGETS or any(pattern.fullmatch(name) for pattern in _BLOCKS[:1]):
            continue
        values = names_of(table, name)
        count = values.nunique()
        if not 2 <= count <= min(MOST_ARMS, len(table) // 2) or (values == "").any():
            continue
        rank = _arm_rank(table, name)
        if rank is not None and not any(_same_parts(values, other) for other in parts):
            parts.append(values)
            ranked.setdefault(rank, []).append(name)
    return ranked[min(ranked)] if ranked else []


def _arm_rank(table: pd.DataFrame, name: str) -> int | None:
    import pandas as pd

    for rank, pattern in enumerate(_ARMS):
        if pattern.fullmatch(name):
            return rank
    if re.fullmatch(r"path/\d+", name):
        return 3
    if _BOOKKEEPING.fullmatch(name) or any(pattern.fullmatch(name) for pattern in (*_METRICS, *_BLOCKS)):
        return None
    return 4 if pd.api.types.is_numeric_dtype(table[name]) else 2


def blocks(table: pd.DataFrame, arm: str) -> list[tuple[str, ...]]:
    """The columns, one or two together, that are equally good guesses of the block; empty where none can be.

    The runs of an arm differ in them, and most of their values recur in several arms.
    """
    candidates: dict[str, int] = {}
    parts = [names_of(table, arm)]
    for rank, pattern in enumerate(_BLOCKS):
        for name in map(str, table.columns):
            if not pattern.fullmatch(name) or name == arm or table[name].isna().any() or table[name].nunique() < 2:
                continue
            values = names_of(table, name, block=True)
            if not any(_same_parts(values, other) for other in parts):
                parts.append(values)
                candidates[name] = rank
    for size in (1, 2):
        found: dict[int, list[tuple[str, ...]]] = {}
        for names in combinations(candidates, size):
            if _pairs(table, arm, names):
                found.setdefault(max(candidates[name] for name in names), []).append(names)
        if found:
            return found[min(found)]
    return []


def _pairs(table: pd.DataFrame, arm: str, names: tuple[str, ...]) -> bool:
    """Whether each run of an arm has a block of its own, and at least half of the blocks have several arms."""
    places = table[list(names)].astype(str).agg(" × ".join, axis=1)
    arms_of = names_of(table, arm)
    if (arms_of + "\0" + places).duplicated().any():
        return False
    counts = arms_of.groupby(places).nunique()
    return bool((counts > 1).sum() * 2 >= len(counts))


def directions(table: pd.DataFrame, metric: str) -> tuple[Direction | None, ...]:
    """Which way of a metric may be better; both where neither the source nor the metric says so.

    None: small values are, as is known of the metric, and nobody needs to say it.
    """
    way, assumed = resolve(table, metric, None)
    if assumed:
        return ("minimize", "maximize")
    return (way,) if way == "maximize" or metric in table.attrs.get("directions", {}) else (None,)


def baseline(table: pd.DataFrame, arm: str) -> tuple[str, bool]:
    """The arm to compare with, and whether its name says so; else the first arm of the table."""
    names = list(dict.fromkeys(names_of(table, arm)))
    said = [name for name in names if _BASELINES.fullmatch(name)]
    return (said[0], True) if len(said) == 1 else (names[0], False)


def _same_parts(first: pd.Series[str], second: pd.Series[str]) -> bool:
    """Whether two columns part the runs alike."""
    together = len(set(zip(first, second, strict=True)))
    return together == first.nunique() == second.nunique()
