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
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stackwise_ray.kernels.backend import BACKENDS, Backend, complex_dtype, output_like

CAVITY_STRAIGHT_FROM, SCAN_STRAIGHT_FROM = 128, 512
"""From this many values per position on, the straight loop of the recursion beats chunks (measured, one AVX2 core)."""

BLOCK_VALUES = 65_536
"""Values of a block of positions in the causal apply: its complex128 temporaries then stay in a core's cache."""

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
        return cls(batch, heads, n, n if batch * heads >= SCAN_STRAIGHT_FROM or n < 8 else math.isqrt(n - 1) + 1)

    def straight(self, values: int, bound: int = SCAN_STRAIGHT_FROM) -> bool:
        """Whether a recursion over this many values per position runs straight over the positions."""
        return self.steps == self.n or values >= bound

    def blocks(self, width: int) -> list[range]:
        """All rows, cut where the recursion of values of this width is straight and can be taken up again."""
        size = self.rows
        if self.straight(self.lanes * width):
            size = max(BLOCK_VALUES // (self.lanes * width), 1)
        return [range(start, min(start + size, self.rows)) for start in range(0, self.rows, size)]

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
        rows = x_RL[first : first + (self.n if count is None else count)]
        rows = rows.view(*rows.shape[:-1], self.batch, self.heads)
        return rows.permute(1, 2, 0) if rows.ndim == 3 else rows.permute(2, 3, 0, 1)


# ------------------------------------------------------------------------------------- into the lane layout


def _denominators_without_coupling(potential: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
    """d_i = a_i − z_i as (R, L); rows of padding hold −i, which any coupling leaves harmless."""
    n, batch, heads = geometry.n, geometry.batch, geometry.heads
    d = torch.empty(geometry.rows, batch, heads, dtype=torch.complex128, device=potential.device)
    d[n:].fill_(-1j)
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


def _values_to_lanes(x_BHNP: Tensor, geometry: Geometry, rows: range) -> Tensor:
    """Positions `rows` of (B, H, N, P) as complex (rows, P, L), zeros in the padding."""
    n, width = len(rows), x_BHNP.shape[3]
    lanes = torch.empty(n, width, geometry.lanes, dtype=torch.complex128, device=x_BHNP.device)
    inside = max(min(geometry.n - rows.start, n), 0)
    lanes[inside:] = 0
    # In two steps, since a copy that reorders four axes at once runs in short strided pieces.
    part = x_BHNP[:, :, rows.start : rows.start + inside].permute(2, 0, 1, 3).contiguous()
    lanes[:inside].copy_(part.view(inside, geometry.lanes, width).transpose(1, 2))
    return lanes


def _values_from_lanes(x_RPL: Tensor, geometry: Geometry, rows: range, out_BHNP: Tensor) -> None:
    """Writes positions `rows` of the result, in its type; of a real result the real part."""
    inside = max(min(geometry.n - rows.start, len(rows)), 0)
    lanes = x_RPL[:inside] if out_BHNP.is_complex() else x_RPL[:inside].real
    part = torch.empty(inside, geometry.lanes, x_RPL.shape[1], dtype=out_BHNP.dtype, device=x_RPL.device)
    part.copy_(lanes.transpose(1, 2))
    part = part.view(inside, geometry.batch, geometry.heads, x_RPL.shape[1]).permute(1, 2, 0, 3)
    out_BHNP[:, :, rows.start : rows.start + inside].copy_(part)


def _diagonal_to_lanes(x_BHN: Tensor, geometry: Geometry) -> Tensor:
    """(B, H, N) as complex (R, L), zeros in the padding."""
    return _values_to_lanes(x_BHN.unsqueeze(-1), geometry, range(geometry.rows)).squeeze(1)


# ---------------------------------------------------------------------------------------- the two recursions


def _continued_fraction_(d_RL: Tensor, k_RL: Tensor, geometry: Geometry) -> Tensor:
    """Overwrites d by the denominators w_i = d_i − k_{i−1} / w_{i−1} = 1 / gL_i."""
    if geometry.straight(geometry.lanes, CAVITY_STRAIGHT_FROM):
        d_S, k_S = d_RL.unbind(0), k_RL.unbind(0)
    else:
        d_S, k_S = geometry.chunks(d_RL).unbind(1), geometry.chunks(k_RL).unbind(1)
        d_S[0][1:].sub_(k_S[0][1:] * _incoming_cavity(d_S, k_S))
    for here, before in _order(len(d_S), reverse=False):
        d_S[here].addcdiv_(k_S[here], d_S[before], value=-1)
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


def _scan_(
    x: Tensor, coefficient: Tensor, geometry: Geometry, entering: Tensor | None = None, *, reverse: bool = False
) -> Tensor:
    """Overwrites x by the linear recurrence x_i += coefficient_i · x_{i−1} (x_{i+1} where reversed).

    `x` holds all rows, or a block of them; `entering` is then the row that comes before the block.
    """
    if entering is not None:
        first = -1 if reverse else 0
        x[first].addcmul_(coefficient[first], entering)
    if geometry.straight(x[0].numel()):
        _advance_(x.unbind(0), coefficient.unbind(0), reverse)
        return x
    x_CS, c_CS = geometry.chunks(x), geometry.chunks(coefficient)
    x_S = x_CS.unbind(1)
    _advance_(x_S, c_CS.unbind(1), reverse)
    # Products of coefficients from the entrance of a chunk: what enters it is added with that weight.
    product = c_CS.clone()
    product_S = product.unbind(1)
    for here, before in _order(len(x_S), reverse):
        product_S[here].mul_(product_S[before])
    last = 0 if reverse else -1
    _advance_(x_S[last].unbind(0), product_S[last].unbind(0), reverse)
    inside = slice(1, None) if reverse else slice(None, -1)
    into, out_of = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
    x_CS[into, inside].addcmul_(product[into, inside], x_S[last][out_of].unsqueeze(1))
    return x


def _order(count: int, reverse: bool) -> Iterable[tuple[int, int]]:
    """(here, before) pairs in the direction of a recursion."""
    if reverse:
        return zip(range(count - 2, -1, -1), range(count - 1, 0, -1), strict=True)
    return zip(range(1, count), range(count - 1), strict=True)


def _advance_(x: tuple[Tensor, ...], coefficient: tuple[Tensor, ...], reverse: bool) -> None:
    for here, before in _order(len(x), reverse):
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
    """See `reference.apply`; the result has the op's own type and layout."""
    geometry = Geometry.of(potential)
    t = _coupling_before(hop, geometry)
    left = _left_cavity(potential, t * t, shift, geometry)
    output = output_like(potential, tuple(values.shape), complex_dtype(potential))
    if not causal:
        everything = range(geometry.rows)
        u = _substitute_(_values_to_lanes(values, geometry, everything), left, t, geometry)
        _values_from_lanes(u, geometry, everything, output)
        return output
    coefficient, entering = (left * t).unsqueeze(1), None
    for rows in geometry.blocks(values.shape[3]):
        part = slice(rows.start, rows.stop)
        u = _values_to_lanes(values, geometry, rows).mul_(left[part].unsqueeze(1))
        _scan_(u, coefficient[part], geometry, entering)
        _values_from_lanes(u, geometry, rows, output)
        entering = u[-1]
    return output


def _substitute_(x: Tensor, left: Tensor, t: Tensor, geometry: Geometry) -> Tensor:
    """Overwrites x by G x."""
    x.mul_(left.unsqueeze(1))
    _scan_(x, (left * t).unsqueeze(1), geometry)
    return _scan_(x, (left * _shifted_up(t)).unsqueeze(1), geometry, reverse=True)


def apply_backward(
    grad: Tensor, potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, output: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.apply_backward`; reads the saved output instead of repeating the substitution."""
    geometry = Geometry.of(potential)
    t = _coupling_before(hop, geometry)
    left = _left_cavity(potential, t * t, shift, geometry)
    grad_values = output_like(values, tuple(values.shape), values.dtype)
    step = _causal_apply_backward if causal else _two_sided_apply_backward
    total, grad_t = step(grad.conj(), output, left, t, geometry, grad_values)
    return *_as_gradients(total, grad_t, geometry), grad_values.conj_physical_()


def _two_sided_apply_backward(
    upstream: Tensor, output: Tensor, left: Tensor, t: Tensor, geometry: Geometry, grad_values: Tensor
) -> tuple[Tensor, Tensor]:
    everything = range(geometry.rows)
    adjoint = _substitute_(_values_to_lanes(upstream, geometry, everything), left, t, geometry)
    y = _values_to_lanes(output, geometry, everything)
    _values_from_lanes(adjoint, geometry, everything, grad_values)
    crossed = _inner(adjoint[:-1], y[1:]).add_(_inner(adjoint[1:], y[:-1])).real
    return _inner(adjoint, y).neg_(), crossed


def _causal_apply_backward(
    upstream: Tensor, output: Tensor, left: Tensor, t: Tensor, geometry: Geometry, grad_values: Tensor
) -> tuple[Tensor, Tensor]:
    """With u_i = gL_i (x_i + t_{i−1} u_{i−1}), the source of the cavity's adjoint is g_i² Γ_i = gL_i Σ_p mu_i u_i."""
    coefficient, entering = _shifted_up(left * t).unsqueeze(1), None  # t_i gL_{i+1}
    source, crossed = torch.empty_like(left), torch.empty_like(left[1:])
    for rows in reversed(geometry.blocks(output.shape[3])):
        part = slice(rows.start, rows.stop)
        before = range(max(rows.start - 1, 0), rows.stop)
        u = _values_to_lanes(output, geometry, before)  # with the last row of the block before, where there is one
        mu = _values_to_lanes(upstream, geometry, rows)
        _scan_(mu, coefficient[part], geometry, entering, reverse=True)
        entering = mu[0].clone()
        mu.mul_(left[part].unsqueeze(1))
        _values_from_lanes(mu, geometry, rows, grad_values)
        source[part] = _inner(mu, u[-len(rows) :])
        crossed[before.start : rows.stop - 1] = _inner(mu[1 - len(before) :] if len(before) > 1 else mu[:0], u[:-1])
    w, grad_k = _causal_adjoint(left, t * t, source, geometry)
    return w.neg_(), crossed.real.addcmul(t[1:].real, grad_k, value=2)


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
