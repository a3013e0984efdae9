"""Results on the meta device that are remembered: they are what torch would find, and views stay views."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stackwise_ray.metrics.flops import FlopCounter
from stackwise_ray.metrics.meta_results import Remembered

META = {"device": "meta"}
OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]] = {
    "a product": lambda x: x @ x.mT,
    "an integer stays one": lambda x: x.long() * 2,
    "an integer times a float": lambda x: x.long() * 2.0,
    "an integer times a truth": lambda x: x.long() * True,
    "a transposed one keeps its strides": lambda x: x.mT.exp(),
    "several results": lambda x: torch.native_layer_norm(x, [3], None, None, 1e-5),
    "lists": lambda x: torch.cat([x, x[:, :1]], dim=1),
    "another default type": lambda x: x.long() / 2,
    "conjugated": lambda x: torch.complex(x, x).conj() * 1j,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_remembered_has_the_size_the_strides_and_the_type_of_what_is_computed(name: str) -> None:
    operation = OPERATIONS[name]
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            for size in ((2, 3), (4, 3)):
                x = torch.ones(size, **META)
                want = operation(x)
                for _ in range(2):
                    with Remembered():
                        have = operation(x)
                    pairs = zip(
                        *((one,) if isinstance(one, torch.Tensor) else one for one in (have, want)), strict=True
                    )
                    for mine, theirs in pairs:
                        assert (mine.shape, mine.stride(), mine.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
                        assert mine.device == theirs.device
    finally:
        torch.set_default_dtype(before)


def test_a_result_is_a_tensor_of_its_own_and_a_view_is_none() -> None:
    x = torch.ones(2, 3, **META)
    with Remembered():
        results = [x.exp() for _ in range(3)]
        views = [x.view(6) for _ in range(3)]
        written = x.add_(1)
    assert len({id(one) for one in (*results, x)}) == 4
    storages = {one.untyped_storage()._cdata for one in (*views, written, x)}
    assert len(storages) == 1
    assert len({one.untyped_storage()._cdata for one in (*results, x)}) == 4


def test_what_has_values_is_computed() -> None:
    with Remembered():
        assert [(torch.full((2,), value) + 1).tolist() for value in (1.0, 2.0)] == [[2, 2], [3, 3]]


def test_gradients_go_through_remembered_results() -> None:
    for _ in range(2):
        weight = torch.ones(3, 5, requires_grad=True, **META)
        with Remembered():
            (torch.ones(2, 3, **META) @ weight).sum().backward()
        assert weight.grad is not None
        assert weight.grad.shape == (3, 5)


def test_whoever_looks_at_operations_outside_sees_those_that_are_remembered() -> None:
    x = torch.ones(4, 4, **META)
    for _ in range(2):
        with FlopCounter() as outer, FlopCounter() as inner:
            _ = x @ x
        assert (outer.forward, inner.forward) == (2 * 4**3, 2 * 4**3)
