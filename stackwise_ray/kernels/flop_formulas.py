"""Counted FLOPs of the resolvent ops, from shapes alone: the same on every device, backend and `gradient`.

What is counted is the recursion of the definition (`backends/reference.py`) with one visit to each position, in real
additions, multiplications and divisions: complex + complex 2, real × complex 2, complex × complex 6, complex square
5 (x² − y² as (x+y)(x−y), 2xy), complex reciprocal 6 (|w|² 3, one division, two products), real part of a product 3,
change of sign or conjugation 0. Values count as real; complex ones cost one more addition a value, which a shape does
not show. A boundary position counts like an inner one. What a backward pass computes again of its forward pass is
recomputation: it is in no formula.

One element is one (batch, head, position); P is the width of the values.

| op                      | an element                                                                          |
|-------------------------|-------------------------------------------------------------------------------------|
| causal diagonal         | d = a − z 1; k g 2; subtract 2; reciprocal 6                                 = 11   |
|   backward              | g² 5; k w 2; + Γ 2; × g² 6; ∂k = Re(w g) 3; sum of ∂z 2                      = 20   |
| two-sided diagonal      | d 1; two cavities of 2 + 2 + 6; w_L − k gR 2; reciprocal 6                   = 29   |
|   backward              | g² 5; s 6; p and q: square 5, × k 2, × 6, + 2; D 4; ∂k 3 + 3 + 1; sum of ∂z 2 = 54  |
| causal apply            | k = t² 1; causal diagonal 11; P × (t u 2; + x 1; × gL 6)                     = 12 + 9P  |
|   backward              | t gL 2; P × (t gL mu 6; + Y 2; gL mu 6; mu u 6; sum 2; Re(gL mu u) 3; sum 1) = 2 + 26P,  |
|                         | then × gL 6; gL² 5; × k 2; × w 6; + 2; ∂k 3; 2 t ∂k 2; + 1; sum of ∂z 2      = 29   |
| two-sided apply         | as causal; t gL 2; P × (t gL y 6; + u 2)                                     = 14 + 17P |
|   backward              | Λ: 2 + P × (t u 2; + Y 2; × gL 6; t gL y 6; + 2) = 2 + 18P; Σ Λ y P × 8;               |
|                         | ∂t P × (3 + 3 + 2); sum of ∂z 2                                              = 4 + 34P |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from stackwise_ray.kernels import ops as _ops  # noqa: F401  (registers the ops)

Shape = Sequence[int]


def diagonal_flops(potential: Shape, coupling: Shape, shift: Shape, causal: bool, *_: Any, **__: Any) -> int:
    """FLOPs of `resolvent_diagonal`: 11 per element causal, 29 two-sided."""
    return prod(potential) * (11 if causal else 29)


def diagonal_backward_flops(
    grad: Shape, potential: Shape, coupling: Shape, shift: Shape, causal: bool, *_: Any, **__: Any
) -> int:
    """FLOPs of its backward pass: 20 per element causal, 54 two-sided."""
    return prod(potential) * (20 if causal else 54)


def apply_flops(potential: Shape, hop: Shape, shift: Shape, values: Shape, causal: bool, *_: Any, **__: Any) -> int:
    """FLOPs of `resolvent_apply`: 12 + 9P an element causal, 14 + 17P two-sided."""
    width = values[-1]
    return prod(potential) * (12 + 9 * width if causal else 14 + 17 * width)


def apply_backward_flops(
    grad: Shape,
    potential: Shape,
    hop: Shape,
    shift: Shape,
    values: Shape,
    output: Shape,
    causal: bool,
    *_: Any,
    **__: Any,
) -> int:
    """FLOPs of its backward pass: 31 + 26P an element causal, 4 + 34P two-sided."""
    width = values[-1]
    return prod(potential) * (31 + 26 * width if causal else 4 + 34 * width)


FLOP_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.stackwise_ray.resolvent_diagonal: diagonal_flops,
    torch.ops.stackwise_ray.resolvent_diagonal_backward: diagonal_backward_flops,
    torch.ops.stackwise_ray.resolvent_apply: apply_flops,
    torch.ops.stackwise_ray.resolvent_apply_backward: apply_backward_flops,
}
"""Op packet -> formula. A formula takes the op's own arguments with every tensor replaced by its shape, and ignores
further ones (`torch.utils.flop_counter` adds ``out_val`` or ``out_shape``)."""
