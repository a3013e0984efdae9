"""What every entry of every registry promises: the checks that `doctor --plugin` runs on a user's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stackwise_ray.contracts import Contract, NotAtHand, contracts_of, promise
from stackwise_ray.core.registries import BY_KIND

CASES = [
    pytest.param(name, check, id=f"{kind}-{name}-{check.__name__}")
    for kind, registry in BY_KIND.items()
    for name in registry.names()
    for check in contracts_of(kind)
]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.usefixtures("module_cache")
@pytest.mark.parametrize(("name", "check"), CASES)
def test_an_entry_keeps_its_promise(name: str, check: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    try:
        check(name)
    except NotAtHand as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_of_entry_has_a_contract_in_sentences(kind: str) -> None:
    assert contracts_of(kind)
    assert all(promise(check).endswith(".") for check in contracts_of(kind))


def test_entries_load_without_torch_ray_and_transformers() -> None:
    code = (
        "import sys; from stackwise_ray.core.registries import BY_KIND\n"
        "for registry in BY_KIND.values(): dict(registry.items())\n"
        "print(*({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
