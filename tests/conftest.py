"""Options and fixtures of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackwise_ray.core.registries import BY_KIND
from tests.golden import golden
from tests.own_cache import own_cache
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["golden", "pytest_make_collect_report", "pytest_runtest_makereport"]

# Two processes with two threads each on two cores make every timing twice as long and prove nothing more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="write the texts of tests/golden_texts anew")
    parser.addoption("--kills", type=int, default=2, help="kills in each chaos test (the show run uses 10)")


LONG = (
    "test_integration_examples",
    "test_integration_fake_cuda",
    "test_integration_sweep_workers",
    "test_integration_interruptions",
    "test_integration_chaos",
    "test_integration_new",
    "test_integration_wheel",
    "test_integration_mlflow_server",
    "test_integration_sweep",
    "test_integration_training_workers",
)
"""Files that take a minute and more: one that began last would keep one process of the tests busy alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files begin; all others keep their order."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """The collector no longer goes through what the libraries have loaded: a tenth of the processor's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    """An entry that a test registers is gone after it: no other test finds it."""
    before = {kind: registry.names() for kind, registry in BY_KIND.items()}
    yield
    assert {kind: registry.names() for kind, registry in BY_KIND.items()} == before


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hugging Face hub cannot be reached; what its cache holds is found."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the variable of this name is read at the first import


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of prepared data that the tests of one module share, and that nothing else sees."""
    folder = own_cache(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACKWISE_CACHE", str(folder))
        yield folder
