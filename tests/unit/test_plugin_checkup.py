"""What `doctor --plugin` says of a plugin's loading; what it says of entries is tested over the registries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REGISTERS = """
from types import SimpleNamespace
from stackwise_ray.core.registries import SCHEDULERS

SCHEDULERS.register("mine")(SimpleNamespace(options=(), make=lambda **options: None))
"""


def loading(folder: Path, text: str) -> list[dict[str, str]]:
    """The two lines on the loading of a plugin with this text, asked in a process of its own."""
    (folder / "mine.py").write_text(text)
    code = (
        "import itertools, json; from dataclasses import asdict\n"
        "from stackwise_ray.plugin_checkup import check_plugins\n"
        "found = itertools.islice(check_plugins(['mine.py'], lambda what: None), 2)\n"
        "print(json.dumps([asdict(check) for check in found]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    (found,) = (line for line in done.stdout.splitlines() if "[{" in line)
    lines: list[dict[str, str]] = json.loads(found[found.index("[{") :])
    return lines


AT_THE_END = "import atexit; atexit.register(print, 'torch, goodbye')"


@pytest.mark.parametrize("prints", ["print('torch, hello')", AT_THE_END, "print('torch', end='')"])
def test_a_plugin_that_prints_when_it_loads_or_ends_is_well(prints: str, tmp_path: Path) -> None:
    lines = loading(tmp_path, REGISTERS + prints)
    assert [line["status"] for line in lines] == ["ok", "ok"]
    assert "It loads none of torch" in lines[1]["detail"]


def test_a_plugin_that_ends_the_second_process_fails(tmp_path: Path) -> None:
    ends = "import os\nif os.path.exists('made'): os._exit(0)\nos.mkdir('made')"
    _, second = loading(tmp_path, REGISTERS + ends)
    assert second["status"] == "fails"
    assert "a second process cannot load it (exit code 0)" in second["detail"]


def test_a_plugin_of_metrics_alone_is_well(tmp_path: Path) -> None:
    first, second = loading(
        tmp_path,
        "from stackwise_ray.core.metric import Metric\n"
        "from stackwise_ray.core.metric_catalogue import register_metrics\n"
        "register_metrics(Metric(path='mine/score', unit='points', reported_by='a test'))\n",
    )
    assert (first["status"], second["status"]) == ("ok", "ok")
    assert first["detail"].startswith("registers metric 'mine/score' (sha256 ")


def test_a_plugin_that_loads_only_once_fails_with_the_reason(tmp_path: Path) -> None:
    first, second = loading(tmp_path, REGISTERS + "import os; os.mkdir('made')")
    assert first["status"] == "ok"
    assert second["status"] == "fails"
    assert "a second process cannot load it (exit code 1)" in second["detail"]
    assert "FileExistsError at line 6 of" in second["detail"]
    assert "worker" in second["fix"]


def test_a_plugin_that_loads_what_is_heavy_is_told_so(tmp_path: Path) -> None:
    _, second = loading(tmp_path, REGISTERS + "import optuna")
    assert (second["status"], second["detail"]) == ("note", "loading it loads optuna")
