"""Every metric that is reported: its path, unit, direction, label and digits, declared once.

Whatever shows, compares, validates or stores a metric asks here, and here alone is known which way of one is better.
A task and a component bring theirs while they are registered; a plugin may register more. How a number is written is
`core.quantities`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from stackwise_ray.core.errors import NameTakenError, PluginError
from stackwise_ray.core.metric import Direction, Form, Metric
from stackwise_ray.core.quantities import (
    decimals_for,
    format_bytes,
    format_count,
    format_number,
    format_seconds,
    format_value,
    interval_spread,
)
from stackwise_ray.core.registries import COMPONENTS, TASKS
from stackwise_ray.core.registry import Follower, watching
from stackwise_ray.core.trial_metrics import TRIAL_METRICS

_KNOWN: dict[str, Metric] = {}
_HOLDERS: Counter[str] = Counter()
"""How often each path is registered: it goes when the last one withdraws it."""


def register_metrics(*metrics: Metric) -> None:
    """Adds metrics to the catalogue, all or none; those of a plugin that then fails are withdrawn.

    Raises:
        NameTakenError: One of them is registered already, and differently.
    """
    _hold(metrics)
    for seen in watching():
        seen.metrics.extend(metric.path for metric in metrics)
        seen.undo.callback(_release, metrics)


def _hold(metrics: Iterable[Metric]) -> None:
    metrics = tuple(metrics)
    for number, metric in enumerate(metrics):
        if any(other.path == metric.path and other != metric for other in metrics[:number]):
            raise NameTakenError(f"metric '{metric.path}' is given twice, with two records; keep one of them")
        if _KNOWN.get(metric.path, metric) != metric:
            problem = f"metric '{metric.path}' is registered already with another record"
            raise NameTakenError(f"{problem}; choose another path, or give the same record")
    for metric in metrics:
        _KNOWN[metric.path] = metric
        _HOLDERS[metric.path] += 1


def _release(metrics: Iterable[Metric]) -> None:
    """The opposite of `_hold`; a metric that others hold too stays."""
    for metric in metrics:
        _HOLDERS[metric.path] -= 1
        if not _HOLDERS[metric.path]:
            del _HOLDERS[metric.path], _KNOWN[metric.path]


def _metrics_of(entry: Any) -> tuple[Metric, ...]:
    """What a task or a component brings."""
    return tuple(getattr(getattr(entry, "facts", entry), "metrics", ()))


_hold(TRIAL_METRICS)
for _registry in (TASKS, COMPONENTS):
    _registry.follow(
        Follower(added=lambda entry: _hold(_metrics_of(entry)), removed=lambda entry: _release(_metrics_of(entry)))
    )


def find_metric(path: str) -> Metric | None:
    """The metric of that path, or None; the first part of a path may be the task or the component that brings it.

    Raises:
        PluginError: An installed plugin offers that task or component and cannot be loaded.
    """
    owner = path.partition("/")[0]
    for registry in (TASKS, COMPONENTS) if path not in _KNOWN else ():
        if owner in registry:
            registry.get(owner)
    return _KNOWN.get(path)


def metric_called(name: str) -> Metric | None:
    """The metric of that path, or the one that is called so elsewhere: a table's column, another program's name.

    A table may have any column, so one under the name of a broken installed plugin is a column and no error.
    """
    found = _find_loaded(name)
    return found or next((metric for metric in _KNOWN.values() if name in metric.also_called), None)


def _find_loaded(path: str) -> Metric | None:
    """As `find_metric`; nothing is known of a broken installed plugin, which `core.plugins.problems` names."""
    try:
        return find_metric(path)
    except PluginError:
        return None


def metric_paths() -> tuple[str, ...]:
    """All paths, sorted; loads every task and component, whose metrics they are too."""
    for registry in (TASKS, COMPONENTS):
        for _ in registry.items():
            pass
    return tuple(sorted(_KNOWN))


_MORE_ENDS = ("accuracy", "f1", "precision", "recall", "matthews", "pearson", "spearman", "bleu", "exact_match")
_MORE_WORDS = frozenset({"acc", "auc", "auroc", "reward", "return"})
"""As a word of its own: val_acc, acc_norm, episode_reward."""
_LESS_WORDS = frozenset({"loss", "perplexity", "ppl", "bpb", "error"})
_SPREAD_WORDS = frozenset({"stderr", "std", "sd", "se", "var"})
"""Of another number's uncertainty: acc_stderr is no accuracy."""


