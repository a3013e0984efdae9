"""What the tests of sweeps share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stackwise_ray.tracking.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal of a sweep."""
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened
