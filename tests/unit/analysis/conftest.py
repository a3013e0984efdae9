"""Synthetic sweeps as fixtures; `synthetic_sweeps` makes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_sweeps import JournalBuilder, write_ablation

from analysis import write_report


@pytest.fixture
def journal(tmp_path: Path) -> JournalBuilder:
    """An empty journal in a folder of its own."""
    return JournalBuilder(tmp_path / "sweep")


@pytest.fixture(scope="session")
def _ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ablation(tmp_path_factory.mktemp("original") / "ablation")


@pytest.fixture
def ablation(_ablation: Path, tmp_path: Path) -> Path:
    """Folder of a finished five-arm sweep with one failed trial: a copy of the test's own."""
    return Path(shutil.copytree(_ablation, tmp_path / "ablation"))


@pytest.fixture(scope="session")
def reported(_ablation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep with its report, which replaced a figure of an earlier one; for tests that only read."""
    folder = Path(shutil.copytree(_ablation, tmp_path_factory.mktemp("reported") / "ablation"))
    (folder / "report" / "figures").mkdir(parents=True)
    (folder / "report" / "figures" / "gone.svg").write_text("")
    write_report(folder)
    return folder


@pytest.fixture
def make_ablation(tmp_path: Path) -> Callable[..., Path]:
    """Builds variants of the five-arm sweep: `make_ablation(seeds=5, failed=False)`."""

    def build(name: str = "variant", **options: Any) -> Path:
        return write_ablation(tmp_path / name, **options)

    return build
