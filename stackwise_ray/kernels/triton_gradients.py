"""The adjoints of the `triton` backend as Triton kernels: each is a linear recursion of `triton_kernels`, walked from
the end, and what it gathers on the way. Tiles, letters and views are named there.
"""

# mypy: ignore-errors
# (Parameters of a kernel are pointers, numbers and tuples of them as triton sees them, for which mypy has no types.)

from __future__ import annotations

import triton
import triton.language as tl

from stackwise_ray.kernels.triton_kernels import entering_linear, linear_terms
from stackwise_ray.kernels.triton_tiles import (
    bond_at,
    bonds_of_lanes,
    constant_tile,
    last_chunk,
    load_complex,
    load_real,
    place_of,
    plus,
    selected,
    store_complex,
    store_real,
    sum_of_values,
    times,
)


@triton.jit
def _store_values(view, place, position, exists, x, COMPLEX: tl.constexpr):
    """The gradient of values, conj x; of real ones its real part."""
    if COMPLEX:
        store_complex(view, place, position, exists, (x[0], -x[1]))
    else:
        store_real(view, place, position, exists, x[0])


@triton.jit
def _complex_sum_of_values(x, CHUNKS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr):
    return sum_of_values(x[0], CHUNKS, LANES, WIDTH), sum_of_values(x[1], CHUNKS, LANES, WIDTH)


@triton.jit
def _gathered_bonds(view, total, place, i, exists, x, VARY: tl.constexpr):
    """Stores the gradient of the bond at i, or adds it to the sum over the positions of its lane."""
    if VARY:
        store_real(view, place, i, exists, x)
    else:
        total += tl.where(exists, x, 0.0)
    return total


@triton.jit
def _gathered_shift(view, total, place, i, exists, x, VARIES: tl.constexpr):
    """Stores conj x, the gradient of the shift at i, or adds x to the sum over the positions of its lane."""
    if VARIES:
        store_complex(view, place, i, exists, (x[0], -x[1]))
    else:
        total = plus(total, selected(exists, x, (0.0, 0.0)))
    return total


@triton.jit
def _store_sums(bonds, shift, place, sum_bonds, sum_shift, BONDS_VARY: tl.constexpr, SHIFT_VARIES: tl.constexpr):
    """Writes what the threads gathered over the positions, where a gradient has no axis of them."""
    first = tl.full((1, 1), 0, tl.int32)
    if not BONDS_VARY:
        store_real(bonds, place, first, place[3], _total(sum_bonds))
    if not SHIFT_VARIES:
        store_complex(shift, place, first, place[3], (_total(sum_shift[0]), -_total(sum_shift[1])))


@triton.jit
def _total(x):
    """The sum over the chunks, (1, L)."""
    return tl.sum(x, 0, keep_dims=True)


