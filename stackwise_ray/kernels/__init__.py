"""Resolvent ops: (T − zI)⁻¹ of tridiagonal T, its diagonal and its product with values, in O(n).

    ops.py             resolvent_diagonal, resolvent_apply: custom ops, gradients
    arguments.py       the checks of what they are given
    backend.py         what a backend provides, and how one is chosen
    backends/          reference (the definition), torch (vectorised), cpu (compiled C), triton (CUDA); one file and
                       one registration add another
    cpu/               the C sources of the cpu backend, and how they are compiled
    triton_kernels.py  the recursions of the triton backend
    triton_gradients.py  their adjoints
    triton_tiles.py    complex numbers in tiles, and from and to memory
    flop_formulas.py   counted FLOPs of every op and its backward, from shapes alone

Models come here; nothing here knows of a model.
"""

from stackwise_ray.kernels.backend import (
    BACKEND_VARIABLE,
    BACKENDS,
    Backend,
    available_backends,
    choose_backend,
    forced_backend,
    passed_over,
)
from stackwise_ray.kernels.flop_formulas import FLOP_FORMULAS
from stackwise_ray.kernels.ops import resolvent_apply, resolvent_diagonal

__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "FLOP_FORMULAS",
    "Backend",
    "available_backends",
    "choose_backend",
    "forced_backend",
    "passed_over",
    "resolvent_apply",
    "resolvent_diagonal",
]
