"""Every metric that somebody reports: its path, unit, direction, label and digits, said once.

Whatever shows, compares, validates or stores a metric asks here, and here alone is known which way of one is better.
A task, a component or a plugin registers its own. How a number is written is `core.quantities`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from stackwise_ray.core.quantities import (
    decimals_for,
    format_bytes,
    format_count,
    format_number,
    format_seconds,
    format_value,
)
from stackwise_ray.core.registries import COMPONENTS, TASKS

Direction = Literal["minimize", "maximize"]
Form = Literal["number", "count", "bytes", "seconds", "share"]
Needs = Literal["next tokens", "masked tokens", "whole splits", "finish"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What there is to know about one metric.

    Attributes:
        path: Its name everywhere, e.g. ``validation/loss``.
        unit: What one of it is, e.g. "nats per token"; empty where the label says it.
        direction: Which way is better; None where neither is (a count, a learning rate).
        label: What an axis or a table calls it; the path where it is empty.
        digits: Decimal places where it is shown as a plain number (`form` "number"); fewer beyond five digits.
        form: How its number is written: plainly, or as a count, bytes, a duration, a share in percent.
        needs: What a trial must have to report it.
        reported_by: Who measures it, and when, e.g. "every trial, at the end".
        also_called: Names that people and tables use for it elsewhere, e.g. ``val_loss``.
    """

    path: str
    unit: str
    direction: Direction | None = None
    label: str = ""
    digits: int = 4
    form: Form = "number"
    needs: tuple[Needs, ...] = ()
    reported_by: str = "every trial, at the end"
    also_called: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What an axis or a table calls it."""
        return self.label or self.path

    @property
    def axis(self) -> str:
        """The label of an axis: name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


_KNOWN: dict[str, Metric] = {}


def register_metrics(*metrics: Metric) -> None:
    """Adds metrics to the catalogue.

    Raises:
        ValueError: One of them is registered already, and differently.
    """
    for metric in metrics:
        known = _KNOWN.setdefault(metric.path, metric)
        if known != metric:
            raise ValueError(f"metric '{metric.path}' is registered twice")


def find_metric(path: str) -> Metric | None:
    """The metric of that path, or None; the first part of a path may be the task or the component that brings it."""
    owner = path.partition("/")[0]
    for registry in (TASKS, COMPONENTS) if path not in _KNOWN else ():
        if owner in registry:
            registry.get(owner)
    return _KNOWN.get(path)


def metric_called(name: str) -> Metric | None:
    """The metric of that path, or the one that is called so elsewhere: a table's column, another program's name."""
    found = find_metric(name)
    return found or next((metric for metric in _KNOWN.values() if name in metric.also_called), None)


def metric_paths() -> tuple[str, ...]:
    """All paths, sorted."""
    return tuple(sorted(_KNOWN))


_MORE_IS_BETTER = ("accuracy", "f1", "precision", "recall", "matthews", "pearson", "spearman", "bleu", "exact_match")


def resolve_direction(metric: str, written: Direction | None = None) -> tuple[Direction, bool]:
    """Which way of a metric is better, and whether that is an assumption.

    What is written counts; then the metric's record; then a word of the field at the end of its name (accuracy, F1,
    ROUGE); what nobody knows is minimised.

    >>> resolve_direction("throughput/tokens_per_s"), resolve_direction("their_rouge_2"), resolve_direction("score")
    (('maximize', False), ('maximize', False), ('minimize', True))
    """
    if written is not None:
        return written, False
    known = metric_called(metric)
    if known is not None and known.direction is not None:
        return known.direction, False
    word = metric.rpartition("/")[2].lower().replace("-", "_")
    if known is None and (word.endswith(_MORE_IS_BETTER) or "rouge" in word):
        return "maximize", False
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
    """What a table calls a metric; its path where nobody registered it."""
    found = find_metric(path)
    return path if found is None else found.name