@triton.jit
def diagonal_adjoint(
    bonds,
    factors,
    source,
    crossed,
    right,
    q,
    s,
    grad_potential,
    grad_bonds,
    grad_shift,
    lanes,
    heads,
    n,
    SHAPE: tl.constexpr,
    SHIFT_VARIES: tl.constexpr,
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Gradients of a diagonal, from w_i = source_i + k_i gL_i² w_{i+1}, walked from the end.

    Causal: ∂a = −Re w, ∂z = conj w, ∂k_i = Re(w_{i+1} gL_i). With `right` = gR, `q` and `s` of the two-sided form
    (`source` is then `s`): w + q − s in place of w, ∂k_i = Re(w_{i+1} gL_i + q_i gR_{i+1}); all three have the
    opposite sign of the definition's. With `crossed`, bonds are hops of an apply: ∂t_i = crossed_i + 2 t_i ∂k_i.
    Of bonds and shift without an axis of positions the gradient is summed over the positions here.
    """
    place = place_of(tl.program_id(0) * LANES, lanes, heads, 1, LANES, 1)
    chunk, carry = tl.arange(0, CHUNKS)[:, None], constant_tile(0.0, CHUNKS, LANES)
    lane_bond = bonds_of_lanes(bonds, place, SHAPE[0])
    sum_bonds, sum_shift = tl.full((CHUNKS, LANES), 0.0, tl.float64), constant_tile(0.0, CHUNKS, LANES)
    for window in range(0, n, CHUNKS * STEPS):
        start = window + chunk * STEPS
        w = carry
        if CHUNKS > 1:
            w = entering_linear(
                bonds, factors, source, lane_bond, place, start, chunk, carry, n, SHAPE, True, STEPS, CHUNKS, LANES
            )
        for step in range(STEPS):
            j = start + step
            i, exists = n - 1 - j, place[3] & (j < n)
            bond_exists = exists & (j > 0)
            c, b, g = linear_terms(bonds, factors, source, lane_bond, place, j, n, exists, SHAPE, True)
            grad_bond = w[0] * g[0] - w[1] * g[1]
            w = plus(times(c, w), b)
            total = w
            if right is not None:
                q_i = load_complex(q, place, i, exists)
                after = load_complex(right, place, i + 1, bond_exists)
                grad_bond += q_i[0] * after[0] - q_i[1] * after[1]
                s_i = load_complex(s, place, i, exists)
                total = w[0] + q_i[0] - s_i[0], w[1] + q_i[1] - s_i[1]
            if crossed is not None:
                t = bond_at(bonds, lane_bond, place, i, bond_exists, SHAPE[0])
                grad_bond = 2.0 * t * grad_bond + load_real(crossed, place, i, bond_exists, 0.0)
            store_real(grad_potential, place, i, exists, -total[0])
            sum_bonds = _gathered_bonds(grad_bonds, sum_bonds, place, i, bond_exists, grad_bond, SHAPE[0])
            sum_shift = _gathered_shift(grad_shift, sum_shift, place, i, exists, total, SHIFT_VARIES)
        carry = last_chunk(w, chunk, CHUNKS)
    _store_sums(grad_bonds, grad_shift, place, sum_bonds, sum_shift, SHAPE[0], SHIFT_VARIES)


@triton.jit
def causal_substitution_adjoint(
    bonds,
    factors,
    grad,
    output,
    grad_values,
    source,
    crossed,
    lanes,
    heads,
    n,
    width,
    COMPLEX: tl.constexpr,
    BONDS_VARY: tl.constexpr,
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """m_i = gL_i mu_i = gL_i (Y_i + t_i m_{i+1}), walked from the end, and what the diagonal's adjoint goes on with.

    ∂x = conj m; `source` gets gL_i² Γ_i = Σ_p m_i u_i, and `crossed` Re Σ_p m_{i+1} u_i.
    """
    SHAPE: tl.constexpr = (BONDS_VARY, False, False, True, True, True)
    first_lane = tl.program_id(0) * LANES
    place = place_of(first_lane, lanes, heads, width, LANES, WIDTH)
    lane_place = place_of(first_lane, lanes, heads, 1, LANES, 1)
    chunk, carry = tl.arange(0, CHUNKS)[:, None], constant_tile(0.0, CHUNKS, LANES * WIDTH)
    lane_bond = bonds_of_lanes(bonds, place, SHAPE[0])
    for window in range(0, n, CHUNKS * STEPS):
        start = window + chunk * STEPS
        m = carry
        if CHUNKS > 1:
            m = entering_linear(
                bonds,
                factors,
                grad,
                lane_bond,
                place,
                start,
                chunk,
                carry,
                n,
                SHAPE,
                True,
                STEPS,
                CHUNKS,
                LANES * WIDTH,
            )
        for step in range(STEPS):
            j = start + step
            i, exists, lane_exists = n - 1 - j, place[3] & (j < n), lane_place[3] & (j < n)
            c, b, _ = linear_terms(bonds, factors, grad, lane_bond, place, j, n, exists, SHAPE, True)
            u = load_complex(output, place, i, exists)
            after = sum_of_values(m[0] * u[0] - m[1] * u[1], CHUNKS, LANES, WIDTH)
            m = plus(times(c, m), b)
            _store_values(grad_values, place, i, exists, m, COMPLEX)
            store_complex(source, lane_place, i, lane_exists, _complex_sum_of_values(times(m, u), CHUNKS, LANES, WIDTH))
            store_real(crossed, lane_place, i, lane_exists & (j > 0), after)
        carry = last_chunk(m, chunk, CHUNKS)


@triton.jit
def two_sided_substitution_adjoint(
    bonds,
    factors,
    forward,
    output,
    grad_values,
    grad_potential,
    grad_bonds,
    grad_shift,
    lanes,
    heads,
    n,
    width,
    COMPLEX: tl.constexpr,
    BONDS_VARY: tl.constexpr,
    SHIFT_VARIES: tl.constexpr,
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """All gradients of the two-sided apply: Λ_i = forward_i + t_i gL_i Λ_{i+1}, walked from the end.

    ∂x = conj Λ, ∂a = −Re Σ_p Λ_i y_i, ∂z = conj Σ_p Λ_i y_i, ∂t_i = Re Σ_p (Λ_i y_{i+1} + Λ_{i+1} y_i).
    """
    SHAPE: tl.constexpr = (BONDS_VARY, False, False, False, False, True)
    first_lane = tl.program_id(0) * LANES
    place = place_of(first_lane, lanes, heads, width, LANES, WIDTH)
    lane_place = place_of(first_lane, lanes, heads, 1, LANES, 1)
    chunk, carry = tl.arange(0, CHUNKS)[:, None], constant_tile(0.0, CHUNKS, LANES * WIDTH)
    lane_bond = bonds_of_lanes(bonds, place, SHAPE[0])
    sum_bonds, sum_shift = tl.full((CHUNKS, LANES), 0.0, tl.float64), constant_tile(0.0, CHUNKS, LANES)
    for window in range(0, n, CHUNKS * STEPS):
        start = window + chunk * STEPS
        x = carry
        if CHUNKS > 1:
            x = entering_linear(
                bonds,
                factors,
                forward,
                lane_bond,
                place,
                start,
                chunk,
                carry,
                n,
                SHAPE,
                True,
                STEPS,
                CHUNKS,
                LANES * WIDTH,
            )
        for step in range(STEPS):
            j = start + step
            i, exists, lane_exists = n - 1 - j, place[3] & (j < n), lane_place[3] & (j < n)
            c, b, _ = linear_terms(bonds, factors, forward, lane_bond, place, j, n, exists, SHAPE, True)
            y, y_after = load_complex(output, place, i, exists), load_complex(output, place, i + 1, exists & (j > 0))
            crossed = x[0] * y[0] - x[1] * y[1]
            x = plus(times(c, x), b)
            _store_values(grad_values, place, i, exists, x, COMPLEX)
            crossed += x[0] * y_after[0] - x[1] * y_after[1]
            product = _complex_sum_of_values(times(x, y), CHUNKS, LANES, WIDTH)
            grad_bond = sum_of_values(crossed, CHUNKS, LANES, WIDTH)
            store_real(grad_potential, lane_place, i, lane_exists, -product[0])
            bond_exists = lane_exists & (j > 0)
            sum_bonds = _gathered_bonds(grad_bonds, sum_bonds, lane_place, i, bond_exists, grad_bond, SHAPE[0])
            sum_shift = _gathered_shift(grad_shift, sum_shift, lane_place, i, lane_exists, product, SHIFT_VARIES)
        carry = last_chunk(x, chunk, CHUNKS)
    _store_sums(grad_bonds, grad_shift, lane_place, sum_bonds, sum_shift, SHAPE[0], SHIFT_VARIES)
