"""The metrics that every trial of this package can report. Tasks, components and plugins register their own.

A test holds them against what small real trials write.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from stackwise_ray.core.metric import Form, Metric

_TOKEN, _MASKED = "nats per token", "nats per masked token"
_ON_WINDOWS = "every trial, on the fixed windows, at each evaluation"
_ON_SPLIT = "replicates with data.final_evaluation = full, on the whole split, at the end"
_EACH_REPORT = "every trial, at each report"
_AT_THE_END = "every trial, at the end"
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
        also_called=(
            "loss",
            "val_loss",
            "eval_loss",
            "validation_loss",
            "val/loss",
            "eval/loss",
            "valid_loss",
            "valid/loss",
        ),
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
        needs=("next tokens", "known law"),
        reported_by="trials on a corpus whose law is known (markov, associative_recall), on the fixed windows",
    ),
    Metric(
        path="validation/entropy_rate",
        unit=_TOKEN,
        label="entropy rate of the source",
        needs=("next tokens", "known law"),
        reported_by="trials on a corpus whose law is known (markov, associative_recall), on the fixed windows",
    ),
    Metric(
        path="validation/answer_loss",
        unit="nats per answer",
        direction="minimize",
        label="loss of the answers",
        needs=("next tokens", "answers"),
        reported_by="trials on a corpus that asks (associative_recall), on the fixed windows",
    ),
    Metric(
        path="validation/answer_accuracy",
        unit="",
        direction="maximize",
        label="share of the answers that are right",
        needs=("next tokens", "answers"),
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
_of_a_split = partial(Metric, needs=("next tokens", "whole splits"), reported_by=_ON_SPLIT)
_of_splits = tuple(
    metric
    for split, loss in (("validation", "validation/loss_full"), ("test", "test/loss"))
    for metric in (
        _of_a_split(path=loss, unit=_TOKEN, direction="minimize", label=f"{split} loss, whole split"),
        *(
            _of_a_split(
                path=f"{split}/perplexity_{unit}",
                unit=f"per {unit}",
                direction="minimize",
                label=f"{split} perplexity, whole split",
                digits=3 if unit == "byte" else 2,
            )
            for unit in ("token", "word", "byte")
        ),
        *(
            _of_a_split(path=f"{split}/{name}", unit=unit, label=label, form="count")
            for name, unit, label in (
                ("tokens", "tokens", f"scored tokens of the {split} split"),
                ("words", "words", f"words of the {split} split"),
                ("bytes", "bytes of text", f"text of the {split} split"),
                ("min_context", "tokens", f"least context, {split} split"),
            )
        ),
    )
)
_OF_A_STEP = "every trial, a mean over its steps"
_of_a_step = partial(Metric, unit="FLOPs per step", form="count", reported_by=_OF_A_STEP)
_flops = partial(Metric, unit="", direction="minimize", form="count", reported_by=_AT_THE_END)
_memory = partial(Metric, direction="minimize", form="bytes", reported_by=_AT_THE_END)
_time = partial(Metric, unit="s", direction="minimize", form="seconds", reported_by=_AT_THE_END)
_count = partial(Metric, unit="", form="count", reported_by=_AT_THE_END)
_costs = (
    _of_a_step(path="flops/forward", label="forward pass"),
    _of_a_step(path="flops/backward", label="backward pass"),
    _of_a_step(path="flops/optimizer", label="optimizer"),
    _of_a_step(path="flops/recomputed", label="recomputed, outside the budget", direction="minimize"),
    _of_a_step(path="flops/step", label="training FLOPs per step", unit="FLOPs", direction="minimize"),
    _flops(path="flops/total", label="training FLOPs", also_called=("flops",)),
    _flops(
        path="flops/cache",
        label="FLOPs of filling caches, a part of the training FLOPs",
        reported_by="trials with training.cache",
    ),
    _flops(path="flops/evaluation", label="evaluation FLOPs, outside the budget"),
    _count(path="tokens/total", label="training tokens", also_called=("tokens",)),
    _count(path="steps/total", label="training steps", also_called=("steps",)),
    _memory(
        path="memory/peak_bytes",
        unit="in a training step, of the device or of live tensors on a CPU",
        label="peak memory",
        also_called=("peak_bytes",),
    ),
    _memory(
        path="memory/process_peak_bytes", unit="resident, of the worker's process", label="peak memory of the process"
    ),
    _memory(path="memory/saved_activation_bytes", unit="kept for the backward pass", label="saved activations"),
    _time(path="time/build_s", label="time of building data and model"),
    _time(path="time/train_s", label="time in training steps", also_called=("wall_seconds",)),
    _time(path="time/compile_s", label="time in compiling", reported_by="trials with training.compile or on a GPU"),
    _time(path="time/evaluation_s", label="time in evaluation"),
    _time(path="time/checkpoint_s", label="time that training waited for checkpoints"),
    _time(path="time/total_s", label="time in all"),
    Metric(
        path="throughput/tokens_per_s",
        unit="tokens per second",
        direction="maximize",
        label="training speed",
        form="count",
        reported_by="every trial, at each report and at the end",
    ),
    _count(path="model/params", label="parameters", also_called=("params_total",)),
    _count(path="model/params_non_embedding", label="parameters without embeddings", also_called=("params",)),
    _memory(path="model/bytes", unit="", label="size of the weights"),
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

TRIAL_METRICS: tuple[Metric, ...] = (
    *_losses,
    *_masked_losses,
    *_without_finish,
    *_of_splits,
    *_costs,
    *_of_training,
)
COST_METRICS: tuple[Metric, ...] = _costs
"""What a trial took: FLOPs, tokens, memory, time, and the size of its model."""
QUALITY_METRICS: tuple[Metric, ...] = tuple(
    metric for metric in TRIAL_METRICS if metric not in (*_costs, *_of_training)
)
"""How good its model is, with the counts of the text that it was measured on."""
