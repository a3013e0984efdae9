"""Synthetic sweeps as fixtures; `synthetic_sweeps` makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_sweeps import JournalBuilder, write_ablation


@pytest.fixture
def journal(tmp_path: Path) -> JournalBuilder:
    """An empty journal in a folder of its own."""
    return JournalBuilder(tmp_path / "sweep")


@pytest.fixture
def ablation(tmp_path: Path) -> Path:
    """Folder of a finished five-arm sweep with one failed trial."""
    return write_ablation(tmp_path / "ablation")


@pytest.fixture
def make_ablation(tmp_path: Path) -> Callable[..., Path]:
    """Builds variants of the five-arm sweep: `make_ablation(seeds=5, failed=False)`."""

    def build(name: str = "variant", **options: Any) -> Path:
        return write_ablation(tmp_path / name, **options)

    return build
