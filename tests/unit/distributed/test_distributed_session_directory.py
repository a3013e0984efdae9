"""The directory of a local Ray session: what a killed driver left is removed, without Ray, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray.distributed.session_directory import private_directory, remove_stale_directory


def test_a_directory_that_a_session_made_is_removed_and_no_other(tmp_path: Path) -> None:
    made = private_directory()
    assert made.is_dir()
    remove_stale_directory(str(made))
    assert not made.exists()
    remove_stale_directory(str(tmp_path))
    assert tmp_path.is_dir()
    remove_stale_directory(None)


def test_a_parent_that_is_too_deep_for_sockets_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("deep" * 10)))  # as TMPDIR, read once
    made = private_directory()
    assert made.parent == Path("/tmp")
    remove_stale_directory(str(made))


def test_a_sweep_takes_its_directory_over_without_loading_ray(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from stackwise_ray.config.loading import load_sweep, shipped_search_spaces
from stackwise_ray.config.space.designs import expand
from stackwise_ray.distributed import driver
from stackwise_ray.terminal import make_console

sweep = load_sweep(next(iter(shipped_search_spaces())))
driver._run = lambda *given: "ran"
assert driver.run_sweep(sweep, expand(sweep), Path(sys.argv[1]), make_console(), driver.Options()) == "ran"
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "sweep")], check=True)
