"""The resolvent ops as torch operators: opcheck, meta and fake tensors, compile, FLOP formulas."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from stackwise_ray.kernels import FLOP_FORMULAS, available_backends, resolvent_apply, resolvent_diagonal
from stackwise_ray.kernels.backends import reference

Maker = Callable[..., Tensor]


def tensors(batch: int, heads: int, n: int, width: int, device: str = "cpu") -> dict[str, Tensor]:
    potential = torch.linspace(-1, 1, batch * heads * n, device=device).view(batch, heads, n)
    values = torch.ones(batch, heads, n, width, device=device)
    hop = torch.ones(heads, 1, device=device)
    shift = torch.complex(torch.zeros(heads, 1, device=device), torch.full((heads, 1), 0.3, device=device))
    made = {"potential": potential, "hop": hop, "coupling": hop**2, "shift": shift, "values": values}
    return {name: tensor.detach().requires_grad_() for name, tensor in made.items()}


def run(made: dict[str, Tensor], op: str, causal: bool, **options: Any) -> Tensor:
    if op == "diagonal":
        return resolvent_diagonal(made["potential"], made["coupling"], made["shift"], causal=causal, **options)
    return resolvent_apply(made["potential"], made["hop"], made["shift"], made["values"], causal=causal, **options)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("backend", available_backends())
def test_opcheck_passes(backend: str, causal: bool) -> None:
    made = tensors(2, 3, 11, 4)
    rest = (causal, backend, "adjoint", True)
    ops = torch.ops.stackwise_ray
    torch.library.opcheck(ops.resolvent_diagonal.default, (made["potential"], made["coupling"], made["shift"], *rest))
    torch.library.opcheck(
        ops.resolvent_apply.default, (made["potential"], made["hop"], made["shift"], made["values"], *rest)
    )


@pytest.mark.parametrize("op", ["diagonal", "apply"])
def test_gradients_by_autograd_are_those_of_the_reference_and_another_computation_than_the_adjoint(op: str) -> None:
    torch.manual_seed(1)
    made = {
        name: (
            value.detach().to(torch.complex128 if value.is_complex() else torch.float64) * (1 + torch.rand(1).item())
        ).requires_grad_()
        for name, value in tensors(2, 3, 33, 4).items()
    }
    names = ("potential", "coupling", "shift") if op == "diagonal" else ("potential", "hop", "shift", "values")
    leaves = [made[name] for name in names]
    own = getattr(reference, op)(*leaves, True)
    want = torch.autograd.grad(own.abs().sum(), leaves)
    found = {
        gradient: torch.autograd.grad(run(made, op, True, backend="torch", gradient=gradient).abs().sum(), leaves)
        for gradient in ("autograd", "adjoint")
    }
    for name, expected, autograd, adjoint in zip(names, want, found["autograd"], found["adjoint"], strict=True):
        assert torch.allclose(expected, autograd, rtol=1e-12), name
        assert torch.allclose(expected, adjoint, rtol=1e-9), name
    assert not all(torch.equal(one, two) for one, two in zip(found["autograd"], found["adjoint"], strict=True))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("op", ["diagonal", "apply"])
def test_meta_and_fake_tensors_tell_shape_type_and_strides(op: str, causal: bool) -> None:
    real = run(tensors(2, 3, 7, 4), op, causal)
    made = tensors(2, 3, 7, 4, device="meta")
    meta = run(made, op, causal, check=False)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake = run({k: mode.from_tensor(v) for k, v in tensors_outside(mode).items()}, op, causal)
    for other in (meta, fake):
        assert (other.shape, other.dtype, other.stride()) == (real.shape, real.dtype, real.stride())
    meta.abs().sum().backward()
    assert made["potential"].grad is not None
    assert made["potential"].grad.shape == (2, 3, 7)


def tensors_outside(mode: FakeTensorMode) -> dict[str, Tensor]:
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily():
        return tensors(2, 3, 7, 4)


@pytest.mark.parametrize("op", ["diagonal", "apply"])
def test_compiles_without_a_graph_break(op: str) -> None:
    made = tensors(2, 3, 9, 4)
    # aot_eager traces forward and backward like inductor does, without calling a C++ compiler.
    compiled = torch.compile(lambda made: run(made, op, True).abs(), fullgraph=True, backend="aot_eager")
    want = torch.autograd.grad(run(made, op, True).abs().sum(), made["potential"])[0]
    have = torch.autograd.grad(compiled(made).sum(), made["potential"])[0]
    torch.testing.assert_close(have, want, rtol=0, atol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("op", ["diagonal", "apply"])
def test_counted_flops_are_the_same_on_meta_and_cpu_and_for_every_backend(op: str, causal: bool) -> None:
    batch, heads, n, width = 2, 3, 7, 4
    counts = set()
    for device in ("cpu", "meta"):
        for backend in available_backends():
            for gradient in ("adjoint", "autograd"):
                made = tensors(batch, heads, n, width, device=device)
                with FlopCounterMode(display=False, custom_mapping=dict(FLOP_FORMULAS)) as counter:
                    y = run(made, op, causal, backend=backend, check=False, gradient=gradient)
                    forward = counter.get_total_flops()
                    y.abs().sum().backward()
                counts.add((forward, counter.get_total_flops() - forward))
    elements = batch * heads * n
    expected = {
        ("diagonal", True): (11, 20),
        ("diagonal", False): (29, 54),
        ("apply", True): (12 + 9 * width, 31 + 26 * width),
        ("apply", False): (14 + 17 * width, 4 + 34 * width),
    }[op, causal]
    assert counts == {(elements * expected[0], elements * expected[1])}


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("batch", "n"), [(1, 37), (50, 37)])
def test_no_output_is_left_unwritten(batch: int, n: int, causal: bool, backend: str) -> None:
    """In deterministic mode torch fills every fresh allocation with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        for op in ("diagonal", "apply"):
            made = tensors(batch, 3, n, 4)
            y = run(made, op, causal, backend=backend)
            torch.autograd.backward(y.abs().sum())
            assert bool(torch.isfinite(y).all())
            for name, tensor in made.items():
                assert tensor.grad is None or bool(torch.isfinite(tensor.grad).all()), name
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("op", ["diagonal", "apply"])
def test_nothing_is_kept_for_backward_but_the_inputs_and_the_output_of_apply(op: str) -> None:
    made = tensors(2, 3, 50, 4)
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run(made, op, True)
    inputs = {tensor.untyped_storage().data_ptr() for tensor in made.values()}
    beyond = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in inputs)
    assert beyond == (y.untyped_storage().nbytes() if op == "apply" else 0)


