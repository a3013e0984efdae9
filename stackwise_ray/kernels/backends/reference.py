"""The definition of the resolvent ops: plain loops over positions in complex128, to be read and tested against.

Slow on purpose. Notation: d_i = a_i − z_i; k_i (= t_i²) couples positions i and i+1, so lists of couplings have one
entry fewer than lists of positions; Γ = conj(torch gradient). Every loop works on (batch, heads) slices.

Source: cavity (continued-fraction) recursions for the Green function of a tridiagonal matrix; the adjoints follow by
reversing them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stackwise_ray.kernels.backend import BACKENDS, Backend


def _columns(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The (batch, heads) slices of an argument along its positions, at full precision."""
    return x.to(dtype).expand(shape).unbind(2)


def _diagonal_of(potential: Tensor, shift: Tensor) -> list[Tensor]:
    shape = tuple(potential.shape)
    return [
        a - z
        for a, z in zip(
            _columns(potential, shape, torch.complex128),
            _columns(shift, shape, torch.complex128),
            strict=True,
        )
    ]


def _couplings(x: Tensor, potential: Tensor) -> tuple[Tensor, ...]:
    batch, heads, n = potential.shape
    return _columns(x, (batch, heads, n - 1), torch.float64)


def left_cavity(d: list[Tensor], k: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    """gL_i = 1 / (d_i − k_{i−1} gL_{i−1}): the last diagonal entry of (T_{1..i} − z)⁻¹."""
    g = [1 / d[0]]
    for i in range(1, len(d)):
        g.append(1 / (d[i] - k[i - 1] * g[i - 1]))
    return g


def right_cavity(d: list[Tensor], k: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    """gR_i = 1 / (d_i − k_i gR_{i+1}): the first diagonal entry of (T_{i..N} − z)⁻¹."""
    return left_cavity(d[::-1], k[::-1])[::-1]


def full_diagonal(d: list[Tensor], k: tuple[Tensor, ...], left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    """g_i = 1 / (d_i − k_{i−1} gL_{i−1} − k_i gR_{i+1}) = G_ii."""
    g = []
    for i in range(len(d)):
        w = d[i]
        if i > 0:
            w = w - k[i - 1] * left[i - 1]
        if i + 1 < len(d):
            w = w - k[i] * right[i + 1]
        g.append(1 / w)
    return g


def diagonal(potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool) -> Tensor:
    """diag (T − z)⁻¹, or its causal form gL; differentiable by autograd."""
    d, k = _diagonal_of(potential, shift), _couplings(coupling, potential)
    left = left_cavity(d, k)
    return torch.stack(left if causal else full_diagonal(d, k, left, right_cavity(d, k)), dim=2)


def causal_diagonal_adjoint(
    g: list[Tensor], k: tuple[Tensor, ...] | list[Tensor], gamma: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """w_i = g_i² (Γ_i + k_i w_{i+1}) and ∂L/∂k_i = Re(w_{i+1} g_i)."""
    n = len(g)
    w = list(gamma)
    for i in reversed(range(n)):
        w[i] = g[i] ** 2 * (gamma[i] + k[i] * w[i + 1] if i + 1 < n else gamma[i])
    return w, [(w[i + 1] * g[i]).real for i in range(n - 1)]


def diagonal_backward(
    grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `diagonal` to potential, coupling and shift, unreduced."""
    d, k = _diagonal_of(potential, shift), _couplings(coupling, potential)
    n = len(d)
    gamma = list(grad.to(torch.complex128).conj().unbind(2))
    left = left_cavity(d, k)
    if causal:
        w, grad_k = causal_diagonal_adjoint(left, k, gamma)
        return -_positions(w, grad).real, _positions(grad_k, grad), _positions(w, grad).conj()
    right = right_cavity(d, k)
    g = full_diagonal(d, k, left, right)
    s = [-(g[i] ** 2) * gamma[i] for i in range(n)]
    p, q = list(s), list(s)
    for i in reversed(range(n - 1)):
        p[i] = s[i] + k[i] * left[i] ** 2 * p[i + 1]
    for i in range(1, n):
        q[i] = s[i] + k[i - 1] * right[i] ** 2 * q[i - 1]
    total = torch.stack([p[i] + q[i] - s[i] for i in range(n)], dim=2)
    grad_k = [-(p[i + 1] * left[i] + q[i] * right[i + 1]).real for i in range(n - 1)]
    return total.real, _positions(grad_k, grad), -total.conj()


def forward_substitution(left: list[Tensor], t: tuple[Tensor, ...], x: tuple[Tensor, ...]) -> list[Tensor]:
    """u_i = gL_i (x_i + t_{i−1} u_{i−1})."""
    u = [left[0][..., None] * x[0]]
    for i in range(1, len(x)):
        u.append(left[i][..., None] * (x[i] + t[i - 1][..., None] * u[i - 1]))
    return u


def backward_substitution(left: list[Tensor], t: tuple[Tensor, ...], u: list[Tensor]) -> list[Tensor]:
    """y_i = u_i + t_i gL_i y_{i+1}, which turns the causal u into y = G x."""
    y = list(u)
    for i in reversed(range(len(u) - 1)):
        y[i] = u[i] + (t[i] * left[i])[..., None] * y[i + 1]
    return y


def apply(potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, causal: bool) -> Tensor:
    """(T − z)⁻¹ values, or its causal form u; differentiable by autograd."""
    d, t = _diagonal_of(potential, shift), _couplings(hop, potential)
    left = left_cavity(d, [t_i**2 for t_i in t])
    u = forward_substitution(left, t, values.to(torch.complex128).unbind(2))
    return torch.stack(u if causal else backward_substitution(left, t, u), dim=2)


def apply_backward(
    grad: Tensor, potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, output: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `apply` to potential, hop, shift and values, unreduced; recomputes the output in complex128."""
    del output
    d, t = _diagonal_of(potential, shift), _couplings(hop, potential)
    n = len(d)
    k = [t_i**2 for t_i in t]
    left = left_cavity(d, k)
    x = values.to(torch.complex128).unbind(2)
    u = forward_substitution(left, t, x)
    upstream = grad.to(torch.complex128).conj().unbind(2)
    if not causal:
        y = backward_substitution(left, t, u)
        adjoint = backward_substitution(left, t, forward_substitution(left, t, upstream))
        product = torch.stack([(adjoint[i] * y[i]).sum(-1) for i in range(n)], dim=2)
        grad_t = [(adjoint[i] * y[i + 1] + adjoint[i + 1] * y[i]).sum(-1).real for i in range(n - 1)]
        return -product.real, _positions(grad_t, grad), product.conj(), torch.stack(adjoint, dim=2).conj()
    mu = list(upstream)
    for i in reversed(range(n - 1)):
        mu[i] = upstream[i] + (t[i] * left[i + 1])[..., None] * mu[i + 1]
    gamma = [(mu[0] * x[0]).sum(-1)]
    for i in range(1, n):
        gamma.append((mu[i] * (x[i] + t[i - 1][..., None] * u[i - 1])).sum(-1))
    w, grad_k = causal_diagonal_adjoint(left, k, gamma)
    grad_t = [(mu[i + 1] * left[i + 1][..., None] * u[i]).sum(-1).real + 2 * t[i] * grad_k[i] for i in range(n - 1)]
    grad_x = torch.stack([(left[i][..., None] * mu[i]).conj() for i in range(n)], dim=2)
    return -_positions(w, grad).real, _positions(grad_t, grad), _positions(w, grad).conj(), grad_x


def _positions(columns: list[Tensor], like: Tensor) -> Tensor:
    """Stacks slices along the positions; no slice gives an empty axis."""
    if columns:
        return torch.stack(columns, dim=2)
    return like.new_zeros((*like.shape[:2], 0), dtype=torch.float64)


BACKENDS.register("reference")(
    Backend(
        name="reference",
        rank=1000,
        unusable=lambda: None,
        diagonal=diagonal,
        diagonal_backward=diagonal_backward,
        apply=apply,
        apply_backward=apply_backward,
    )
)
