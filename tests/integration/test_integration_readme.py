"""The README is true: its commands exist with the options that it shows, and its example is the shipped file."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stackwise_ray"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.S | re.M)
COMMANDS = [
    line.partition("#")[0].strip()
    for language, block in BLOCKS
    if language in {"", "sh"}
    for line in block.splitlines()
    if line.startswith("python -m ")
]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_one_that_exists(command: str) -> None:
    words = shlex.split(command)
    if words[2] in {"venv", "pip", "mlflow"}:
        return
    helped = [sys.executable, *words[1:3], "--help"]
    if words[2] == "analysis":
        helped.insert(3, words[3])
    done = subprocess.run(helped, capture_output=True, text=True, timeout=60, env={"COLUMNS": "200", "PATH": ""})
    assert done.returncode == 0, done.stderr
    for word in words[3:]:
        if word.startswith("--"):
            assert word in done.stdout, f"{command}: {word} is no option"


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--list" in c or "ablation.yaml --plan" in c])
def test_a_light_command_of_the_readme_runs(command: str) -> None:
    done = subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_search_space_in_the_readme_is_the_shipped_example() -> None:
    shown = next(block for language, block in BLOCKS if language == "yaml")
    assert shown == (ROOT / "examples" / "02_compare_two_arms.yaml").read_text()


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", README):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_file_tree_has_every_room_and_nothing_that_is_not_there() -> None:
    (tree,) = [block for _, block in BLOCKS if block.startswith("stackwise_ray/\n")]
    listed: set[Path] = set()
    for line in tree.splitlines():
        names = re.findall(r"(?<![\w/])(\w+/|\w+\.(?:py|md))", line)
        above = PACKAGE if line.startswith(" ") else ROOT
        for name in names:  # a room, or what is in the line's first one
            places = [place for place in (above / name, above / names[0] / name) if place.exists()]
            assert places, f"{name} is not there: {line}"
            listed.add(places[0])
    rooms = {path.parent for top in (PACKAGE, ROOT / "analysis") for path in top.glob("*/*.*") if path.suffix != ".pyc"}
    commands = {path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert len(rooms) > 20
    assert rooms | commands <= listed, sorted(map(str, (rooms | commands) - listed))
