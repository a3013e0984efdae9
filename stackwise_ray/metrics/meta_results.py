"""Results of operations on the meta device, remembered by the shapes of what the operation was given.

Torch finds most of these shapes in Python, at half a millisecond per operation, and a plan repeats its operations: in
every block, in every stage, for every arm.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

_MOST = 100_000
_NAMESPACES = ("aten", "prims", "stackwise_ray")
"""Of operations whose shapes follow from what they are given; those of a plugin may ask anything."""
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


class _Form(NamedTuple):
    """What a meta tensor is, beside its storage."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


class Remembered(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations on the meta device inside the ``with`` block are as `run` has them.

    Example:
        >>> weight = torch.ones(3, 5, device="meta")
        >>> with Remembered():
        ...     (torch.ones(2, 3, device="meta") @ weight).shape
        torch.Size([2, 5])
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


_results: dict[tuple[Any, ...], _Form | tuple[_Form | None, ...]] = {}


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`func(*args, **kwargs)`; where the tensors lie on the meta device, the shape of its result is not found twice.

    Remembered are torch's own operations and ours that say that they return fresh tensors alone: none that writes, and
    none that gives a view. Where another mode looks at operations too, every one is carried out, so that it sees it.
    """
    key: list[Any] = [func, torch.get_default_dtype()]
    seen = _get_current_dispatch_mode() is not None
    if seen or not (_fresh(func) and _describe(args, key) and _describe(kwargs.items(), key)):
        return func(*args, **kwargs)
    found = tuple(key)
    known = _results.get(found)
    if known is not None:
        return _made(known) if isinstance(known, _Form) else tuple(map(_made, known))
    result = func(*args, **kwargs)
    form = _forms(result)
    if form is not None:
        if len(_results) >= _MOST:
            _results.clear()
        _results[found] = form
    return result


@functools.cache
def _fresh(func: Any) -> bool:
    """Whether an operation leaves what it is given, and returns nothing of it."""
    schema = getattr(func, "_schema", None)
    if schema is None or func.namespace not in _NAMESPACES:
        return False
    return all(value.alias_info is None for value in (*schema.arguments, *schema.returns))


def _describe(values: Iterable[Any], key: list[Any]) -> bool:
    """Adds what decides the shape of a result to the key; whether that is all there is."""
    for value in values:
        if isinstance(value, torch.Tensor):
            form = _form(value)
            if form is None:
                return False
            key.append(form)
        elif isinstance(value, (tuple, list)):
            key.append(len(value))
            if not _describe(value, key):
                return False
        elif isinstance(value, _PLAIN):
            key += (type(value), value)  # 1, 1.0 and True promote to different types
        else:
            return False
    return True


def _form(tensor: torch.Tensor) -> _Form | None:
    """None of a tensor of another device, of another class, or seen through conjugation or negation."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    if not plain or tensor.device.type != "meta" or tensor.is_conj() or tensor.is_neg():
        return None
    return _Form(tensor.shape, tensor.stride(), tensor.dtype)


def _forms(result: Any) -> _Form | tuple[_Form | None, ...] | None:
    """None of a result that is not a tensor or a tuple of them (some of which may be absent)."""
    if isinstance(result, torch.Tensor):
        return _form(result)
    if not isinstance(result, tuple):
        return None
    forms = tuple(_form(one) if isinstance(one, torch.Tensor) else None for one in result)
    return forms if all((form is None) == (one is None) for form, one in zip(forms, result, strict=True)) else None


def _made(form: _Form | None) -> torch.Tensor | None:
    return None if form is None else torch.empty_strided(form.size, form.stride, dtype=form.dtype, device="meta")
