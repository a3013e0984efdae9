"""Our package `analysis` is found by its place, and a user's file of the same name is never executed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ASK = (
    "from stackwise_ray.core.beside import analysis_module, analysis_package\n"
    "from stackwise_ray.core.registries import ANALYSES\n"
    "print(analysis_package(), analysis_module('render').__file__, 'AnalysisError' in dir(analysis_module()))\n"
    "ANALYSES.names()\n"
)


def answer(folder: Path, code: str = ASK) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_it_has_its_own_name_where_that_leads_to_it(tmp_path: Path) -> None:
    name, file, whole = answer(tmp_path)
    assert (name, whole) == ("analysis", "True")
    assert Path(file).parts[-2:] == ("analysis", "render.py")


@pytest.mark.parametrize("place", ["analysis.py", "analysis/__init__.py"])
def test_a_users_file_of_that_name_is_not_executed_and_ours_is_used(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('executed')")
    name, file, whole = answer(tmp_path)
    assert (name, whole) == ("_stackwise_analysis", "True")
    assert not Path(file).is_relative_to(tmp_path)


def test_a_users_module_that_is_loaded_already_stays_theirs(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("MINE = 1\n")
    code = f"import analysis\n{ASK}print(analysis.MINE)"
    name, _, _, mine = answer(tmp_path, code)
    assert (name, mine) == ("_stackwise_analysis", "1")
