"""What an entry of each registry promises, as functions that take its name: for our own entries and for a plugin's.

One module per kind of entry (`core.registries.BY_KIND`), whose `CHECKS` pytest runs over the registry and
`doctor --plugin` over what a plugin registered. A check raises `ContractError` with a sentence, or `NotAtHand` where
this machine lacks what it needs. The first line of its docstring is what it checks.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

Contract = Callable[[str], None]


class ContractError(AssertionError):
    """An entry breaks a promise; the message says which one, and what the entry does instead."""


class NotAtHand(Exception):  # noqa: N818  (no error of the entry's)
    """The check needs something that this machine lacks, such as a downloaded corpus."""


def contracts_of(kind: str) -> tuple[Contract, ...]:
    """The checks of one kind of entry.

    Args:
        kind: As in `core.registries.BY_KIND`, such as ``flags``.
    """
    checks: tuple[Contract, ...] = importlib.import_module(f"stackwise_ray.contracts.{kind}_contract").CHECKS
    return checks


def require(holds: object, sentence: str) -> None:
    """Raise the sentence unless the promise holds."""
    if not holds:
        raise ContractError(sentence)


def require_frozen(options: object) -> None:
    """Raise unless the options of an entry are a frozen dataclass."""
    frozen = dataclasses.is_dataclass(options) and getattr(options, "__dataclass_params__").frozen  # noqa: B009
    name = options.__name__ if isinstance(options, type) else repr(options)
    require(frozen, f"its options {name} can be changed; write @dataclass(frozen=True, kw_only=True)")


def promise(check: Contract) -> str:
    """What a check checks, in words."""
    return (check.__doc__ or check.__name__).strip().splitlines()[0]