def metric_axis(path: str) -> str:
    """What an axis calls a metric; its path where nobody registered it."""
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
        path: Of the metric; None, or one that nobody registered: a plain number.
        ends: Of the interval; without them "[no interval]" follows.

    >>> format_difference("flops/step", 3462.0), format_difference("validation/loss", 0.663, (0.6414, 0.6841))
    ('+3.46k [no interval]', '+0.663 [+0.641, +0.684]')
    """
    found = None if path is None else metric_called(path)
    if found is not None and found.form != "number":
        shown, *limits = (_signed(found.form, number) for number in (value, *(ends or ())))
    else:
        spread = 0.0 if ends is None else (ends[1] - ends[0]) / 2
        decimals = decimals_for(value, 3) if ends is None else decimals_for(spread if spread > 0 else value)
        shown, *limits = (format_number(number, decimals, signed=True) for number in (value, *(ends or ())))
    return f"{shown} [{', '.join(limits) or 'no interval'}]"


def format_size(path: str, value: float) -> str:
    """How large a difference of two values of a metric is, in the form in which the values are shown.

    >>> format_size("memory/peak_bytes", 3 * 2**20), format_size("validation/loss", 0.0123)
    ('3.0 MiB', '0.012')
    """
    found = metric_called(path)
    if found is None or found.form == "number":
        return format_number(value, decimals_for(value))
    return _signed(found.form, value)[1:]


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


# ------------------------------------------------------------------------------- what trials of this package report

_TOKEN, _MASKED = "nats per token", "nats per masked token"
_ON_WINDOWS = "every trial, on the fixed windows, at each evaluation"
_ON_SPLIT = "replicates with data.final_evaluation = full, on the whole split, at the end"
_EACH_REPORT = "every trial, at each report"
_FORM_OF_COST: dict[str, Form] = {"flops": "count", "tokens": "count", "steps": "count", "wall_seconds": "seconds"}
_OF_START = "trials that begin from saved weights, at the end"

_losses = (
    Metric(path="train/loss", unit=_TOKEN, direction="minimize", label="training loss", reported_by=_EACH_REPORT),
    Metric(
        path="validation/loss",
        unit=_TOKEN,
        direction="minimize",
        label="validation loss",
        reported_by=_ON_WINDOWS,
        also_called=("loss", "val_loss", "eval_loss", "validation_loss"),
    ),
    Metric(
        path="validation/perplexity",
        unit="per token",
        direction="minimize",
        label="validation perplexity",
        digits=2,
        needs=("next tokens",),
        reported_by=_ON_WINDOWS,
        also_called=("perplexity", "ppl"),
    ),
    Metric(
        path="validation/oracle_loss",
        unit=_TOKEN,
        label="loss of the source itself",
        needs=("next tokens",),
        reported_by="trials on a corpus whose law is known (markov, associative_recall), on the fixed windows",
    ),
    Metric(
        path="validation/entropy_rate",
        unit=_TOKEN,
        label="entropy rate of the source",
        needs=("next tokens",),
        reported_by="trials on markov",
    ),
    Metric(
        path="validation/answer_loss",
        unit="nats per answer",
        direction="minimize",
        label="loss of the answers",
        needs=("next tokens",),
        reported_by="trials on a corpus that asks (associative_recall), on the fixed windows",
    ),
    Metric(
        path="validation/answer_accuracy",
        unit="",
        direction="maximize",
        label="share of the answers that are right",
        needs=("next tokens",),
        reported_by="trials on a corpus that asks (associative_recall), on the fixed windows",
    ),
)
_masked_losses = (
    Metric(
        path="validation/masked_loss",
        unit=_MASKED,
        direction="minimize",
        label="masked loss, mean of 15 to 90 % masked",
        needs=("masked tokens",),
        reported_by="trials that fill in masks, on the fixed windows, at the end",
    ),
    *(
        Metric(
            path=f"validation/masked_loss_{share}",
            unit=_MASKED,
            direction="minimize",
            label=f"masked loss, {share} % masked",
            needs=("masked tokens",),
            reported_by="trials that fill in masks, on the fixed windows, at the end",
        )
        for share in (15, 30, 50, 75, 90)
    ),
)
_without_finish = tuple(
    replace(
        metric,
        path=f"{metric.path}_without_finish",
        label=f"{metric.label}, before the finish",
        needs=(*metric.needs, "finish"),
        reported_by="trials with training.finish, before it begins",
        also_called=(),
    )
    for metric in (*_losses, *_masked_losses)
    if metric.path == "validation/loss" or metric in _masked_losses
)
_of_splits = tuple(
    metric
    for split, loss in (("validation", "validation/loss_full"), ("test", "test/loss"))
    for metric in (
        Metric(path=loss, unit=_TOKEN, direction="minimize", label=f"{split} loss, whole split"),
        *(
            Metric(
                path=f"{split}/perplexity_{unit}",
                unit=f"per {unit}",
                direction="minimize",
                label=f"{split} perplexity, whole split",
                digits=3 if unit == "byte" else 2,
            )
            for unit in ("token", "word", "byte")
        ),
        Metric(path=f"{split}/tokens", unit="tokens", label=f"scored tokens of the {split} split", form="count"),
        Metric(path=f"{split}/words", unit="words", label=f"words of the {split} split", form="count"),
        Metric(path=f"{split}/bytes", unit="bytes of text", label=f"text of the {split} split", form="count"),
        Metric(path=f"{split}/min_context", unit="tokens", label=f"least context, {split} split", form="count"),
    )
)
_OF_A_STEP = "every trial, a mean over its steps"
_costs = (
    Metric(path="flops/forward", unit="FLOPs per step", label="forward pass", form="count", reported_by=_OF_A_STEP),
    Metric(path="flops/backward", unit="FLOPs per step", label="backward pass", form="count", reported_by=_OF_A_STEP),
    Metric(path="flops/optimizer", unit="FLOPs per step", label="optimizer", form="count", reported_by=_OF_A_STEP),
    Metric(
        path="flops/recomputed",
        unit="FLOPs per step",
        label="recomputed, outside the budget",
        direction="minimize",
        form="count",
        reported_by=_OF_A_STEP,
    ),
    Metric(
        path="flops/step",
        unit="FLOPs",
        label="training FLOPs per step",
        direction="minimize",
        form="count",
        reported_by=_OF_A_STEP,
    ),
    Metric(
        path="flops/total",
        unit="",
        label="training FLOPs",
        direction="minimize",
        form="count",
        also_called=("flops",),
    ),
    Metric(
        path="flops/cache",
        unit="",
        label="FLOPs of filling caches, a part of the training FLOPs",
        direction="minimize",
        form="count",
        reported_by="trials with training.cache",
    ),
    Metric(
        path="flops/evaluation",
        unit="",
        label="evaluation FLOPs, outside the budget",
        direction="minimize",
        form="count",
    ),
    Metric(path="tokens/total", unit="", label="training tokens", form="count", also_called=("tokens",)),
    Metric(path="steps/total", unit="", label="training steps", form="count"),
    Metric(
        path="memory/peak_bytes",
        unit="of the device, or of live tensors on a CPU",
        direction="minimize",
        label="peak memory",
        form="bytes",
        also_called=("peak_bytes",),
    ),
    Metric(
        path="memory/process_peak_bytes",
        unit="resident, of the worker's process",
        direction="minimize",
        label="peak memory of the process",
        form="bytes",
    ),
    Metric(
        path="memory/saved_activation_bytes",
        unit="kept for the backward pass",
        direction="minimize",
        label="saved activations",
        form="bytes",
    ),
    Metric(
        path="time/build_s", unit="s", direction="minimize", label="time of building data and model", form="seconds"
    ),
    Metric(
        path="time/train_s",
        unit="s",
        direction="minimize",
        label="time in training steps",
        form="seconds",
        also_called=("wall_seconds",),
    ),
    Metric(
        path="time/compile_s",
        unit="s",
        direction="minimize",
        label="time in compiling",
        form="seconds",
        reported_by="trials with training.compile",
    ),
    Metric(path="time/evaluation_s", unit="s", direction="minimize", label="time in evaluation", form="seconds"),
    Metric(path="time/checkpoint_s", unit="s", direction="minimize", label="time of checkpoints", form="seconds"),
    Metric(path="time/total_s", unit="s", direction="minimize", label="time in all", form="seconds"),
    Metric(
        path="throughput/tokens_per_s",
        unit="tokens per second",
        direction="maximize",
        label="training speed",
        form="count",
        reported_by="every trial, at each report and at the end",
    ),
    Metric(path="model/params", unit="", label="parameters", form="count", also_called=("params_total",)),
    Metric(
        path="model/params_non_embedding",
        unit="",
        label="parameters without embeddings",
        form="count",
        also_called=("params",),
    ),
    Metric(path="model/bytes", unit="", direction="minimize", label="size of the weights", form="bytes"),
)
_of_training = (
    Metric(path="progress", unit="of the budget", label="progress", form="share", reported_by=_EACH_REPORT),
    Metric(path="train/lr", unit="", label="learning rate", digits=6, reported_by=_EACH_REPORT),
    Metric(path="train/grad_norm", unit="", label="gradient norm", reported_by=_EACH_REPORT),
    Metric(
        path="train/skipped_steps",
        unit="steps",
        direction="minimize",
        label="skipped steps",
        form="count",
        reported_by="trials in fp16 whose gradients overflowed",
    ),
    Metric(
        path="init/charged",
        unit="1: yes, 0: no",
        label="initial weights paid for by the budget",
        form="count",
        reported_by=_OF_START,
    ),
    *(
        Metric(path=f"init/{unit}", unit=unit, label="cost of the initial weights", form=form, reported_by=_OF_START)
        for unit, form in _FORM_OF_COST.items()
    ),
)

register_metrics(
    *_losses,
    *_masked_losses,
    *_without_finish,
    *(replace(metric, needs=("next tokens", "whole splits"), reported_by=_ON_SPLIT) for metric in _of_splits),
    *_costs,
    *_of_training,
)
