"""Every example runs as its docstring says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm_processes import WarmProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COLD = "01_train_one_model"
"""It starts from nothing, as a reader's does; the others are forked from a process with the libraries loaded."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    folder, printed = tmp_path / "empty", tmp_path / "printed"
    folder.mkdir()
    if path.stem == COLD:
        with open(printed, "w") as output:
            command = [sys.executable, str(path)]
            code = subprocess.run(command, stdout=output, stderr=output, cwd=folder, timeout=280).returncode
    else:
        code = WarmProcess(path, [], output=printed, cwd=folder, env=os.environ, one_core=True).wait(280)
    assert code == 0, printed.read_text()
    assert printed.read_text().strip()
    assert not list(folder.iterdir()), "an example leaves nothing behind"


def test_the_examples_are_numbered_without_gaps_and_say_how_to_run_them() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [int(path.stem[:2]) for path in scripts] == list(range(1, len(scripts) + 1))
    for path in scripts:
        assert f"python examples/{path.name}" in path.read_text()
