"""The recursions of the `triton` backend as Triton kernels; `stackwise_ray.kernels.backends.triton` launches them, and
`triton_gradients` continues them to adjoints.

Importing this module imports triton, and the environment variable TRITON_INTERPRET decides at that moment whether the
kernels are compiled or interpreted. No tensor is checked or made here.

How a recursion is cut. A program owns Q adjacent channels (a channel is one value of one lane, a lane one (sequence,
head); the diagonal has one channel per lane) and walks the whole sequence in windows of C·S positions. In a window each
thread owns the chunk of S positions of one channel, and does three things:

1. it walks the chunk *before* its own and composes that chunk's map: a Möbius map, kept as a 2×2 matrix and scaled by
   powers of two, for the cavity recursion; a product and an offset for a linear recursion. The thread of the first
   chunk takes the constant map to what entered the window instead;
2. an inclusive scan along the chunks composes the maps: each thread then holds what enters its own chunk;
3. it walks its own chunk from that value by the recursion itself and writes the results.

So every value comes from the contractive recursion, inputs come from memory once (the second walk finds them in the
cache), nothing of a later position is ever combined into an earlier one, and no program waits for another. Neighbouring
threads of a warp hold neighbouring channels, so that accesses are whole sectors where lanes or values are adjacent.

The reversed recursions walk the positions from the end: step j is position n − 1 − j, and the bond *before* a step is
the one to the position walked just before it.

Shape letters: C chunks of a window, S steps of a chunk, L lanes of a program, P values of a lane (a power of two, what
is beyond the width is masked), Q = L·P channels. Tiles are (C, Q), with (C, 1) and (1, Q) broadcast. A complex number
is a pair (re, im) of float64 tiles. A view is (pointer, strides of batch, head, position, value); in memory complex
numbers are pairs of adjacent reals, and strides count complex numbers. A place is (batch, head, value, whether it
exists), each (1, Q).
"""

# mypy: ignore-errors
# (Parameters of a kernel are pointers, numbers and tuples of them as triton sees them, for which mypy has no types.)

from __future__ import annotations

import triton
import triton.language as tl

from stackwise_ray.kernels.triton_tiles import (
    bond_at,
    bond_before,
    bonds_of_lanes,
    constant_tile,
    last_chunk,
    load_complex,
    load_real,
    place_of,
    plus,
    position_of,
    reciprocal,
    scaled,
    selected,
    shift_of_lanes,
    store_complex,
    times,
)

# ------------------------------------------------------------------------------------------ the cavity recursion


@triton.jit
def _magnitude(x):
    """The upper half of |x| as an integer, which orders like |x| and holds its exponent above bit 20."""
    return (x.to(tl.int64, bitcast=True) >> 32).to(tl.int32) & 0x7FFFFFFF


@triton.jit
def _normalised(a_re, a_im, b_re, b_im, c_re, c_im, d_re, d_im):
    """A 2×2 matrix times the power of two that brings its largest entry near 1: the same Möbius map, no rounding."""
    largest = tl.maximum(tl.maximum(_magnitude(a_re), _magnitude(a_im)), tl.maximum(_magnitude(b_re), _magnitude(b_im)))
    largest = tl.maximum(largest, tl.maximum(_magnitude(c_re), _magnitude(c_im)))
    largest = tl.maximum(largest, tl.maximum(_magnitude(d_re), _magnitude(d_im)))
    exponent = tl.minimum(largest >> 20, 2045)  # biased by 1023, so that 2046 − it is that of the inverse
    scale = ((2046 - exponent).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    return (
        a_re * scale, a_im * scale, b_re * scale, b_im * scale, c_re * scale, c_im * scale, d_re * scale, d_im * scale,
    )  # fmt: skip


@triton.jit
def _compose_moebius(
    a_re, a_im, b_re, b_im, c_re, c_im, d_re, d_im, e_re, e_im, f_re, f_im, g_re, g_im, h_re, h_im
):  # fmt: skip
    """First (a b; c d), then (e f; g h): the product (e f; g h) (a b; c d)."""
    a, b, c, d = (a_re, a_im), (b_re, b_im), (c_re, c_im), (d_re, d_im)
    e, f, g, h = (e_re, e_im), (f_re, f_im), (g_re, g_im), (h_re, h_im)
    p, q = (
        plus(times(e, a), times(f, c)),
        plus(times(e, b), times(f, d)),
    )
    r, s = (
        plus(times(g, a), times(h, c)),
        plus(times(g, b), times(h, d)),
    )
    return _normalised(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1])


