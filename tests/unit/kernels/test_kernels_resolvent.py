"""The resolvent ops against dense inverses, against each other, and at their edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stackwise_ray.kernels import available_backends, resolvent_apply, resolvent_diagonal

ETAS = (1.0, 0.1, 0.01)
LENGTHS = (1, 2, 7, 40, 97)


def dense_inverse(potential: Tensor, hop: Tensor, shift: Tensor, size: int) -> Tensor:
    """(T_{1..size} − z)⁻¹ by torch.linalg.inv, differentiable."""
    d = (potential - shift.expand(potential.shape))[..., :size]
    bonds = hop.expand(*potential.shape[:-1], max(potential.shape[-1] - 1, 0))[..., : size - 1].to(d.dtype)
    return torch.linalg.inv(torch.diag_embed(d) - torch.diag_embed(bonds, 1) - torch.diag_embed(bonds, -1))


def dense_diagonal(potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool) -> Tensor:
    n = potential.shape[-1]
    if not causal:
        return dense_inverse(potential, coupling.sqrt(), shift, n).diagonal(dim1=-2, dim2=-1)
    ends = [dense_inverse(potential, coupling.sqrt(), shift, i)[..., -1, -1] for i in range(1, n + 1)]
    return torch.stack(ends, dim=-1)


def dense_apply(potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, causal: bool) -> Tensor:
    n, x = potential.shape[-1], values.to(torch.complex128)
    if not causal:
        return dense_inverse(potential, hop, shift, n) @ x
    rows = [(dense_inverse(potential, hop, shift, i)[..., -1:, :] @ x[..., :i, :]) for i in range(1, n + 1)]
    return torch.cat(rows, dim=-2)


def arguments(
    n: int, eta: float, *, by_position: bool, batch: int = 2, heads: int = 3, width: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    """Random float64 leaves: potential over the band, coupling and hop of either sign, shift, values."""
    generator = torch.Generator().manual_seed(seed + 1000 * n)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=generator)

    bonds = (batch, heads, max(n - 1, 0)) if by_position else (heads, 1)
    shifts = (heads, n) if by_position else (heads, 1)
    hop = (0.3 + uniform(*bonds)) * torch.where(uniform(*bonds) < 0.5, -1.0, 1.0)
    made = {
        "potential": 4 * uniform(batch, heads, n) - 2,
        "coupling": hop**2,
        "hop": hop,
        "shift": torch.complex(uniform(*shifts) - 0.5, eta * (1 + uniform(*shifts))),
        "values": 2 * uniform(batch, heads, n, width) - 1,
    }
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


Op = tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[str, ...]]
OPS: dict[str, Op] = {
    "diagonal": (resolvent_diagonal, dense_diagonal, ("potential", "coupling", "shift")),
    "apply": (resolvent_apply, dense_apply, ("potential", "hop", "shift", "values")),
}


def relative(have: Tensor, want: Tensor) -> float:
    """max|error| / max|reference|."""
    if want.numel() == 0:
        return 0.0
    error, scale = (have - want).abs().max(), want.abs().max()
    return float((error / scale if scale > 0 else error).detach())


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("op", OPS)
def test_values_and_every_gradient_equal_the_dense_inverse(op: str, causal: bool, n: int, eta: float) -> None:
    call, dense, names = OPS[op]
    for by_position in (False, True):
        made = arguments(n, eta, by_position=by_position)
        leaves = [made[name] for name in names]
        want = dense(*leaves, causal)
        weight = torch.randn(want.shape, dtype=want.dtype, generator=torch.Generator().manual_seed(1))
        want_gradients = torch.autograd.grad(want, leaves, weight, materialize_grads=True)
        for backend in available_backends():
            for gradient in ("adjoint", "autograd"):
                have = call(*leaves, causal=causal, backend=backend, gradient=gradient)
                assert relative(have, want) <= 1e-12, (backend, by_position)
                gradients = torch.autograd.grad(have, leaves, weight)
                for name, mine, theirs in zip(names, gradients, want_gradients, strict=True):
                    assert mine.shape == theirs.shape
                    assert relative(mine, theirs) <= 1e-12, (backend, gradient, by_position, name)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("op", OPS)
def test_float32_arguments_keep_six_digits_through_float64_inside(op: str, causal: bool) -> None:
    call, _, names = OPS[op]
    for eta in ETAS:
        made = arguments(300, eta, by_position=True)
        single = [
            made[name].detach().to(torch.complex64 if made[name].is_complex() else torch.float32).requires_grad_()
            for name in names
        ]
        # One double-precision leaf a summand: broadcast axes are expanded, and summed here.
        full = {"potential": (2, 3, 300), "shift": (2, 3, 300), "values": (2, 3, 300, 4)}
        double = [
            leaf.detach()
            .to(torch.complex128 if leaf.is_complex() else torch.float64)
            .expand(full.get(name, (2, 3, 299)))
            .clone()
            .requires_grad_()
            for name, leaf in zip(names, single, strict=True)
        ]
        want = call(*double, causal=causal, backend="reference")
        weight = torch.randn(want.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
        summands = torch.autograd.grad(want, double, weight.to(torch.complex128))
        for backend in available_backends():
            have = call(*single, causal=causal, backend=backend)
            assert have.dtype == torch.complex64
            assert relative(have, want) <= 1e-6
            gradients = torch.autograd.grad(have, single, weight)
            for name, leaf, mine, theirs in zip(names, single, gradients, summands, strict=True):
                assert (mine.dtype, mine.shape) == (leaf.dtype, leaf.shape)
                scale = float(theirs.abs().sum_to_size(leaf.shape).max())
                error = float((mine - theirs.sum_to_size(leaf.shape)).abs().max())
                assert error <= 1e-6 * scale, (backend, eta, name)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    n=st.integers(1, 90),
    width=st.integers(1, 3),
    log_eta=st.floats(-2, 1),
    by_position=st.booleans(),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_torch_backend_equals_the_reference_at_any_size(
    batch: int, heads: int, n: int, width: int, log_eta: float, by_position: bool, causal: bool, seed: int
) -> None:
    made = arguments(n, 10**log_eta, by_position=by_position, batch=batch, heads=heads, width=width, seed=seed)
    for call, _, names in OPS.values():
        leaves = [made[name] for name in names]
        want = call(*leaves, causal=causal, backend="reference")
        have = call(*leaves, causal=causal, backend="torch")
        assert relative(have, want) <= 1e-12
        for mine, theirs in zip(
            torch.autograd.grad(have.abs().sum(), leaves), torch.autograd.grad(want.abs().sum(), leaves), strict=True
        ):
            assert relative(mine, theirs) <= 1e-11


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize(("batch", "heads", "n", "width"), [(20, 8, 65, 5), (70, 8, 40, 3), (8, 8, 300, 8)])
def test_torch_backend_equals_the_reference_with_many_lanes(
    batch: int, heads: int, n: int, width: int, causal: bool
) -> None:
    """Sizes at which the straight loops and the blocks of positions are used."""
    made = arguments(n, 0.05, by_position=False, batch=batch, heads=heads, width=width)
    for call, _, names in OPS.values():
        leaves = [made[name] for name in names]
        want = call(*leaves, causal=causal, backend="reference")
        have = call(*leaves, causal=causal, backend="torch")
        assert relative(have, want) <= 1e-12
        weight = torch.randn(want.shape, dtype=want.dtype, generator=torch.Generator().manual_seed(1))
        for mine, theirs in zip(
            torch.autograd.grad(have, leaves, weight), torch.autograd.grad(want, leaves, weight), strict=True
        ):
            assert relative(mine, theirs) <= 1e-12


def test_long_chains_stay_bounded_by_one_over_eta() -> None:
    made = arguments(20_000, 1e-2, by_position=False, batch=1, heads=2)
    for causal in (True, False):
        g = resolvent_diagonal(made["potential"], made["coupling"], made["shift"], causal=causal)
        assert bool((g.abs() <= 1 / made["shift"].imag * (1 + 1e-12)).all())


@pytest.mark.parametrize("backend", available_backends())
def test_huge_potentials_neither_overflow_nor_lose_digits(backend: str) -> None:
    potential = torch.full((1, 1, 64), 1e30, dtype=torch.float64)
    arguments_ = (potential, torch.ones(1, dtype=torch.float64), torch.tensor(1j, dtype=torch.complex128))
    for causal in (True, False):
        have = resolvent_diagonal(*arguments_, causal=causal, backend=backend)
        assert relative(have, resolvent_diagonal(*arguments_, causal=causal, backend="reference")) <= 1e-14


def test_zero_coupling_decouples_every_position() -> None:
    made = arguments(50, 0.1, by_position=False)
    want = 1 / (made["potential"] - made["shift"])
    for backend in available_backends():
        for causal in (True, False):
            zero = torch.zeros(1, dtype=torch.float64)
            have = resolvent_diagonal(made["potential"], zero, made["shift"], causal=causal, backend=backend)
            assert relative(have, want) <= 1e-14


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("op", OPS)
def test_causal_forms_do_not_change_by_one_bit_when_the_future_does(op: str, backend: str) -> None:
    call, _, names = OPS[op]
    for batch, n in ((1, 61), (40, 61)):
        made = {name: t.detach() for name, t in arguments(n, 0.02, by_position=True, batch=batch).items()}
        before = call(*(made[name] for name in names), causal=True, backend=backend)
        for position in (1, 8, 30, n - 1):
            changed = {name: t.clone() for name, t in made.items()}
            changed["potential"][..., position] += 1.0
            changed["values"][..., position, :] -= 3.0
            after = call(*(changed[name] for name in names), causal=True, backend=backend)
            assert torch.equal(before[:, :, :position], after[:, :, :position])
            assert not torch.equal(before[:, :, position], after[:, :, position])


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("op", OPS)
def test_gradcheck_passes(op: str, causal: bool) -> None:
    call, _, names = OPS[op]
    made = arguments(5, 0.5, by_position=True, batch=1, heads=2, width=2)
    leaves = [made[name] for name in names]
    for backend in available_backends():
        assert torch.autograd.gradcheck(
            lambda *leaves, backend=backend: call(*leaves, causal=causal, backend=backend), leaves
        )


def test_complex_values_get_complex_gradients() -> None:
    made = arguments(6, 0.5, by_position=False, batch=1, heads=2, width=2)
    values = torch.complex(made["values"].detach(), made["values"].detach().flip(2)).requires_grad_()
    for causal in (True, False):
        for backend in available_backends():
            assert torch.autograd.gradcheck(
                lambda x, causal=causal, backend=backend: resolvent_apply(
                    made["potential"], made["hop"], made["shift"], x, causal=causal, backend=backend
                ),
                values,
            )


def test_diagonal_gradient_keeps_the_own_position_only() -> None:
    made = arguments(9, 0.3, by_position=True)
    leaves = [made[name] for name in ("potential", "coupling", "shift")]
    for causal in (True, False):
        g = resolvent_diagonal(*leaves, causal=causal, gradient="diagonal")
        gradients = torch.autograd.grad(g.real.sum(), leaves)
        assert relative(gradients[0], -(g**2).real) <= 1e-14
        assert bool((gradients[1] == 0).all())
        assert relative(gradients[2], (g**2).conj().sum(0)) <= 1e-14


@pytest.mark.parametrize("n", [0, 1, 2])
def test_shortest_sequences_work(n: int) -> None:
    made = arguments(n, 0.3, by_position=False)
    for call, _, names in OPS.values():
        leaves = [made[name] for name in names]
        for causal in (True, False):
            y = call(*leaves, causal=causal)
            assert y.shape[2] == n
            for leaf, gradient in zip(leaves, torch.autograd.grad(y.real.sum(), leaves), strict=True):
                assert gradient.shape == leaf.shape
                assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("backend", [name for name in available_backends() if name != "reference"])
@pytest.mark.parametrize("batch", [1, 80])
def test_strides_do_not_matter(batch: int, backend: str) -> None:
    made = {name: t.detach() for name, t in arguments(24, 0.1, by_position=True, batch=batch).items()}
    strided = {
        "potential": made["potential"].permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "coupling": made["coupling"].flip(2).contiguous().flip(2),
        "hop": torch.stack([made["hop"], made["hop"]], dim=-1)[..., 0],
        "shift": made["shift"].T.contiguous().T.expand(batch, -1, -1),
        "values": made["values"].transpose(1, 3).contiguous().transpose(1, 3),
    }
    for call, _, names in OPS.values():
        for causal in (True, False):
            want = call(*(made[name] for name in names), causal=causal, backend=backend)
            assert torch.equal(want, call(*(strided[name] for name in names), causal=causal, backend=backend))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_single_precision_types_give_complex64(dtype: torch.dtype) -> None:
    shift = torch.full((1,), 0.5j, dtype=torch.complex64)
    potential = torch.zeros(1, 1, 4, dtype=dtype, requires_grad=True)
    y = resolvent_apply(potential, torch.ones(1, dtype=dtype), shift, torch.ones(1, 1, 4, 2, dtype=dtype), causal=True)
    assert y.dtype == torch.complex64
    torch.autograd.backward(y.abs().sum())
    assert potential.grad is not None
    assert potential.grad.dtype == dtype


def test_autocast_changes_nothing() -> None:
    made = {name: t.detach() for name, t in arguments(12, 0.1, by_position=False).items()}
    single = {name: t.to(torch.complex64 if t.is_complex() else torch.float32) for name, t in made.items()}
    for call, _, names in OPS.values():
        want = call(*(single[name] for name in names), causal=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(want, call(*(single[name] for name in names), causal=True))


def _valid() -> dict[str, Tensor]:
    return {name: t.detach() for name, t in arguments(5, 0.5, by_position=True).items()}


MISTAKES: dict[str, tuple[str, Callable[[Tensor], Any], str]] = {
    "shift on the real axis": (
        "shift",
        lambda z: torch.complex(z.real, z.imag * 0),
        "shift has an imaginary part of 0",
    ),
    "shift of NaN": ("shift", lambda z: z * float("nan"), "shift has an imaginary part of nan"),
    "real shift": ("shift", lambda z: z.real, "shift is torch.float64; it must be complex"),
    "shift for other heads": ("shift", lambda z: z[:2], r"shift has shape \(2, 5\), which does not broadcast"),
    "complex potential": ("potential", lambda a: a + 0j, "potential is torch.complex128; it must be real"),
    "flat potential": ("potential", lambda a: a[0], r"potential has shape \(3, 5\); it must be \(batch, heads, n\)"),
    "float32 beside float64": ("shift", lambda z: z.to(torch.complex64), "single and double precision cannot be mixed"),
    "integer potential": ("potential", lambda a: a.long(), "potential is torch.int64; it must be"),
    "a number for a tensor": ("shift", lambda z: 1j, r"shift is 1j; it must be a tensor, such as torch.tensor\(1j\)"),
    "another device": ("shift", lambda z: z.to("meta"), "shift is on meta but potential on cpu"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_by_name_and_value(mistake: str) -> None:
    argument, spoil, message = MISTAKES[mistake]
    for call, _, names in OPS.values():
        made = _valid()
        made[argument] = spoil(made[argument])
        with pytest.raises(ValueError, match=message):
            call(*(made[name] for name in names), causal=True)


def test_mistakes_of_one_op_are_refused() -> None:
    made = _valid()
    with pytest.raises(ValueError, match=r"coupling has an entry of -0\.25; it must be >= 0"):
        resolvent_diagonal(made["potential"], -0.25 * torch.ones(1).double(), made["shift"], causal=True)
    with pytest.raises(ValueError, match=r"coupling has shape \(5,\), which does not broadcast to \(2, 3, 4\)"):
        resolvent_diagonal(made["potential"], torch.ones(5).double(), made["shift"], causal=True)
    with pytest.raises(ValueError, match=r"values has shape \(2, 3, 4, 4\); it must be .* = \(2, 3, 5, p\)"):
        resolvent_apply(made["potential"], made["hop"], made["shift"], made["values"][:, :, 1:], causal=True)
    with pytest.raises(ValueError, match="gradient is 'diagonal'; here it must be one of adjoint, autograd"):
        resolvent_apply(
            made["potential"], made["hop"], made["shift"], made["values"], causal=True, gradient="diagonal"  # type: ignore[arg-type]
        )  # fmt: skip


def test_check_false_skips_the_value_checks() -> None:
    made = _valid()
    shift = made["shift"].conj()
    y = resolvent_diagonal(made["potential"], made["coupling"], shift, causal=True, check=False)
    assert bool((y.imag < 0).all())
