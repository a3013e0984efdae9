"""Counts the FLOPs of what really runs, by the one convention that plan and run share (`flop_rules`).

The planner counts on the meta device, the training loop wraps one step of every new batch shape (the counter sees
every operation, so a counted step is slow), the loop counts evaluation apart. The counter itself keeps
forward, backward and recomputed operations apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from stackwise_ray.metrics import meta_results
from stackwise_ray.metrics.flop_rules import FORMULAS, FREE, RECOMPUTED

ADAMW_FLOPS_PER_PARAMETER = 15


@dataclass(frozen=True, kw_only=True)
class FlopCount:
    """FLOPs of a piece of training.

    Attributes:
        forward: Of the forward pass, each product once.
        backward: Of the backward pass without what it computed again.
        optimizer: Of the update, by formula.
        recomputed: Spent again in the backward pass (activation checkpointing, the scores of fused attention). A
            fact of the implementation: in no budget and in no total, and 0 for attention on the meta device, where
            nothing is fused.
    """

    forward: int = 0
    backward: int = 0
    optimizer: int = 0
    recomputed: int = 0

    @property
    def total(self) -> int:
        """forward + backward + optimizer: what a budget of training FLOPs pays for."""
        return self.forward + self.backward + self.optimizer

    def __add__(self, other: FlopCount) -> FlopCount:
        return FlopCount(
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            optimizer=self.optimizer + other.optimizer,
            recomputed=self.recomputed + other.recomputed,
        )


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of every operation inside the ``with`` block, on any device.

    An operation is backward when autograd's engine runs it, and recomputed when it then runs inside a (non-reentrant)
    checkpoint's second forward. (Gradients of gradients, `create_graph=True`, look the same: they are not supported.)
    An optimizer's step inside the block adds nothing: see `optimizer_flops`.

    Raises:
        NotImplementedError: An operation has no formula and is not on the list of free ones.

    Example:
        >>> weight = torch.ones(3, 5, requires_grad=True)
        >>> with FlopCounter() as counter:
        ...     (torch.ones(2, 3) @ weight).sum().backward()
        >>> counter.count.forward, counter.count.backward
        (60, 60)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward = 0
        self.backward = 0
        self.recomputed = 0

    @property
    def count(self) -> FlopCount:
        """What was counted so far."""
        return FlopCount(forward=self.forward, backward=self.backward, recomputed=self.recomputed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "overloadpacket", func)
        formula = FORMULAS.get(packet)
        if formula is not None:
            result = meta_results.run(func, args, kwargs)
            self._add(packet, formula, args, kwargs, result)
            return result
        name = _name(func)
        if name in FREE or name.startswith("prim::"):
            return meta_results.run(func, args, kwargs)
        if name.startswith(_QUESTIONS):
            return NotImplemented  # asked of a tensor by torch itself, answered below
        if hasattr(func, "decompose"):
            # In inference mode composite operations (linear, matmul) arrive whole: count their parts.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        raise NotImplementedError(
            f"no FLOP rule for operation {name}: add its formula to FORMULAS, or its name to the free operations,"
            " in stackwise_ray/metrics/flop_rules.py (a custom op's formula: stackwise_ray/kernels/flop_formulas.py)"
        )

    def _add(self, packet: Any, formula: Any, args: Any, kwargs: Any, result: Any) -> None:
        shapes, named, out_shape = (_shapes(values) for values in (args, kwargs, result))
        flops = formula(*shapes, out_shape=out_shape, **named)
        if torch._C._current_graph_task_id() == -1:
            self.forward += flops
        elif _is_recomputing():
            self.recomputed += flops
        else:
            self.backward += flops
            again = RECOMPUTED.get(packet)
            if again is not None:
                self.recomputed += again(*shapes, out_shape=out_shape, **named)


_QUESTIONS = ("aten::sym_", "aten::is_contiguous", "aten::is_strides_like_format", "aten::size", "aten::stride")


def _is_recomputing() -> bool:
    """Whether what runs in the backward pass is a checkpoint's second forward."""
    if torch.is_grad_enabled():
        return True
    # Inside the forward of a custom op or autograd function gradients are off, but the checkpoint's hooks stay.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == checkpoint.__module__


def _shapes(value: Any) -> Any:
    """What an operation is given or returns, with shapes in place of tensors (torch's own walk takes far longer)."""
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, dict):
        return {name: _shapes(one) for name, one in value.items()}
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(_shapes(one) for one in value)
    return value


def _name(func: Any) -> str:
    schema = getattr(func, "_schema", None)
    name = schema.name if schema is not None else str(func)
    return name[:-1] if name.endswith("_") else name


def count_flops(model: nn.Module, input_ids: torch.Tensor) -> FlopCount:
    """FLOPs of one training step of `model` on one batch: forward, loss, backward, AdamW update.

    Decoders predict the next token and encoders masked tokens; both compute logits at all positions, and the loss
    itself is free by convention. The model is run, on its own device ("meta" costs nothing); its gradients, weights
    and random streams stay as they were.

    Args:
        model: A model of this package, or any whose output has `logits`.
        input_ids: Token ids, (batch, seq_len) int64, on the model's device.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    devices = [input_ids.device] if input_ids.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), FlopCounter() as counter:
        loss = model(input_ids=input_ids).logits.float().logsumexp(-1).sum()
        if trained:
            torch.autograd.grad(loss, trained, allow_unused=True)
    counted: FlopCount = counter.count
    return counted + FlopCount(optimizer=optimizer_flops(model))


def optimizer_flops(model: nn.Module) -> int:
    """FLOPs of one AdamW update: 15 per trained parameter; a tied matrix is one.

    Counted from the algorithm as Loshchilov & Hutter 2019 (1711.05101, algorithm 2) write it, each multiplication,
    addition, division and square root once; factors that are one number per step (1 − β, 1 − βᵗ, 1 − ηλ) are free:

    =================================  ==
    m ← β₁ m + (1 − β₁) g               3
    v ← β₂ v + (1 − β₂) g²              4
    m̂ = m / (1 − β₁ᵗ)                   1
    v̂ = v / (1 − β₂ᵗ)                   1
    √v̂ + ε                              2
    θ ← θ − η m̂ / (√v̂ + ε)              3
    θ ← (1 − η λ) θ                     1
    =================================  ==

    Implementations fold constants and spend a little less; gradient clipping is a reduction and a scaling, free by
    convention. The number is the same whatever runs, so that budgets compare.
    """
    trained = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    return ADAMW_FLOPS_PER_PARAMETER * sum(trained.values())
