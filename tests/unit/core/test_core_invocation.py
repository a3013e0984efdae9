"""A printed command has the form of the one that was typed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stackwise_ray.core.invocation import as_started


@pytest.mark.parametrize(
    ("argv", "original", "sweep", "analysis"),
    [
        (
            ["x"],
            ["python", "-m", "stackwise_ray.train"],
            "python -m stackwise_ray.sweep",
            "python -m analysis",
        ),
        (["x"], ["python3", "-m", "stackwise_ray", "sweep"], "python3 -m stackwise_ray sweep", "python3 -m analysis"),
        (["x"], ["python", "-X", "dev"], "python -m stackwise_ray.sweep", "python -m analysis"),
        (["x"], ["python", "-u", "-m", "stackwise_ray"], "python -m stackwise_ray sweep", "python -m analysis"),
        (["x"], ["python", "-m", "analysis"], "python -m stackwise_ray.sweep", "python -m analysis"),
        (["x"], ["/usr/bin/python3", "-m", "pytest"], "python -m stackwise_ray.sweep", "python -m analysis"),
        ([""], ["python"], "python -m stackwise_ray.sweep", "python -m analysis"),
    ],
)
def test_a_module_is_printed_as_a_module(argv: list[str], original: list[str], sweep: str, analysis: str) -> None:
    assert as_started("sweep", argv=argv, original=original) == sweep
    assert as_started("analysis", argv=argv, original=original) == analysis


def test_an_installed_command_is_printed_by_its_name_where_the_path_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("stackwise", "stackwise-analysis", "python"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    for typed in (str(folder / "stackwise"), ".venv/bin/stackwise"):
        assert as_started("sweep", argv=[typed], original=[]) == ".venv/bin/stackwise sweep"
        assert as_started("analysis", argv=[typed], original=[]) == ".venv/bin/stackwise-analysis"
    python = [str(folder / "python"), "-m", "stackwise_ray.sweep"]
    assert as_started("doctor", argv=[""], original=python) == ".venv/bin/python -m stackwise_ray.doctor"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin")
    assert as_started("sweep", argv=[str(folder / "stackwise")], original=[]) == "stackwise sweep"
    assert as_started("analysis", argv=[str(folder / "stackwise-analysis")], original=[]) == "stackwise-analysis"
    assert as_started("doctor", argv=[""], original=python) == "python -m stackwise_ray.doctor"
