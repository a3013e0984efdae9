"""What every entry of every registry promises: the checks that `doctor --plugin` runs on a user's own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest

from stackwise_ray.contracts import Contract, NotAtHand, contracts_of, promise
from stackwise_ray.core.errors import ConfigError, MissingPackageError
from stackwise_ray.core.registries import BY_KIND, OPTIMIZERS, SAMPLERS
from stackwise_ray.plugin_checkup import HEAVY, check_entry
from tests.heavy_modules import run_and_list

CASES = [
    pytest.param(kind, name, check, id=f"{kind}-{name}-{check.__name__}")
    for kind, registry in BY_KIND.items()
    for name in registry.names()
    for check in contracts_of(kind)
]
MAY_LACK = {
    "corpora": "fetch it with",
    "optimizers": "install it with",
    "samplers": "not installed",
}
"""By kind of entry, what is said where this machine lacks its text or its package; no other kind lacks anything."""


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.usefixtures("module_cache", "no_hub")
@pytest.mark.parametrize(("kind", "name", "check"), CASES)
def test_an_entry_keeps_its_promise(kind: str, name: str, check: Contract) -> None:
    try:
        check(name)
    except NotAtHand as reason:
        if kind not in MAY_LACK or MAY_LACK[kind] not in str(reason):
            raise
        pytest.skip(str(reason))


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_of_entry_has_a_contract_in_sentences(kind: str) -> None:
    assert contracts_of(kind)
    assert all(promise(check).endswith(".") for check in contracts_of(kind))


def test_entries_load_nothing_heavy() -> None:
    program = (
        "from stackwise_ray.core.registries import BY_KIND\n"
        "assert all(dict(registry.items()) for registry in BY_KIND.values())"
    )
    assert run_and_list(program, HEAVY) == ("", [])


def _refusing(kind: str, error: Exception) -> AbstractContextManager[None]:
    """An entry called "refusing" that cannot be made, for the reason given."""

    def make(*_: Any, **__: Any) -> Any:
        raise error

    if kind == "samplers":
        return SAMPLERS.registered("refusing", SimpleNamespace(make=make, several_objectives=True))
    return OPTIMIZERS.registered("refusing", SimpleNamespace(build=make, rules=()))


@pytest.mark.parametrize("kind", ["optimizers", "samplers"])
@pytest.mark.parametrize(
    ("error", "status"),
    [(MissingPackageError("needs theirs; pip install theirs"), "note"), (ConfigError("it is Sunday"), "fails")],
    ids=["a missing package", "another refusal"],
)
def test_an_entry_that_cannot_be_made_is_left_out_for_a_missing_package_alone(
    kind: str, error: Exception, status: str
) -> None:
    with _refusing(kind, error):
        lines = list(check_entry(kind, "refusing", title="theirs"))
    assert {line.status for line in lines} == {status}
    assert all(str(error) in line.detail for line in lines)