@triton.jit
def _cavity_terms(potential, bonds, shift, of_lanes, place, j, n, exists, SHAPE: tl.constexpr, REVERSED: tl.constexpr):
    """d of step j, and the coupling before it. A step that does not exist gives 1 − z and a bond that is none 0.

    SHAPE is (bonds are hops t, and k = t²; bonds, and the shift, have an axis of positions).
    """
    HOP: tl.constexpr = SHAPE[0]
    BONDS_VARY: tl.constexpr = SHAPE[1]
    SHIFT_VARIES: tl.constexpr = SHAPE[2]
    i = position_of(j, n, REVERSED)
    z = load_complex(shift, place, i, exists) if SHIFT_VARIES else of_lanes[1]
    k = bond_at(bonds, of_lanes[0], place, bond_before(j, n, REVERSED), exists & (j > 0), BONDS_VARY)
    return (load_real(potential, place, i, exists, 1.0) - z[0], -z[1]), k * k if HOP else k


@triton.jit
def _entering_cavity(
    potential, bonds, shift, of_lanes, place, start, chunk, carry, n,
    SHAPE: tl.constexpr, REVERSED: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The cavity value that enters each chunk.

    A chunk maps what enters it to (a g + b) / (c g + d). The rows are continuants: q_i = d_i q_{i−1} − k_{i−1} q_{i−2}.
    """
    a, b = constant_tile(1.0, CHUNKS, CHANNELS), constant_tile(0.0, CHUNKS, CHANNELS)
    c, d = constant_tile(0.0, CHUNKS, CHANNELS), constant_tile(1.0, CHUNKS, CHANNELS)
    GROUP: tl.constexpr = 8 if STEPS > 8 else STEPS  # steps between two scalings: entries below 1e38 cannot overflow
    for group in range(0, STEPS, GROUP):
        for step in tl.static_range(GROUP):
            j = start - STEPS + group + step
            exists = place[3] & (chunk > 0) & (j < n)
            here, k = _cavity_terms(potential, bonds, shift, of_lanes, place, j, n, exists, SHAPE, REVERSED)
            following = (
                plus(times(here, c), scaled(a, -k)),
                plus(times(here, d), scaled(b, -k)),
            )
            a, b = c, d
            c, d = following
        a_re, a_im, b_re, b_im, c_re, c_im, d_re, d_im = _normalised(a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1])
        a, b, c, d = (a_re, a_im), (b_re, b_im), (c_re, c_im), (d_re, d_im)
    zero, one = constant_tile(0.0, CHUNKS, CHANNELS), constant_tile(1.0, CHUNKS, CHANNELS)
    first = (chunk == 0) & (tl.full((CHUNKS, CHANNELS), 1, tl.int1))
    a, b, c, d = selected(first, zero, a), selected(first, carry, b), selected(first, zero, c), selected(first, one, d)
    a_re, a_im, b_re, b_im, c_re, c_im, d_re, d_im = tl.associative_scan(
        (a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]), 0, _compose_moebius
    )
    return times((b_re, b_im), reciprocal((d_re, d_im)))


@triton.jit
def cavity(
    potential, bonds, shift, out, left, grad, source, lanes, heads, n,
    SHAPE: tl.constexpr, REVERSED: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """gL (gR where REVERSED) into `out`.

    With `left` = gL, in the reversed walk: G_ii into `out`. With `grad` as well: gR into `out`, and G_ii² Γ_i, where
    the adjoint starts, into `source`; there bonds are couplings. SHAPE is that of `_cavity_terms`.
    """
    place = place_of(tl.program_id(0) * LANES, lanes, heads, 1, LANES, 1)
    of_lanes = bonds_of_lanes(bonds, place, SHAPE[1]), shift_of_lanes(shift, place, SHAPE[2])
    chunk, carry = tl.arange(0, CHUNKS)[:, None], constant_tile(0.0, CHUNKS, LANES)
    for window in range(0, n, CHUNKS * STEPS):
        start = window + chunk * STEPS
        g = carry
        if CHUNKS > 1:
            g = _entering_cavity(
                potential, bonds, shift, of_lanes, place, start, chunk, carry, n, SHAPE, REVERSED, STEPS, CHUNKS, LANES
            )
        for step in range(STEPS):
            j = start + step
            i, exists = position_of(j, n, REVERSED), place[3] & (j < n)
            d, k = _cavity_terms(potential, bonds, shift, of_lanes, place, j, n, exists, SHAPE, REVERSED)
            w = plus(d, scaled(g, -k))
            g = reciprocal(w)
            if left is None:
                store_complex(out, place, i, exists, g)
            else:
                inner = exists & (i > 0)
                before = load_complex(left, place, i - 1, inner)
                full = reciprocal(plus(w, scaled(before, -bond_at(bonds, of_lanes[0], place, i - 1, inner, SHAPE[1]))))
                if grad is None:
                    store_complex(out, place, i, exists, full)
                else:
                    gamma = load_complex(grad, place, i, exists)
                    store_complex(out, place, i, exists, g)
                    store_complex(source, place, i, exists, times(times(full, full), (gamma[0], -gamma[1])))
        carry = last_chunk(g, chunk, CHUNKS)


# ------------------------------------------------------------------------------------------- linear recursions


@triton.jit
def _compose_linear(c_re, c_im, b_re, b_im, d_re, d_im, e_re, e_im):
    """First c x + b, then d x + e."""
    c, d = (c_re, c_im), (d_re, d_im)
    product, offset = times(d, c), plus(times(d, (b_re, b_im)), (e_re, e_im))
    return product[0], product[1], offset[0], offset[1]


@triton.jit
def linear_terms(
    bonds, factors, source, lane_bond, place, j, n, exists, SHAPE: tl.constexpr, REVERSED: tl.constexpr
):  # fmt: skip
    """x_j = c x_{j−1} + b with c = bond · f and b = f · source, or b = source; returns (c, b, g).

    SHAPE is (bonds have an axis of positions; f is g² rather than g; the bond is t² rather than as stored; b has the
    factor f; the source is conjugated; the source is complex). g comes from `factors`.
    """
    BONDS_VARY: tl.constexpr = SHAPE[0]
    SQUARE: tl.constexpr = SHAPE[1]
    HOP: tl.constexpr = SHAPE[2]
    SCALED: tl.constexpr = SHAPE[3]
    CONJUGATED: tl.constexpr = SHAPE[4]
    COMPLEX: tl.constexpr = SHAPE[5]
    i = position_of(j, n, REVERSED)
    g = load_complex(factors, place, i, exists)
    f = times(g, g) if SQUARE else g
    bond = bond_at(bonds, lane_bond, place, bond_before(j, n, REVERSED), exists & (j > 0), BONDS_VARY)
    if COMPLEX:
        x = load_complex(source, place, i, exists)
        b = (x[0], -x[1]) if CONJUGATED else x
        if SCALED:
            b = times(f, b)
    else:
        b = scaled(f, load_real(source, place, i, exists, 0.0))  # a real source is always one of values
    return scaled(f, bond * bond if HOP else bond), b, g


@triton.jit
def entering_linear(
    bonds, factors, source, lane_bond, place, start, chunk, carry, n, SHAPE: tl.constexpr, REVERSED: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What enters each chunk. Products of coefficients are bounded by t/η, as entries of a resolvent are."""
    product, offset = constant_tile(1.0, CHUNKS, CHANNELS), constant_tile(0.0, CHUNKS, CHANNELS)
    GROUP: tl.constexpr = 4 if STEPS > 4 else STEPS  # loads in flight
    for group in range(0, STEPS, GROUP):
        for step in tl.static_range(GROUP):
            j = start - STEPS + group + step
            exists = place[3] & (chunk > 0) & (j < n)
            c, b, _ = linear_terms(bonds, factors, source, lane_bond, place, j, n, exists, SHAPE, REVERSED)
            product, offset = times(c, product), plus(times(c, offset), b)
    first = (chunk == 0) & (tl.full((CHUNKS, CHANNELS), 1, tl.int1))
    product, offset = selected(first, constant_tile(0.0, CHUNKS, CHANNELS), product), selected(first, carry, offset)
    _, _, re, im = tl.associative_scan((product[0], product[1], offset[0], offset[1]), 0, _compose_linear)
    return re, im


@triton.jit
def linear(
    bonds, factors, source, out, lanes, heads, n, width,
    SHAPE: tl.constexpr, REVERSED: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The recursion of `linear_terms` into `out`: forward and backward substitution, and the q of the adjoint."""
    place = place_of(tl.program_id(0) * LANES, lanes, heads, width, LANES, WIDTH)
    chunk, carry = tl.arange(0, CHUNKS)[:, None], constant_tile(0.0, CHUNKS, LANES * WIDTH)
    lane_bond = bonds_of_lanes(bonds, place, SHAPE[0])
    for window in range(0, n, CHUNKS * STEPS):
        start = window + chunk * STEPS
        x = carry
        if CHUNKS > 1:
            x = entering_linear(
                bonds, factors, source, lane_bond, place, start, chunk, carry, n,
                SHAPE, REVERSED, STEPS, CHUNKS, LANES * WIDTH,
            )  # fmt: skip
        for step in range(STEPS):
            j = start + step
            exists = place[3] & (j < n)
            c, b, _ = linear_terms(bonds, factors, source, lane_bond, place, j, n, exists, SHAPE, REVERSED)
            x = plus(times(c, x), b)
            store_complex(out, place, position_of(j, n, REVERSED), exists, x)
        carry = last_chunk(x, chunk, CHUNKS)
