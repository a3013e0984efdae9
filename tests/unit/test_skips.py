"""In continuous integration a test that is skipped for a missing tool fails; elsewhere it is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import is_permitted

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = """
import pytest

def test_a_tool():
    pytest.skip("no Chromium here")

@pytest.mark.skipif(True, reason="no CUDA device")
def test_a_gpu():
    raise AssertionError
"""


def outcome(folder: Path, source: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of pytest on one file of tests."""
    (folder / "test_file.py").write_text(source)
    words = [sys.executable, "-m", "pytest", "-ra", "-p", "tests.skips", "-p", "no:cacheprovider", "test_file.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_missing_tool_fails_in_ci_alone_and_says_what_to_do(tmp_path: Path) -> None:
    code, output = outcome(tmp_path, SKIPPED, CI="true")
    assert code == 1
    assert "1 failed, 1 skipped" in output
    assert "skipped: no Chromium here" in output
    assert "install it, or add the reason to PERMITTED" in output
    assert "no CUDA device" in output  # in the list of skips at the end
    for elsewhere in ("", "false"):
        code, output = outcome(tmp_path, SKIPPED, CI=elsewhere)
        assert code == 0
        assert "2 skipped" in output


def test_a_file_that_is_skipped_as_a_whole_is_no_way_around(tmp_path: Path) -> None:
    whole = "import pytest\npytest.importorskip('no_such_package')\ndef test_it(): pass\n"
    code, output = outcome(tmp_path, whole, CI="true")
    assert code == 2
    assert "could not import 'no_such_package'" in output
    assert "no test may be skipped for a missing tool" in output


@pytest.mark.parametrize(
    ("reason", "permitted"),
    [
        ("no CUDA device", True),
        ("STACKWISE_DATA has no tokenizers/gpt2", True),
        ("data.corpus = wikitext103 is not here; fetch it with 'hf download …'", True),
        ("the extra qlora is not installed", False),
        ("there is no C compiler", False),
        ("triton is not installed", False),
        ("optimizer.kind = adamw_8bit needs bitsandbytes; install it with pip", False),
    ],
)
def test_a_gpu_and_data_may_be_absent_and_nothing_else(reason: str, permitted: bool) -> None:
    assert is_permitted(reason) is permitted
