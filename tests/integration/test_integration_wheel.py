"""The installed wheel, from a working folder that holds an `analysis` of the user's own: it is never executed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.sweep_processes import BASE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("stackwise_ray", "analysis", "search_spaces", "pyproject.toml", "setup.py", "README.md", "LICENSE")
SWEEP = f"""{BASE}
    training.budget: {{steps: 4}}
name: two
question: Is a wider channel mixer better?
design:
  kind: arms
  arms: {{base: {{}}, wide: {{model.d_ff: 320}}}}
  baseline: base
replicates: {{seeds: 1}}
analysis:
  - compare: {{metric: validation/loss, baseline: base, equal: null}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout has been installed."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _done([*pip, "wheel", str(folder / "source"), "--no-deps", "--no-build-isolation", "-w", str(folder)], folder)
    (wheel,) = folder.glob("*.whl")
    _done([*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], folder)
    return folder / "site"


def _done(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=400, env={**os.environ, **variables}
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_sweep_report_and_doctor_run_beside_a_users_own_analysis_and_do_not_execute_it(
    site: Path, tmp_path: Path
) -> None:
    executed = tmp_path / "executed"
    hostile = f"from pathlib import Path\nPath({str(executed)!r}).write_text(__file__)\nraise SystemExit(9)\n"
    as_module, as_package = tmp_path / "as_module", tmp_path / "as_package"
    (as_package / "analysis").mkdir(parents=True)
    as_module.mkdir()
    (as_module / "analysis.py").write_text(hostile)
    (as_package / "analysis" / "__init__.py").write_text(hostile)
    file = tmp_path / "two.yaml"
    file.write_text(SWEEP)
    variables = {"PYTHONPATH": str(site), "STACKWISE_CACHE": str(tmp_path / "cache")}
    python, scripts = [sys.executable, "-m"], site / "bin"

    where = _done([sys.executable, "-c", "import stackwise_ray; print(stackwise_ray.__file__)"], as_module, **variables)
    assert Path(where.strip()).is_relative_to(site), "the wheel is what runs here"

    _done([*python, "stackwise_ray.sweep", str(file)], as_module, **variables)
    sweep = as_module / "experiments" / "two"
    assert (sweep / "report" / "report.md").is_file()

    for folder in (as_module, as_package):
        shown = _done([str(scripts / "stackwise-analysis"), "report", str(sweep)], folder, **variables)
        assert str(sweep / "report") in shown.replace("\n", "")
        _done([str(scripts / "stackwise"), "sweep", str(file), "--plan"], folder, **variables)
        assert "--no-calibrate" in _done(
            [*python, "stackwise_ray.doctor", "--help"], folder, COLUMNS="200", **variables
        )
    again = _done([*python, "stackwise_ray.sweep", str(file), "--output", str(sweep.parent)], as_package, **variables)
    assert "2 of 2 trials were there already" in again
    _done([str(scripts / "stackwise"), "doctor", "--no-ray", "--no-calibrate"], as_package, **variables)
    assert not executed.exists()
