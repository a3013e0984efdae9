"""The `torch` backend: the recursions as few torch calls over all lanes at once, complex128 inside, any device.

A lane is one (sequence, head). Everything is laid out position-major, (rows, lanes) or (rows, P, lanes), so that one
position of all lanes is contiguous. With many lanes the recursions run straight over the positions, one torch call
each. With few, a call's fixed cost dominates: the positions are cut into chunks that advance together. A chunk's
effect on what enters it is a Möbius map (for the cavity recursion) or a product of coefficients (for the linear
recurrences), so a short loop over chunks links them. The cavity values themselves always come from the contractive
recursion, started at the linked boundary.

Called through `stackwise_ray.kernels.ops`; not meant to be called directly. Shape letters: B batch, H heads,
N positions, L = B·H lanes, R >= N rows (N padded to whole chunks), P value width, C chunks, S steps of a chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stackwise_ray.kernels.backends import BACKENDS, Backend

DIRECT_LANES = 128
"""From this many values a position on, a straight loop beats chunks (measured, one AVX2 core)."""

RESCALE_EVERY = 8
"""Steps between two rescalings of a chunk's Möbius map: entries below 1e38 then stay inside float64."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of one call and how its positions are cut into chunks."""

    batch: int
    heads: int
    n: int
    steps: int  # of a chunk; n where the positions are not cut

    @classmethod
    def of(cls, potential: Tensor) -> Geometry:
        batch, heads, n = potential.shape
        straight = batch * heads >= DIRECT_LANES or n < 8
        return cls(batch, heads, n, n if straight else math.isqrt(n - 1) + 1)

    @property
    def lanes(self) -> int:
        return self.batch * self.heads

    @property
    def rows(self) -> int:
        return -(-self.n // self.steps) * self.steps

    def chunks(self, x: Tensor) -> Tensor:
        """A view (C, S, ..., L) of (R, ..., L)."""
        return x.view(-1, self.steps, *x.shape[1:])

    def public(self, x_RL: Tensor, first: int = 0, count: int | None = None) -> Tensor:
        """A view (B, H, count) or (B, H, count, P) of rows in lane layout."""
        rows = x_RL[first : first + (self.n if count is None else count)].unflatten(-1, (self.batch, self.heads))
        return rows.permute(1, 2, 0) if rows.ndim == 3 else rows.permute(2, 3, 0, 1)


# ------------------------------------------------------------------------------------- into the lane layout


def _denominators_without_coupling(potential: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
    """d_i = a_i − z_i as (R, L); rows of padding hold −i, which any coupling leaves harmless."""
    n, batch, heads = geometry.n, geometry.batch, geometry.heads
    d = torch.empty(geometry.rows, batch, heads, dtype=torch.complex128, device=potential.device)
    d[n:] = -1j
    d[:n].copy_(potential.permute(2, 0, 1))
    d[:n].sub_(shift.to(torch.complex128).expand(batch, heads, n).permute(2, 0, 1))
    return d.view(geometry.rows, geometry.lanes)


def _coupling_before(x: Tensor, geometry: Geometry) -> Tensor:
    """The coupling between positions i−1 and i as complex (R, L); a view of one row where it is the same for all i.

    What stands before the first position meets zeros only. Padding is decoupled, so that nothing enters from it.
    """
    n, batch, heads = geometry.n, geometry.batch, geometry.heads
    if geometry.rows == n and (x.ndim == 0 or x.shape[-1] == 1):
        row = (x[..., 0] if x.ndim else x).to(torch.complex128).expand(batch, heads)
        return row.reshape(1, geometry.lanes).expand(geometry.rows, geometry.lanes)
    rows = torch.zeros(geometry.rows, batch, heads, dtype=torch.complex128, device=x.device)
    rows[1:n].copy_(x.expand(batch, heads, n - 1).permute(2, 0, 1))
    return rows.view(geometry.rows, geometry.lanes)


def _shifted_up(x_RL: Tensor) -> Tensor:
    """Row i of the answer is row i+1 of `x`: turns a coupling before a position into the one after it."""
    if x_RL.stride(0) == 0:
        return x_RL
    return torch.cat([x_RL[1:], torch.zeros_like(x_RL[:1])])


def _values_to_lanes(x_BHNP: Tensor, geometry: Geometry) -> Tensor:
    """(B, H, N, P) as complex (R, P, L), zeros in the padding."""
    n = geometry.n
    shape = (geometry.rows, x_BHNP.shape[3], geometry.batch, geometry.heads)
    rows = torch.empty(shape, dtype=torch.complex128, device=x_BHNP.device)
    rows[n:] = 0
    rows[:n].copy_(x_BHNP.permute(2, 3, 0, 1))
    return rows.flatten(2)


def _diagonal_to_lanes(x_BHN: Tensor, geometry: Geometry) -> Tensor:
    """(B, H, N) as complex (R, L), zeros in the padding."""
    return _values_to_lanes(x_BHN.unsqueeze(-1), geometry).squeeze(1)


# ---------------------------------------------------------------------------------------- the two recursions


def _continued_fraction_(d_RL: Tensor, k_RL: Tensor, geometry: Geometry) -> Tensor:
    """Overwrites d by the denominators w_i = d_i − k_{i−1} / w_{i−1} = 1 / gL_i."""
    d, k = geometry.chunks(d_RL), geometry.chunks(k_RL)
    d_S, k_S = d.unbind(1), k.unbind(1)
    if d.shape[0] > 1:
        d_S[0][1:].sub_(k_S[0][1:] * _incoming_cavity(d_S, k_S))
    for i in range(1, geometry.steps):
        d_S[i].addcdiv_(k_S[i], d_S[i - 1], value=-1)
    return d_RL


def _incoming_cavity(d_S: tuple[Tensor, ...], k_S: tuple[Tensor, ...]) -> Tensor:
    """The cavity value that enters each chunk but the first, (C−1, L), by composing the chunks' Möbius maps.

    A chunk maps what enters it to (α g + β) / (γ g + δ); the rows (α, β) and (γ, δ) are continuants, which obey
    q_i = d_i q_{i−1} − k_{i−1} q_{i−2}.
    """
    zero, one = torch.zeros_like(d_S[0][:-1]), torch.ones_like(d_S[0][:-1])
    numerator, denominator = torch.stack([zero, one]), torch.stack([-k_S[0][:-1], d_S[0][:-1]])
    for i in range(1, len(d_S)):
        following = d_S[i][:-1] * denominator
        following.addcmul_(k_S[i][:-1], numerator, value=-1)
        numerator, denominator = denominator, following
        if i % RESCALE_EVERY == 0:
            scale = denominator.abs().amax(0).add_(numerator.abs().amax(0)).reciprocal_()
            numerator, denominator = numerator * scale, denominator * scale
    entering = torch.empty_like(one)
    g = zero[0]
    for c in range(entering.shape[0]):
        g = torch.addcmul(numerator[1, c], numerator[0, c], g) / torch.addcmul(denominator[1, c], denominator[0, c], g)
        entering[c] = g
    return entering


def _scan_(x: Tensor, coefficient: Tensor, geometry: Geometry, *, reverse: bool = False) -> Tensor:
    """Overwrites x by the linear recurrence x_i += coefficient_i · x_{i−1} (x_{i+1} where reversed)."""
    straight = geometry.steps == x.shape[0] or x[0].numel() >= DIRECT_LANES
    x_CS = x.unsqueeze(0) if straight else geometry.chunks(x)
    c_CS = coefficient.unsqueeze(0) if straight else geometry.chunks(coefficient)
    x_S, c_S = x_CS.unbind(1), c_CS.unbind(1)
    order = range(len(x_S) - 1, -1, -1) if reverse else range(len(x_S))
    _advance_(x_S, c_S, order)
    if straight:
        return x
    # c_CS becomes the product of coefficients from the chunk's entrance: what enters is added with that weight.
    product = c_CS.clone()
    product_S = product.unbind(1)
    for here, before in zip(order[1:], order[:-1], strict=True):
        product_S[here].mul_(product_S[before])
    last = order[-1]
    chunks = range(x_CS.shape[0] - 1, -1, -1) if reverse else range(x_CS.shape[0])
    _advance_(x_S[last].unbind(0), product_S[last].unbind(0), chunks)
    inside = slice(1, None) if reverse else slice(None, -1)
    into, out_of = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
    x_CS[into, inside].addcmul_(product[into, inside], x_S[last][out_of].unsqueeze(1))
    return x


def _advance_(x: tuple[Tensor, ...], coefficient: tuple[Tensor, ...], order: range) -> None:
    for here, before in zip(order[1:], order[:-1], strict=True):
        x[here].addcmul_(coefficient[here], x[before])


# ------------------------------------------------------------------------------------------------ the diagonal


def _left_cavity(potential: Tensor, k_RL: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
    w = _continued_fraction_(_denominators_without_coupling(potential, shift, geometry), k_RL, geometry)
    return _reciprocal(w)


def _reciprocal(w: Tensor) -> Tensor:
    # torch's complex reciprocal takes twice the time of its complex division
    return torch.div(torch.ones((), dtype=w.dtype, device=w.device), w)


def _cavities(potential: Tensor, k_RL: Tensor, shift: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """gL, gR and G_ii as (R, L)."""
    d = _denominators_without_coupling(potential, shift, geometry)
    left_w = _continued_fraction_(d.clone(), k_RL, geometry)
    after = _shifted_up(k_RL)
    right = _reciprocal(_continued_fraction_(d.flip(0), after.flip(0), geometry)).flip(0)
    if geometry.rows > 1:
        w = left_w.clone()
        w[:-1].addcmul_(after[:-1], right[1:], value=-1)
    else:
        w = left_w
    return _reciprocal(left_w), right, _reciprocal(w)


def diagonal(potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool) -> Tensor:
    """See `reference.diagonal`."""
    geometry = Geometry.of(potential)
    k = _coupling_before(coupling, geometry)
    if causal:
        return geometry.public(_left_cavity(potential, k, shift, geometry))
    return geometry.public(_cavities(potential, k, shift, geometry)[2])


def diagonal_backward(
    grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.diagonal_backward`."""
    geometry = Geometry.of(potential)
    k = _coupling_before(coupling, geometry)
    gamma = _diagonal_to_lanes(grad.conj(), geometry)
    if causal:
        g = _left_cavity(potential, k, shift, geometry)
        w, grad_k = _causal_adjoint(g, k, gamma.mul_(g).mul_(g), geometry)
        return _as_gradients(w.neg_(), grad_k, geometry)
    left, right, g = _cavities(potential, k, shift, geometry)
    s = gamma.mul_(g).mul_(g).neg_()
    p = _scan_(s.clone(), _shifted_up(k) * left * left, geometry, reverse=True)
    q = _scan_(s.clone(), k * right * right, geometry)
    grad_k = -(p[1:] * left[:-1]).add_(q[:-1] * right[1:]).real
    return _as_gradients(p.add_(q).sub_(s), grad_k, geometry)


def _causal_adjoint(g: Tensor, k: Tensor, source: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """w_i = source_i + k_i g_i² w_{i+1} (source overwritten), and ∂L/∂k_i = Re(w_{i+1} g_i)."""
    w = _scan_(source, _shifted_up(k) * g * g, geometry, reverse=True)
    return w, (w[1:] * g[:-1]).real


def _as_gradients(total: Tensor, grad_k: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """(∂a, ∂k, ∂z) from D: ∂a = Re D, ∂z = −conj D."""
    public = geometry.public(total)
    return public.real, geometry.public(grad_k, 0, geometry.n - 1), -public.conj()


# --------------------------------------------------------------------------------------------------- the apply


def apply(potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, causal: bool) -> Tensor:
    """See `reference.apply`."""
    geometry = Geometry.of(potential)
    t = _coupling_before(hop, geometry)
    left = _left_cavity(potential, t * t, shift, geometry)
    return geometry.public(_substitute_(_values_to_lanes(values, geometry), left, t, geometry, causal))


def _substitute_(x: Tensor, left: Tensor, t: Tensor, geometry: Geometry, causal: bool) -> Tensor:
    """Overwrites x by u, or by G x where not causal."""
    x.mul_(left.unsqueeze(1))
    _scan_(x, (left * t).unsqueeze(1), geometry)
    if not causal:
        _scan_(x, (left * _shifted_up(t)).unsqueeze(1), geometry, reverse=True)
    return x


def apply_backward(
    grad: Tensor, potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, output: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.apply_backward`; reads the saved output instead of repeating the substitution.

    With u_i = gL_i (x_i + t_{i−1} u_{i−1}) the adjoint's source is g_i² Γ_i = gL_i Σ_p mu_i u_i.
    """
    del values
    geometry = Geometry.of(potential)
    t = _coupling_before(hop, geometry)
    k = t * t
    left = _left_cavity(potential, k, shift, geometry)
    upstream = _values_to_lanes(grad.conj(), geometry)
    saved = _values_to_lanes(output, geometry)
    if not causal:
        adjoint = _substitute_(upstream, left, t, geometry, causal=False)
        crossed = _inner(adjoint[:-1], saved[1:]).add_(_inner(adjoint[1:], saved[:-1])).real
        grad_a, grad_t, grad_z = _as_gradients(_inner(adjoint, saved).neg_(), crossed, geometry)
        return grad_a, grad_t, grad_z, geometry.public(adjoint).conj()
    # The scan's coefficient at i is t_i gL_{i+1}.
    mu = _scan_(upstream, _shifted_up(left * t).unsqueeze(1), geometry, reverse=True)
    w, grad_k = _causal_adjoint(left, k, _inner(mu, saved).mul_(left), geometry)
    mu.mul_(left.unsqueeze(1))
    grad_t = _inner(mu[1:], saved[:-1]).real.addcmul_(t[1:].real, grad_k, value=2)
    grad_a, grad_t, grad_z = _as_gradients(w.neg_(), grad_t, geometry)
    return grad_a, grad_t, grad_z, geometry.public(mu).conj()


def _inner(x_RPL: Tensor, y_RPL: Tensor) -> Tensor:
    """Σ_p x y as (R, L), without a product of full size."""
    total = x_RPL[:, 0] * y_RPL[:, 0]
    for p in range(1, x_RPL.shape[1]):
        total.addcmul_(x_RPL[:, p], y_RPL[:, p])
    return total


BACKENDS.register("torch")(
    Backend(
        name="torch",
        rank=100,
        unusable=lambda: None,
        diagonal=diagonal,
        diagonal_backward=diagonal_backward,
        apply=apply,
        apply_backward=apply_backward,
    )
)
