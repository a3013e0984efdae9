"""Our package `analysis` is found by its place, and a user's file of the same name is never executed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stackwise_ray.core import beside

ASK = (
    "from stackwise_ray.core.beside import analysis_module, analysis_package\n"
    "from stackwise_ray.core.registries import ANALYSES\n"
    "print(analysis_package(), analysis_module('render').__file__, 'AnalysisError' in dir(analysis_module()))\n"
    "assert {'compare', 'isoflop'} <= set(dict(ANALYSES.items()))\n"
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


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's module has the name; what is loaded privately is gone afterwards."""
    ours = {name for name in sys.modules if name.partition(".")[0] == beside.NAME}
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, beside.NAME, ModuleType(beside.NAME))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == beside.PRIVATE]:
        del sys.modules[name]


def test_in_this_process_it_is_imported_once_under_its_own_name() -> None:
    assert beside.analysis_package() == beside.NAME
    assert beside.analysis_module() is importlib.import_module("analysis")
    assert beside.analysis_module("render") is importlib.import_module("analysis.render")
    assert beside.PRIVATE not in sys.modules


@pytest.mark.usefixtures("private")
def test_beside_a_users_module_it_is_loaded_once_under_a_private_name() -> None:
    assert beside.analysis_package() == beside.PRIVATE
    module = beside.analysis_module()
    assert module.__file__ == str(beside.PLACE / "__init__.py")
    assert beside.analysis_module() is module
    assert beside.analysis_module("render").__name__ == f"{beside.PRIVATE}.render"


@pytest.mark.usefixtures("private")
def test_a_damaged_installation_is_named_and_nothing_half_loaded_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A copy that is damaged: that of the installation is needed by other tests.
    monkeypatch.setattr(beside, "PLACE", tmp_path)
    with pytest.raises(ModuleNotFoundError, match=f"{tmp_path} is missing: install stackwise_ray again"):
        beside.analysis_package()
    (tmp_path / "__init__.py").write_text("raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        beside.analysis_package()
    assert beside.PRIVATE not in sys.modules
