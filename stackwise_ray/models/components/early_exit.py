"""Early exit: options, what it does not go with, and its metrics. The part with torch is `_early_exits`.

Every chosen layer gets an exit: a norm of its own before the model's own head. Training adds the exits' losses and
drops layers; after it a threshold is calibrated, and tokens leave the model at the first exit that is sure enough.

Sources: Elhoushi et al. 2024 (LayerSkip, 2404.16710), sections 4.1 and 4.2; Schuster et al. 2022 (CALM, 2207.07061).
Deviations: a layer is dropped for the whole batch of a step and not per sample, so that the compute falls and is the
same for all workers; the loss weights are LayerSkip's up to a common factor, which AdamW does not see; calibration
compares mean losses and makes no statement about other text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from stackwise_ray.config.trial import NonNegative, Positive, Strict, TrialConfig
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.models.component import COMPONENTS, Component, Conflict

CURVE = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Thresholds at which loss and FLOPs are measured in the end, beside the calibrated one."""
CANDIDATES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Thresholds that calibration tries, from the most careful on."""


Confidence = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class EarlyExitState(Strict):
    """What a checkpoint and a saved model hold of the component beside tensors."""

    threshold: Confidence | None  # at which a token exits; None: none does


@dataclass(frozen=True, kw_only=True)
class EarlyExitOptions(Strict):
    """Options of `model.components.early_exit`."""

    exits: tuple[Positive, ...] | None = None  # layers with an exit, counted from 1; None: all but the last
    loss_scale: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the exits' losses; 1: LayerSkip's own weights
    layer_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the last layer at the end of training; 0: none
    curriculum: Literal["gradual", "none"] = "gradual"  # exits train one by one from the last, all after half the run
    threshold: Confidence | None = None  # confidence at which a token exits; None: calibrated
    tolerance: NonNegative = 0.01  # nats per token that the calibrated loss may lie above the full depth's
    calibration_tokens: Positive = 8_192  # of validation text outside the fixed windows, at most


def exit_layers(options: EarlyExitOptions, n_layers: int) -> tuple[int, ...]:
    """Numbers of the blocks that have an exit, from 0; the last block has none, as the model's own head follows it."""
    chosen = range(1, n_layers) if options.exits is None else options.exits
    return tuple(number - 1 for number in chosen)


_FLOPS = "counted FLOPs per evaluated token"
_IN_THE_END = "trials with model.components.early_exit, on the fixed windows, after training"


def _point(end: str, where: str) -> tuple[Metric, Metric, Metric]:
    """The metrics of one threshold: loss, depth and FLOPs.

    Args:
        end: What their paths end in.
        where: What their labels end in.
    """
    own = partial(Metric, direction="minimize", reported_by=_IN_THE_END)
    return (
        own(path=f"early_exit/loss{end}", unit="nats per token", label=f"validation loss{where}"),
        own(path=f"early_exit/mean_depth{end}", unit="layers per token", label=f"mean depth{where}", digits=2),
        own(path=f"early_exit/flops_per_token{end}", unit=_FLOPS, label=f"FLOPs{where}", form="count"),
    )


class EarlyExit(Component):
    """Declares the component."""

    name = "early_exit"
    implementation = "stackwise_ray.models.components._early_exits:EarlyExits"
    options = EarlyExitOptions
    order = 100  # wraps blocks as they are in the end
    conflicts = (
        Conflict(path="training.compile", values=(True,), reason="the layers that run change from step to step"),
        Conflict(
            path="training.parallel",
            values=("sharded",),
            reason="exits read the head's weights outside the forward pass, and sharded weights are freed by then",
        ),
    )
    one_stage = "exits need all layers to train together, from the first step on"
    observable = "early_exit/mean_depth"
    metrics = (
        Metric(
            path="early_exit/threshold",
            unit="confidence",
            label="exit threshold",
            digits=2,
            reported_by="trials with early_exit whose tokens may leave, at the end",
        ),
        *_point("", " with exits"),
        Metric(
            path="early_exit/flops_per_token_full",
            unit=_FLOPS,
            direction="minimize",
            label="FLOPs at full depth, without exits",
            form="count",
            reported_by=_IN_THE_END,
        ),
        *(m for t in CURVE for m in _point(f"_{round(100 * t)}", f" with exits at a threshold of {t:g}")),
    )

    def refuse(self, trial: TrialConfig, options: Any) -> tuple[str, str] | None:
        path, n_layers = "model.components.early_exit", trial.model.n_layers
        if n_layers < 2:
            return (
                "model.n_layers",
                f"= {n_layers} leaves no layer for an early exit; give at least 2, or leave {path} out",
            )
        wrong = self.misfit(options, n_layers=n_layers)
        return None if wrong is None else (f"{path}.{wrong[0]}", wrong[1])

    def misfit(self, options: Any, *, n_layers: int) -> tuple[str, str] | None:
        if options.exits is not None:
            wrong = [one for one in options.exits if one >= n_layers]
            if wrong or not options.exits or list(options.exits) != sorted(set(options.exits)):
                shown = list(options.exits)
                problem = f"= {shown} must be layers from 1 to {n_layers - 1} in rising order, each once"
                return "exits", f"{problem}; after layer {n_layers} comes the model's own head"
        return None

    def report(self, metrics: Mapping[str, float]) -> list[str]:
        rows = []
        own = metrics.get("early_exit/threshold")  # absent: no token leaves
        for threshold, end in [(own, ""), *((t, f"_{round(100 * t)}") for t in CURVE)]:
            paths = [f"early_exit/{name}{end}" for name in ("loss", "mean_depth", "flops_per_token")]
            loss, depth, flops = (format_metric(path, metrics[path]) for path in paths)
            perplexity = f"{math.exp(metrics[paths[0]]):.2f}" if metrics[paths[0]] < 700 else "beyond a float"
            name = "none (full depth)" if threshold is None else f"{threshold:g}"
            rows.append(f"| {name} | {loss} | {perplexity} | {depth} | {flops} |")
        full = format_metric("early_exit/flops_per_token_full", metrics["early_exit/flops_per_token_full"])
        return [
            "| Threshold | Validation loss (nats per token) | Perplexity | Layers per token | FLOPs per token |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"The first row is this trial's threshold. At full depth and without exits a token costs {full} FLOPs. "
            "A token that asks an exit pays for the exit's head.",
        ]

    def held_out_tokens(self, options: Any) -> int:
        return 0 if options.threshold is not None else options.calibration_tokens

    def evaluation_bound(self, options: Any, *, validation: int, held_out: int) -> tuple[int, int]:
        own = (1 + len(CURVE)) * validation
        if options.threshold is not None:
            return validation, own
        return validation + held_out, own + len(CANDIDATES) * held_out


COMPONENTS.register("early_exit")(EarlyExit())
