"""Every example runs as its docstring says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_the_examples_are_numbered_without_gaps_and_say_how_to_run_them() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [int(path.stem[:2]) for path in scripts] == list(range(1, len(scripts) + 1))
    for path in scripts:
        assert f"python examples/{path.name}" in path.read_text()
