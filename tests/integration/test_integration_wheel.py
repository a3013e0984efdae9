"""The installed wheel with a user's own flag and corpus, from a folder that holds an `analysis` of the user's own.

Ray's workers get the plugins from the driver; the user's `analysis` is never executed.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.sweep_processes import trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("stackwise_ray", "analysis", "search_spaces", "pyproject.toml", "setup.py", "README.md", "LICENSE")
PLUGINS = ("08_your_own_flag.py", "09_your_own_corpus.py")
SWEEP = """
base:
  model: decoder/gpt2_family/tiny
  training: classical
  overrides:
    data.corpus: sums
    data.digits: 1
    data.seq_len: 64
    data.validation_tokens: 2048
    data.final_evaluation: fixed
    model.n_layers: 2
    training.batch_tokens: 256
    training.evaluations: 1
    training.budget: {steps: 20} # a warm-up of one step or of four
name: own
question: Does a long warm-up help?
design:
  kind: arms
  arms: {base: {}, warm: {flags: [long_warmup]}}
  baseline: base
replicates: {seeds: 1}
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


def _run(command: list[str], folder: Path, **variables: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, env=environment)
    return done.returncode, done.stdout + done.stderr


def _done(command: list[str], folder: Path, **variables: str) -> str:
    code, output = _run(command, folder, **variables)
    assert code == 0, f"{command}:\n{output}"
    return output


def test_sweep_report_plan_and_doctor_run_with_plugins_and_do_not_execute_a_users_own_analysis(
    site: Path, tmp_path: Path
) -> None:
    executed = tmp_path / "executed"
    hostile = f"from pathlib import Path\nPath({str(executed)!r}).write_text(__file__)\nraise SystemExit(9)\n"
    as_module, as_package = tmp_path / "as_module", tmp_path / "as_package"
    (as_package / "analysis").mkdir(parents=True)
    as_module.mkdir()
    (as_module / "analysis.py").write_text(hostile)
    (as_package / "analysis" / "__init__.py").write_text(hostile)
    file = tmp_path / "own.yaml"
    file.write_text(SWEEP)
    variables = {"PYTHONPATH": str(site), "STACKWISE_CACHE": str(tmp_path / "cache")}
    scripts = site / "bin"
    command = [sys.executable, "-m", "stackwise_ray.sweep", str(file)]
    flag, corpus = (str(shutil.copy(ROOT / "examples" / name, tmp_path)) for name in PLUGINS)
    with_plugins = ["--plugin", flag, "--plugin", corpus]

    where = _done([sys.executable, "-c", "import stackwise_ray; print(stackwise_ray.__file__)"], as_module, **variables)
    assert Path(where.strip()).is_relative_to(site), "the wheel is what runs here"

    code, _ = _run(command, as_module, **variables)
    assert code == 2, "a search-space file alone loads no plugin"
    _done([*command, *with_plugins, "--max-concurrent", "1"], as_module, **variables)
    sweep = as_module / "experiments" / "own"
    assert (sweep / "report" / "report.md").is_file()
    assert_plugins_recorded(sweep, flag, corpus)
    code, said = _run([*command, "--plugin", flag], as_module, **variables)
    assert code == 2
    assert f"add --plugin {corpus}" in said.replace("\n", "")

    for folder in (as_module, as_package):
        shown = _done([str(scripts / "stackwise-analysis"), "report", str(sweep)], folder, **variables)
        assert str(sweep / "report") in shown.replace("\n", "")
    planned = [str(scripts / "stackwise"), "sweep", str(file), "--plan", *with_plugins]
    _done(planned, as_package, **variables)
    again = _done([*command, *with_plugins, "--output", str(sweep.parent)], as_package, **variables)
    assert "2 of 2 trials were there already" in again
    _done([str(scripts / "stackwise"), "doctor", "--no-ray", "--no-calibrate"], as_package, **variables)
    doctor = [sys.executable, "-m", "stackwise_ray.doctor", "--help"]
    assert "--no-calibrate" in _done(doctor, as_module, COLUMNS="200", **variables)
    assert not executed.exists()


def assert_plugins_recorded(sweep: Path, flag: str, corpus: str) -> None:
    """That workers ran them, and that trials and journal say which they were."""
    records = {record.arm: record for record in trials(sweep)}
    assert {record.status for record in records.values()} == {"finished"}
    assert records["warm"].metrics["train/loss"] != records["base"].metrics["train/loss"]
    for record in records.values():
        environment = sweep / "trials" / record.trial_id / "metadata" / "environment.json"
        recorded = json.loads(environment.read_text())["plugins"]
        assert [plugin["file"] for plugin in recorded] == [flag, corpus]
        assert all(len(plugin["sha256"]) == 64 for plugin in recorded)
    with sqlite3.connect(sweep / "journal.sqlite") as journal:
        (stored,) = journal.execute("SELECT value FROM meta WHERE key = 'plugins'").fetchone()
    assert json.loads(stored) == recorded
