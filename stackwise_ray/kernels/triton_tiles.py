"""Tiles of complex numbers in Triton, and between them and memory: what the kernels of `triton_kernels` are written in.

Shape letters and the meaning of view and place are explained there. Importing this module imports triton.
"""

# mypy: ignore-errors
# (Parameters of a kernel are pointers, numbers and tuples of them as triton sees them, for which mypy has no types.)

from __future__ import annotations

import triton
import triton.language as tl

# ------------------------------------------------------------------------------------------------ complex numbers


@triton.jit
def plus(x, y):
    return x[0] + y[0], x[1] + y[1]


@triton.jit
def times(x, y):
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


@triton.jit
def scaled(x, factor):
    return x[0] * factor, x[1] * factor


@triton.jit
def reciprocal(x):
    scale = 1.0 / (x[0] * x[0] + x[1] * x[1])
    return x[0] * scale, -x[1] * scale


@triton.jit
def selected(condition, x, y):
    return tl.where(condition, x[0], y[0]), tl.where(condition, x[1], y[1])


@triton.jit
def constant_tile(value: tl.constexpr, CHUNKS: tl.constexpr, CHANNELS: tl.constexpr):
    return tl.full((CHUNKS, CHANNELS), value, tl.float64), tl.full((CHUNKS, CHANNELS), 0.0, tl.float64)


# ------------------------------------------------------------------------------------------------- into memory


@triton.jit
def place_of(first_lane, lanes, heads, width, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """Where the program's channels are; int64, since offsets into large tensors exceed 32 bits."""
    channel = tl.arange(0, LANES * WIDTH)[None, :]
    lane = (first_lane + channel // WIDTH).to(tl.int64)
    value = (channel % WIDTH).to(tl.int64)
    return lane // heads, lane % heads, value, (lane < lanes) & (value < width)


@triton.jit
def _offset(view, place, position):
    return place[0] * view[1] + place[1] * view[2] + place[2] * view[4] + position.to(tl.int64) * view[3]


@triton.jit
def load_real(view, place, position, exists, other):
    return tl.load(view[0] + _offset(view, place, position), mask=exists, other=other).to(tl.float64)


@triton.jit
def load_complex(view, place, position, exists):
    # Both halves in one access: a trailing axis of two adjacent reals.
    pair = 2 * _offset(view, place, position)[:, :, None] + tl.arange(0, 2)[None, None, :]
    re, im = tl.split(tl.load(view[0] + pair, mask=exists[:, :, None], other=0.0))
    return re.to(tl.float64), im.to(tl.float64)


@triton.jit
def store_real(view, place, position, exists, x):
    tl.store(view[0] + _offset(view, place, position), x.to(view[0].dtype.element_ty), mask=exists)


@triton.jit
def store_complex(view, place, position, exists, x):
    element: tl.constexpr = view[0].dtype.element_ty
    pair = 2 * _offset(view, place, position)[:, :, None] + tl.arange(0, 2)[None, None, :]
    tl.store(view[0] + pair, tl.join(x[0].to(element), x[1].to(element)), mask=exists[:, :, None])


@triton.jit
def bonds_of_lanes(bonds, place, VARY: tl.constexpr):
    """The bond of each lane where it has no axis of positions; else nothing that is read."""
    if VARY:
        bond = tl.full((1, 1), 0.0, tl.float64)
    else:
        bond = load_real(bonds, place, tl.full((1, 1), 0, tl.int32), place[3], 0.0)
    return bond


@triton.jit
def shift_of_lanes(shift, place, VARY: tl.constexpr):
    """The same of the shift."""
    if VARY:
        z = tl.full((1, 1), 0.0, tl.float64), tl.full((1, 1), 0.0, tl.float64)
    else:
        z = load_complex(shift, place, tl.full((1, 1), 0, tl.int32), place[3])
    return z


@triton.jit
def bond_at(bonds, lane_bond, place, position, exists, VARY: tl.constexpr):
    """Bonds of positions that exist. (What enters the first position is 0: whatever bond stands before it.)"""
    return load_real(bonds, place, position, exists, 0.0) if VARY else lane_bond


@triton.jit
def position_of(j, n, REVERSED: tl.constexpr):
    return n - 1 - j if REVERSED else j


@triton.jit
def bond_before(j, n, REVERSED: tl.constexpr):
    """The bond to the position walked before step j; bond i lies between the positions i and i + 1."""
    return n - 1 - j if REVERSED else j - 1


@triton.jit
def last_chunk(x, chunk, CHUNKS: tl.constexpr):
    """What leaves the window, for all its threads: x of the last chunk (the sum has no other summand)."""
    last = chunk == CHUNKS - 1
    re = tl.sum(tl.where(last, x[0], 0.0), 0, keep_dims=True)
    im = tl.sum(tl.where(last, x[1], 0.0), 0, keep_dims=True)
    return tl.broadcast_to(re, x[0].shape), tl.broadcast_to(im, x[1].shape)


@triton.jit
def sum_of_values(x, CHUNKS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """(C, L) sums over the values of a lane."""
    return x if WIDTH == 1 else tl.sum(tl.reshape(x, (CHUNKS, LANES, WIDTH)), 2)