class Counted:
    """A complex or real number that counts the real FLOPs of its arithmetic by the conventions of the formulas."""

    flops = 0

    def __init__(self, *, real: bool) -> None:
        self.real = real

    def _with(self, other: Counted, *, both_complex: int, mixed: int, both_real: int) -> Counted:
        kinds = self.real + other.real
        Counted.flops += (both_complex, mixed, both_real)[kinds]
        return Counted(real=kinds == 2)

    def __add__(self, other: Counted) -> Counted:
        return self._with(other, both_complex=2, mixed=1, both_real=1)

    __sub__ = __add__

    def __mul__(self, other: Counted) -> Counted:
        return self._with(other, both_complex=6, mixed=2, both_real=1)

    def square(self) -> Counted:
        Counted.flops += 1 if self.real else 5
        return Counted(real=self.real)

    def reciprocal(self) -> Counted:
        Counted.flops += 6
        return Counted(real=False)

    def real_of_product(self, other: Counted) -> Counted:
        Counted.flops += 3
        return Counted(real=True)


def flops_per_position(body: Callable[[], None]) -> Fraction:
    Counted.flops = 0
    body()
    return Fraction(Counted.flops)


def real() -> Counted:
    return Counted(real=True)


def cplx() -> Counted:
    return Counted(real=False)


def test_forward_formulas_count_the_recursion_of_the_definition() -> None:
    def causal_diagonal() -> None:
        (real() - cplx() - real() * cplx()).reciprocal()

    def two_sided_diagonal() -> None:
        d = real() - cplx()
        left = d - real() * cplx()
        left.reciprocal()
        from_right = real() * cplx()
        (d - from_right).reciprocal()
        (left - from_right).reciprocal()

    assert flops_per_position(causal_diagonal) == 11
    assert flops_per_position(two_sided_diagonal) == 29

    def substitution() -> None:
        (real() + real() * cplx()) * cplx()

    assert flops_per_position(substitution) == 9


def test_backward_formulas_count_the_adjoint_of_the_definition() -> None:
    def causal_diagonal() -> None:
        cplx().square() * (cplx() + real() * cplx())
        cplx().real_of_product(cplx())
        cplx() + cplx()  # the sum of ∂z

    assert flops_per_position(causal_diagonal) == 20

    def causal_apply_a_value() -> None:
        cplx() + cplx() * cplx()  # mu
        cplx() * cplx()  # gL mu
        cplx() + cplx() * cplx()  # Σ mu u
        real() + cplx().real_of_product(cplx())  # ∂t

    assert flops_per_position(causal_apply_a_value) == 26


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_forward_mode_is_refused_and_not_answered_with_zeros(backend: str) -> None:
    a, k, z = torch.randn(1, 1, 3), torch.ones(1), torch.tensor(0.5j)

    def diagonal(potential: torch.Tensor) -> torch.Tensor:
        return resolvent_diagonal(potential, k, z, causal=True, backend=backend)

    with pytest.raises(NotImplementedError, match="potential carries a tangent: the resolvent ops have no forward-m"):
        torch.func.jvp(diagonal, (a,), (torch.ones_like(a),))
    with torch.autograd.forward_ad.dual_level():
        assert bool(diagonal(a).isfinite().all())  # nothing carries a tangent
