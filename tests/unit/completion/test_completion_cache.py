"""The table that is kept: taken while it is true, made again when it is stale or damaged, and light to read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.completion import table_cache
from stackwise_ray.completion.answering import split_line
from stackwise_ray.completion.table_cache import completion_table, table_file
from stackwise_ray.config.reading.shipped import shipped_search_spaces

ROOT = Path(__file__).resolve().parents[3]
LIGHT = "import sys; from stackwise_ray.launch import main; main(); print(' '.join(sys.modules), file=sys.stderr)"


class Making:
    """Stands for the slow collecting, which other tests run, and counts how often it is asked."""

    def __init__(self, plugin: Path) -> None:
        self.times = 0
        self.plugin = plugin

    def __call__(self) -> tuple[dict[str, Any], list[str]]:
        self.times += 1
        return {"programs": {}, "paths": {"times": self.times}}, [str(self.plugin)]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Making:
    """What makes a table, for a cache that is empty and one file of ours."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    watched = tmp_path / "ours.py"
    watched.write_text("1")
    monkeypatch.setattr(table_cache, "_our_files", lambda: iter([str(watched)]))  # a test changes no source of ours
    return Making(tmp_path / "plugin.py")


def test_a_table_is_made_once(made: Making) -> None:
    assert completion_table(made) == completion_table(made)
    assert made.times == 1
    assert [file.name for file in Path(table_file()).parent.iterdir()] == [Path(table_file()).name], "no leftovers"


@pytest.mark.parametrize("name", ["ours.py", "plugin.py"])
def test_a_table_is_made_again_when_a_file_that_it_was_made_of_changes(made: Making, tmp_path: Path, name: str) -> None:
    completion_table(made)
    (tmp_path / name).write_text("another length")
    assert completion_table(made)["paths"] == {"times": 2}
    assert completion_table(made)["paths"] == {"times": 2}


def test_what_a_table_is_made_of_is_watched() -> None:
    watched = set(table_cache._our_files())
    presets = ROOT / "stackwise_ray" / "presets" / "model" / "decoder" / "gpt2_family"
    made_of = [ROOT / "stackwise_ray" / "sweep.py", ROOT / "analysis" / "__main__.py", presets, presets / "tiny.yaml"]
    made_of += [*shipped_search_spaces().values(), Path(pytest.__file__).parents[1]]  # the last: where packages are
    assert [path for path in made_of if str(path) not in watched] == []
    assert not any("__pycache__" in path for path in watched), "a compiled module is no change"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": {}, "table": []}', '{"state": {}, "table": {}}', "\x00"])
def test_a_damaged_table_is_made_again(made: Making, content: str) -> None:
    completion_table(made)
    Path(table_file()).write_text(content)
    assert completion_table(made)["paths"] == {"times": 2}
    assert json.loads(Path(table_file()).read_text())["table"]["paths"] == {"times": 2}


def test_a_cache_that_cannot_be_written_stops_no_completion(
    made: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "file" / "below"))
    assert completion_table(made)["paths"] == {"times": 1}
    assert completion_table(made)["paths"] == {"times": 2}


def test_each_version_and_each_place_of_packages_has_a_table_of_its_own(
    made: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {table_file()}
    monkeypatch.setattr(table_cache, "VERSION", "9.9.9")  # another version, as if it were installed
    names.add(table_file())
    monkeypatch.setattr(sys, "path", [*sys.path, "/somewhere"])  # as PYTHONPATH does it
    names.add(table_file())
    assert len(names) == 3


def test_a_tab_loads_nothing_heavy_once_the_table_is_kept(tmp_path: Path) -> None:
    asked = {"_STACKWISE_COMPLETE": "bash", "_STACKWISE_LINE": "stackwise sweep abl"}
    env = {**os.environ, **asked, "STACKWISE_CACHE": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == "\nablation\n"
    heavy = {"typer", "rich", "pydantic", "yaml", "hydra", "numpy", "torch", "importlib.metadata", "subprocess"}
    assert set(done.stderr.split()) & heavy == set()


def test_an_installed_plugin_that_cannot_be_loaded_stops_no_completion(tmp_path: Path) -> None:
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    groups = ("flags", "corpora", "families", "regimes", "tasks", "optimizers", "presets")
    text = "".join(f"[stackwise_ray.{group}]\nmine = no_such_module\n" for group in groups)
    (metadata / "entry_points.txt").write_text(text)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    asked = {"_STACKWISE_COMPLETE": "bash", "_STACKWISE_LINE": "stackwise new --against dee"}
    env = {**os.environ, **asked, "PYTHONPATH": path, "STACKWISE_CACHE": str(tmp_path)}
    program = "from stackwise_ray.launch import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\ndeeper\n", "")


@pytest.mark.parametrize(
    ("line", "words", "cut"),
    [
        ("stackwise ", ["stackwise", ""], 0),
        ("stackwise train a=b", ["stackwise", "train", "a=b"], 2),
        ("stackwise train a=b ", ["stackwise", "train", "a=b", ""], 0),
        ("stackwise train my\\ file", ["stackwise", "train", "my file"], 0),
        ("stackwise train 'a=b", ["stackwise", "train", "a=b"], 0),
        ('stackwise train a="b c', ["stackwise", "train", "a=b c"], 2),
        ("stackwise --address ray://x", ["stackwise", "--address", "ray://x"], 4),
    ],
)
def test_a_line_of_bash_is_cut_as_bash_cuts_it(line: str, words: list[str], cut: int) -> None:
    assert split_line(line, "=:") == (words, cut)