def resolve_direction(metric: str, written: Direction | None = None) -> tuple[Direction, bool]:
    """Which way of a metric is better, and whether that is an assumption.

    What is written counts; then the metric's record; then a word of the field in its name (accuracy, F1, ROUGE, loss,
    perplexity); an unknown metric is minimised, and so is one whose words disagree.

    >>> resolve_direction("throughput/tokens_per_s"), resolve_direction("acc_norm"), resolve_direction("ood_loss")
    (('maximize', False), ('maximize', False), ('minimize', False))
    >>> resolve_direction("score"), resolve_direction("reward_loss")
    (('minimize', True), ('minimize', True))
    """
    if written is not None:
        return written, False
    known = metric_called(metric)
    if known is not None and known.direction is not None:
        return known.direction, False
    word = re.sub(r"[-. ]", "_", metric.rpartition("/")[2].lower())
    words = set(word.split("_"))
    more = word.endswith(_MORE_ENDS) or "rouge" in word or bool(_MORE_WORDS & words)
    less = word.endswith("bits_per_byte") or bool(_LESS_WORDS & words)
    if known is None and more != less and not _SPREAD_WORDS & words:
        return ("maximize" if more else "minimize"), False
    return "minimize", True


def good_direction(direction: Direction, *, assumed: bool = False) -> str:
    """The end of a sentence on a comparison.

    >>> good_direction("maximize"), good_direction("minimize", assumed=True)
    ('higher is better', 'lower is better (assumed)')
    """
    return f"{'lower' if direction == 'minimize' else 'higher'} is better{' (assumed)' if assumed else ''}"


def badness(direction: Direction) -> float:
    """The factor that turns values into ones of which the least is the best: 1 or −1."""
    return 1.0 if direction == "minimize" else -1.0


def metric_name(path: str) -> str:
    """What a table calls a metric; its path where it is not registered."""
    found = _find_loaded(path)
    return path if found is None else found.name


def metric_axis(path: str) -> str:
    """What an axis calls a metric; its path where it is not registered."""
    found = metric_called(path)
    return path if found is None else found.axis


def format_metric(path: str, value: float | None) -> str:
    """A value of a metric as it is shown everywhere; "not measured" where there is none.

    >>> format_metric("throughput/tokens_per_s", 5621.0803), format_metric("validation/loss", 2.33971)
    ('5.62k', '2.3397')
    """
    found = metric_called(path)
    if found is None or value is None or found.form == "number":
        return format_value(value, 4 if found is None else found.digits)
    if found.form == "share":
        return f"{format_number(100 * value, 1)}%"
    return _FORMATS[found.form](value)


def format_difference(path: str | None, value: float, ends: tuple[float, float] | None = None) -> str:
    """A difference of two values of a metric, with its interval, in the form in which the values are shown.

    Args:
        path: Of the metric; None, or one that is not registered: a plain number.
        ends: Of the interval, of which one may be infinite; without them "[no interval]" follows.

    >>> format_difference("flops/step", 3462.0), format_difference("validation/loss", 0.663, (0.6414, 0.6841))
    ('+3.46k [no interval]', '+0.663 [+0.641, +0.684]')
    >>> format_difference("loss", -0.02, (-math.inf, 0.0133))
    '−0.020 [−∞, +0.013]'
    """
    found = None if path is None else metric_called(path)
    if found is not None and found.form != "number":
        shown, *limits = (_signed(found.form, number) for number in (value, *(ends or ())))
    else:
        spread = 0.0 if ends is None else interval_spread(value, *ends)
        decimals = decimals_for(value, 3) if ends is None else decimals_for(spread if spread > 0 else value)
        shown, *limits = (format_number(number, decimals, signed=True) for number in (value, *(ends or ())))
    return f"{shown} [{', '.join(limits) or 'no interval'}]".replace("+inf", "∞").replace("inf", "∞")


def format_size(path: str, value: float) -> str:
    """How large a difference of two values of a metric is, in the form in which the values are shown.

    >>> format_size("memory/peak_bytes", 3 * 2**20), format_size("validation/loss", 0.0123)
    ('3.0 MiB', '0.012')
    """
    found = metric_called(path)
    if found is None or found.form == "number":
        return format_number(value, decimals_for(value))
    return _signed(found.form, value)[1:]


def with_unit(path: str, shown: str) -> str:
    """A number of a metric with its unit, as a sentence has it.

    >>> with_unit("validation/loss", "0.90"), with_unit("memory/peak_bytes", "3.0 MiB"), with_unit("score", "2.1")
    ('0.90 nats', '3.0 MiB', '2.1')
    """
    found = metric_called(path)
    if found is None or found.form not in ("number", "count") or found.unit.startswith("per "):
        return shown
    unit = "nats" if found.unit.startswith("nats per ") else found.unit
    return f"{shown} {unit}" if unit and unit not in found.name else shown


_FORMATS: dict[Form, Callable[[float | None], str]] = {
    "count": format_count,
    "bytes": format_bytes,
    "seconds": format_seconds,
}


def _signed(form: Form, value: float) -> str:
    """A difference with its sign; one of two shares is in percentage points."""
    if not math.isfinite(value):
        return format_number(value, 0, signed=True)
    sign, size = "−" if value < 0 else "+", abs(value)
    return f"{sign}{format_number(100 * size, 1)} pp" if form == "share" else f"{sign}{_FORMATS[form](size)}"
