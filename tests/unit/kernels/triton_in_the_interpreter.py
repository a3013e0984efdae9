"""The `triton` backend in triton's interpreter: run by `test_kernels_triton.py` in a process of its own.

Triton decides when it is imported whether it interprets, so TRITON_INTERPRET=1 must be set before; no other test shall
see that, and pytest does not collect this file by itself. The interpreter takes milliseconds for a step, hence small
sizes and, by small chunks, many windows. Every fresh allocation holds NaN: what stays unwritten fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from stackwise_ray.kernels import available_backends, choose_backend, resolvent_apply, resolvent_diagonal
from stackwise_ray.kernels.backends import triton as backend

NAMES = {"diagonal": ("potential", "coupling", "shift"), "apply": ("potential", "hop", "shift", "values")}
CALLS: dict[str, Callable[..., Tensor]] = {"diagonal": resolvent_diagonal, "apply": resolvent_apply}


@pytest.fixture(autouse=True)
def _fresh_memory_holds_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets steps a chunk and threads a program."""

    def set_(steps: int, threads: int) -> None:
        monkeypatch.setattr(backend, "STEPS", steps)
        monkeypatch.setattr(backend, "THREADS", threads)

    return set_


def arguments(
    n: int,
    bonds: tuple[int, ...],
    shifts: tuple[int, ...],
    *,
    lanes: tuple[int, int] = (2, 3),
    width: int = 3,
    complex_values: bool = False,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Random arguments, η from 0.02: potential over the band, hops of either sign."""
    generator = torch.Generator().manual_seed(n)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=generator).to(dtype)

    hop = (0.3 + uniform(*bonds)) * torch.where(uniform(*bonds) < 0.5, -1, 1)
    values = 2 * uniform(*lanes, n, width) - 1
    return {
        "potential": 4 * uniform(*lanes, n) - 2,
        "coupling": hop**2,
        "hop": hop,
        "shift": torch.complex((uniform(*shifts) - 0.5).float(), (0.02 + uniform(*shifts)).float()).to(
            torch.complex128 if dtype == torch.float64 else torch.complex64
        ),
        "values": torch.complex(values, values.flip(2)) if complex_values else values,
    }


def compare(op: str, made: dict[str, Tensor], causal: bool, tolerance: float) -> None:
    """Output and every gradient against the reference in double precision.

    A gradient that is summed over broadcast axes is measured by the sum of its summands' magnitudes.
    """
    leaves = [made[name].detach().requires_grad_() for name in NAMES[op]]
    batch, heads, n = made["potential"].shape
    full = {"shift": (batch, heads, n), "hop": (batch, heads, n - 1), "coupling": (batch, heads, n - 1)}
    double = [
        made[name]
        .detach()
        .to(torch.complex128 if made[name].is_complex() else torch.float64)
        .expand(full.get(name, made[name].shape))
        .clone()
        .requires_grad_()
        for name in NAMES[op]
    ]
    have, want = (
        CALLS[op](*leaves, causal=causal, backend="triton"),
        CALLS[op](*double, causal=causal, backend="reference"),
    )
    assert float((have - want).detach().abs().max()) <= tolerance * float(want.detach().abs().max())
    weight = torch.randn(want.shape, dtype=want.dtype, generator=torch.Generator().manual_seed(1)).to(have.dtype)
    have_gradients = torch.autograd.grad(have, leaves, weight)
    summands = torch.autograd.grad(want, double, weight.to(torch.complex128), materialize_grads=True)
    for name, leaf, mine, theirs in zip(NAMES[op], leaves, have_gradients, summands, strict=True):
        assert (mine.shape, mine.dtype) == (leaf.shape, leaf.dtype), name
        if theirs.numel() == 0:
            assert bool((mine == 0).all()), name
            continue
        scale = float(theirs.abs().sum_to_size(leaf.shape).max())
        rounding = torch.finfo(leaf.dtype).eps if leaf.dtype in (torch.float16, torch.bfloat16) else 0.0
        error = float((mine - theirs.sum_to_size(leaf.shape)).abs().max())
        assert error <= max(tolerance, rounding) * scale, (name, error / scale)


def test_backend_is_usable_and_never_chosen_by_itself() -> None:
    assert backend.unusable() is None
    assert available_backends()[-2:] == ("triton", "reference")
    assert choose_backend() != "triton"
    assert choose_backend(device="cpu") != "triton"
    assert choose_backend("triton", "cpu") == "triton"


# (n, bonds, shift, steps a chunk, threads): one, two, an odd number, several windows, a rest of a window and of a chunk
CASES = [
    (1, (2, 3, 0), (3, 1), 4, 16),
    (2, (3, 1), (3, 2), 4, 16),
    (7, (2, 3, 6), (2, 3, 7), 2, 16),
    (10, (9,), (), 2, 16),
    (25, (2, 1), (2, 25), 2, 32),
]


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize(("n", "bonds", "shifts", "steps", "threads"), CASES, ids=[f"n{case[0]}" for case in CASES])
def test_values_and_every_gradient_equal_the_reference(
    op: str,
    causal: bool,
    n: int,
    bonds: tuple[int, ...],
    shifts: tuple[int, ...],
    steps: int,
    threads: int,
    cut: Callable[[int, int], None],
) -> None:
    cut(steps, threads)
    compare(op, arguments(n, bonds, shifts, lanes=(1, 2) if n > 7 else (2, 3)), causal, 1e-12)


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_precision_keeps_six_digits_through_float64_inside(
    dtype: torch.dtype, op: str, causal: bool, cut: Callable[[int, int], None]
) -> None:
    cut(4, 16)
    compare(op, arguments(9, (1, 2, 8), (1, 2, 9), lanes=(1, 2), width=2, dtype=dtype), causal, 1e-6)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize(("lanes", "width"), [((1, 2), 1), ((1, 1), 11)])
def test_complex_values_of_any_width_get_complex_gradients(
    lanes: tuple[int, int], width: int, causal: bool, cut: Callable[[int, int], None]
) -> None:
    cut(2, 32)
    compare("apply", arguments(7, (1,), (1,), lanes=lanes, width=width, complex_values=True), causal, 1e-12)


def test_more_lanes_than_a_program_has_are_shared_out(cut: Callable[[int, int], None]) -> None:
    cut(4, 16)
    compare("diagonal", arguments(5, (11, 1), (11, 1), lanes=(1, 11)), False, 1e-12)


@pytest.mark.parametrize("op", CALLS)
def test_strides_conjugation_and_negation_do_not_matter(op: str, cut: Callable[[int, int], None]) -> None:
    cut(4, 16)
    made = arguments(5, (2, 3, 4), (3, 5), complex_values=True)
    strided = {
        "potential": made["potential"].permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "coupling": made["coupling"].flip(2).contiguous().flip(2),
        "hop": torch.stack([made["hop"], made["hop"]], dim=-1)[..., 0],
        "shift": made["shift"].conj_physical().conj().expand(2, -1, -1),
        "values": torch.nn.functional.pad(made["values"], [2, 3, 1, 1])[:, :, 1:-1, 2:-3],
    }
    negated = torch.complex(made["potential"], -made["potential"]).conj().imag
    want = CALLS[op](*(made[name] for name in NAMES[op]), causal=False, backend="triton")
    assert torch.equal(want, CALLS[op](*(strided[name] for name in NAMES[op]), causal=False, backend="triton"))
    rest = [made[name] for name in NAMES[op][1:]]
    assert torch.equal(want, CALLS[op](negated, *rest, causal=False, backend="triton"))


@pytest.mark.parametrize("op", CALLS)
def test_causal_forms_do_not_change_by_one_bit_when_the_future_does(op: str, cut: Callable[[int, int], None]) -> None:
    cut(2, 64)
    made = arguments(19, (1, 2, 18), (2, 19), lanes=(1, 2), width=2)
    before = CALLS[op](*(made[name] for name in NAMES[op]), causal=True, backend="triton")
    for position in (5, 18):
        changed = {name: tensor.clone() for name, tensor in made.items()}
        changed["potential"][..., position] += 1.0
        changed["shift"][..., position] += 0.5j
        changed["values"][..., position, :] = float("inf")
        after = CALLS[op](*(changed[name] for name in NAMES[op]), causal=True, backend="triton")
        assert torch.equal(before[:, :, :position], after[:, :, :position])
        assert not torch.equal(before[:, :, position], after[:, :, position])


@pytest.mark.parametrize("scale", [1e30, 1e-20])
def test_composed_maps_neither_overflow_nor_underflow(scale: float, cut: Callable[[int, int], None]) -> None:
    """50 positions of 1e30 have continuants of 1e1500, and of small entries ones that vanish as far below."""
    cut(8, 64)
    generator = torch.Generator().manual_seed(0)
    potential = scale * (1 + torch.rand(1, 2, 50, dtype=torch.float64, generator=generator))
    coupling = torch.full((1,), scale**2, dtype=torch.float64)
    shift = torch.complex(torch.zeros(1).double(), torch.full((1,), scale).double())
    for causal in (True, False):
        have, want = (
            resolvent_diagonal(potential, coupling, shift, causal=causal, backend=name)
            for name in ("triton", "reference")
        )
        assert float((have - want).abs().max()) <= 1e-14 * float(want.abs().max())
