"""Early exit on a model: exits and layer dropout in training, tokens that leave in evaluation, the calibration.

How a token leaves: its hidden state stays as it was and is copied up (CALM, section 3.2); keys and values of later
layers are made of it, so that the other tokens still attend to it. What no other token reads is not computed for it any
more: the projections that `StackView.own_token` gives (queries where they have a matrix of their own, the output
projection of the mixer, the channel mixer). A sequence whose tokens have all left goes out of the batch, with its keys,
values and attention; when none is left, later blocks do not run at all. Scores of attention stay dense within the
sequences that are left, as fused attention has no such cut.

The model's own forward pass, and so `generate`, always goes through the full depth.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stackwise_ray.config.trial.validation import validate
from stackwise_ray.core.seeding import stream_seed
from stackwise_ray.models.component import Attached, Cost, Scorer, Work
from stackwise_ray.models.components.early_exit import (
    CANDIDATES,
    CURVE,
    EarlyExitOptions,
    EarlyExitState,
    exit_layers,
)
from stackwise_ray.models.growth.time_input import takes_time
from stackwise_ray.models.stack_view import stack_view

MODULE = "early_exit_norms"
"""Name of the exits' norms in the model, and so the beginning of their parameters' names."""


@dataclass
class _Pass:
    """One forward pass with exits.

    Attributes:
        threshold: Confidence at which a token leaves; None: none does, and no exit is asked.
        remaining: Tokens that have not left, (batch, n) bool.
        logits: Those of the tokens that have left, (batch, n, vocab_size).
        costliest: Whether all exits are asked and nothing leaves, without a look at any value.
    """

    threshold: float | None = None
    costliest: bool = False
    remaining: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class _Point:
    """What the fixed windows give at one threshold: nats per token, layers per token, FLOPs per token."""

    loss: float
    depth: float
    flops: float

    def metrics(self, end: str) -> dict[str, float]:
        """By path; `end` is what the paths end in."""
        named = {"loss": self.loss, "mean_depth": self.depth, "flops_per_token": self.flops}
        return {f"early_exit/{name}{end}": value for name, value in named.items()}


class EarlyExits(Attached):
    """The component on one model.

    Attributes:
        threshold: Confidence (largest softmax probability) at which a token exits; None: no token does, before the
            calibration or by it.
        block_tokens: Tokens that went through each block in passes with exits, since `forget_depths`.
    """

    def __init__(self, model: PreTrainedModel, options: EarlyExitOptions, *, seed: int) -> None:
        self._model, self._options, self._seed = model, options, seed
        self._view = view = stack_view(model)
        self._n_layers = len(view.blocks)
        self._exits = {number: index for index, number in enumerate(exit_layers(options, self._n_layers))}
        self._norms = nn.ModuleList(_norm(model) for _ in self._exits)
        model.add_module(MODULE, self._norms)
        for number, block in enumerate(view.blocks):
            original: Any = type(block)
            block.__class__ = _exiting(original)
            exiting: Any = block
            exiting.exits, exiting.number = self, number
        self._trained = frozenset(self._exits)
        self._dropped: frozenset[int] = frozenset()
        self._hidden: dict[int, Tensor] = {}
        self._pass: _Pass | None = None
        self.threshold = options.threshold
        self.block_tokens = [0] * self._n_layers
        self.varies = options.layer_dropout > 0 or options.curriculum == "gradual"

    def modules(self) -> Iterable[nn.Module]:
        return (self._norms,)

    # ------------------------------------------------------------------------------------------------ training

    def begin_step(self, *, step: int, share: float) -> str:
        draw = random.Random(stream_seed(self._seed, "component", "early_exit", step))
        drawn = [draw.random() for _ in range(self._n_layers)]
        self._dropped = frozenset(number for number, value in enumerate(drawn) if value < self._dropout(number, share))
        self._trained = self._enabled(share)
        return f"{len(self._trained)} exits, {self._n_layers - len(self._dropped)} layers"

    def take_cost(self, cost: Cost) -> None:
        most = cost == "most"
        self._dropped = frozenset() if most else frozenset(n for n in range(self._n_layers) if self._dropout(n, 1.0))
        self._trained = frozenset(self._exits) if most else self._enabled(0.0)

    def _dropout(self, number: int, share: float) -> float:
        """LayerSkip, equation 3: exponential in the layer (0 for the first) and in training."""
        if self._n_layers == 1:
            return 0.0
        depth = math.exp(number * math.log(2) / (self._n_layers - 1)) - 1
        return self._options.layer_dropout * depth * (math.exp(share * math.log(2)) - 1)

    def _enabled(self, share: float) -> frozenset[int]:
        """LayerSkip's gradual curriculum: from the last exit on, one more each 1/2L of the run."""
        if self._options.curriculum == "none":
            return frozenset(self._exits)
        count = 1 + int(2 * self._n_layers * share)
        return frozenset(sorted(self._exits, reverse=True)[:count])

    def auxiliary_loss(self, loss: Callable[[Tensor], Tensor]) -> Tensor | None:
        total: Tensor | None = None
        for number in sorted(self._trained):
            logits = self._exit_logits(number, self._hidden.pop(number))
            part = self._weight(number) * loss(logits)
            total = part if total is None else total + part
        self._hidden.clear()
        return total

    def _weight(self, number: int) -> float:
        """LayerSkip, equation 6, over the last layer's; layers count from 1, so that the first exit learns as well."""
        own, last = number + 1, self._n_layers
        scale = self._options.loss_scale
        return scale * own * (own + 1) / (2 * last + scale * last * (last - 1))

    def modelled_flops(self, *, block: float, head: float) -> float:
        return len(self._trained) * head - len(self._dropped) * block

    # --------------------------------------------------------------------------------------------------- blocks

    def through(self, number: int, block: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What block `number` returns for `hidden`; called in its place."""
        if self._pass is not None:
            return self._through_in_pass(self._pass, number, block, hidden, args, kwargs)
        training = self._view.blocks[number].training
        if training and number in self._dropped:
            output = self._view.passed_on(hidden)
        else:
            output = block(hidden, *args, **kwargs)
        if training and torch.is_grad_enabled() and number in self._trained:
            self._hidden[number] = _states(output)
        return output

    def _through_in_pass(
        self, now: _Pass, number: int, block: Callable[..., Any], hidden: Tensor, args: Any, kwargs: Any
    ) -> Any:
        if now.costliest:
            output = block(hidden, *args, **kwargs)
            if number in self._exits:
                self._exit_logits(number, _states(output))
            return output
        if now.remaining is None:
            now.remaining = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        rows = now.remaining.any(1)
        if not rows.any():
            return self._view.passed_on(hidden)
        self.block_tokens[number] += int(now.remaining.sum())
        if now.remaining.all():
            result = _states(block(hidden, *args, **kwargs))
        else:
            size = len(rows)
            args = tuple(_of_rows(value, rows, size) for value in args)
            kwargs = {name: _of_rows(value, rows, size) for name, value in kwargs.items()}
            part, kept = hidden[rows], now.remaining[rows]
            with _only(kept, self._view.own_token(self._view.blocks[number])):
                states = _states(block(part, *args, **kwargs))
            result = hidden.clone()
            result[rows] = torch.where(kept.unsqueeze(-1), states, part)
        if number in self._exits and now.threshold is not None:
            self._leave(now, number, result, now.threshold)
        return self._view.passed_on(result)

    def _leave(self, now: _Pass, number: int, hidden: Tensor, threshold: float) -> None:
        """Lets the tokens go that are sure enough after block `number`."""
        assert now.remaining is not None
        logits = self._exit_logits(number, hidden[now.remaining])
        sure = logits.float().softmax(-1).amax(-1) >= threshold
        leaving = now.remaining.clone()
        leaving[now.remaining] = sure
        if now.logits is None:
            now.logits = logits.new_zeros(*now.remaining.shape, logits.shape[-1])
        now.logits[leaving] = logits[sure]
        now.remaining = now.remaining & ~leaving

    def _exit_logits(self, number: int, hidden: Tensor) -> Tensor:
        return self._view.logits(self._norms[self._exits[number]](hidden))

    # ----------------------------------------------------------------------------------------------- evaluation

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Any], *, threshold: float | None) -> Tensor:
        """Logits (batch, n, vocab_size) of a pass in which tokens leave at `threshold`; None: the model's own.

        Call it in evaluation mode.
        """
        with self._passing(_Pass(threshold=threshold)) as now:
            hidden = self._trunk(inputs)
        assert now.remaining is not None
        if now.logits is None:
            return self._view.logits(hidden)
        if now.remaining.any():
            now.logits[now.remaining] = self._view.logits(hidden[now.remaining])
        return now.logits

    @torch.no_grad()
    def costliest_pass(self, inputs: Mapping[str, Any]) -> None:
        with self._passing(_Pass(costliest=True)):
            self._view.logits(self._trunk(inputs))

    def _trunk(self, inputs: Mapping[str, Any]) -> Tensor:
        network: Any = self._model
        given = {"inputs_embeds": network.embedded(**inputs)} if takes_time(network) else inputs
        hidden: Tensor = network.base_model(**given).last_hidden_state
        return hidden

    @contextlib.contextmanager
    def _passing(self, now: _Pass) -> Iterator[_Pass]:
        self._pass = now
        try:
            yield now
        finally:
            self._pass = None

    def forget_depths(self) -> None:
        """Begins a new count of the tokens of blocks."""
        self.block_tokens = [0] * self._n_layers

    # -------------------------------------------------------------------------------------- after the last step

    def after_training(self, scorer: Scorer) -> Work:
        if self._options.threshold is None:
            self.threshold = yield from self._calibrated(scorer)
        points: dict[float | None, _Point] = {}
        for threshold in (None, self.threshold, *CURVE):  # a pass over the windows for each, once
            if threshold not in points:
                points[threshold] = yield from self._point(scorer, threshold)
        metrics = {**points[self.threshold].metrics(""), "early_exit/flops_per_token_full": points[None].flops}
        if self.threshold is not None:
            metrics["early_exit/threshold"] = self.threshold
        for threshold in CURVE:
            metrics |= points[threshold].metrics(f"_{round(100 * threshold)}")
        return metrics

    def _calibrated(self, scorer: Scorer) -> Generator[None, None, float | None]:
        """The lowest threshold before the first, from the most careful on, whose loss is beyond the tolerance.

        None: the first is.
        """
        full = yield from scorer.score("held_out", partial(self.logits, threshold=None))
        found = None
        for candidate in CANDIDATES:
            scored = yield from scorer.score("held_out", partial(self.logits, threshold=candidate))
            if scored.loss > full.loss + self._options.tolerance:
                break
            found = candidate
        return found

    def _point(self, scorer: Scorer, threshold: float | None) -> Generator[None, None, _Point]:
        """A pass over the fixed windows."""
        self.forget_depths()
        scored = yield from scorer.score("validation", partial(self.logits, threshold=threshold))
        depth = scorer.total(sum(self.block_tokens)) / scored.tokens
        return _Point(loss=scored.loss, depth=depth, flops=scored.flops / scored.tokens)

    def state(self) -> dict[str, Any]:
        return asdict(EarlyExitState(threshold=self.threshold))

    def restore(self, state: Mapping[str, Any]) -> None:
        self.threshold = validate(EarlyExitState, state).threshold


class _Exiting(nn.Module):
    exits: EarlyExits
    number: int

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.exits.through(self.number, super().forward, hidden_states, *args, **kwargs)


@functools.cache
def _exiting(block_class: Any) -> Any:
    return type(f"Exiting{block_class.__name__}", (_Exiting, block_class), {})


def _norm(model: PreTrainedModel) -> nn.Module:
    """A norm as the model's final one is now; a plain one where blocks end in a norm."""
    view = stack_view(model)
    if view.final_norm is not None:
        # With parameters given, since copies of fake tensors would belong to another fake mode.
        own = {id(one): nn.Parameter(one.detach().clone()) for one in view.final_norm.parameters()}
        return copy.deepcopy(view.final_norm, own)
    parameter = next(view.blocks[0].parameters())
    return nn.LayerNorm(model.config.hidden_size, eps=model.config.layer_norm_eps, device=parameter.device)


def _states(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _of_rows(value: Any, rows: Tensor, size: int) -> Any:
    """An argument of a block for some sequences of the batch; what has no batch dimension stays."""
    if isinstance(value, Tensor) and value.ndim > 1 and len(value) == size > 1:
        return value[rows]
    if isinstance(value, tuple):
        return tuple(_of_rows(part, rows, size) for part in value)
    return value


@contextlib.contextmanager
def _only(kept: Tensor, modules: Iterable[nn.Module]) -> Iterator[None]:
    """Matrices compute the tokens of `kept` (batch, n) alone and give 0 for the others, which nobody reads."""

    def take(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0][kept],)

    def put(_: Any, __: Any, output: Tensor) -> Tensor:
        whole = output.new_zeros(*kept.shape, output.shape[-1])
        whole[kept] = output
        return whole

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.register_forward_pre_hook(take))
            stack.enter_context(module.register_forward_hook(put))
        yield
