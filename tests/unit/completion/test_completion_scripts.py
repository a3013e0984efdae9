"""What a shell loads and where it is put; the real shells at a terminal are in `test_integration_completion`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray.completion.answering import VARIABLE
from stackwise_ray.completion.shell_scripts import SCRIPTS, install

ASKED = """source "$1"; shift
compopt() { echo "$*"; } # bash has its own inside a completion alone
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE}
    _stackwise_complete stackwise
    printf '%s\\n' "${COMPREPLY[@]}" --
done
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one's own."""
    for name in ("XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_function_of_bash_puts_the_answer_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = home / "stackwise"
    program.write_text(f"#!{sys.executable}\nfrom stackwise_ray.launch import main\nmain()\n")
    program.chmod(0o755)
    (home / "runs").mkdir()
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    (home / "script").write_text(SCRIPTS["bash"])
    lines = ["stackwise sw", "stackwise train training.reg", "stackwise train --output ru", "stackwise nonsense x"]
    command = ["bash", "--noprofile", "--norc", "-c", ASKED, "bash", "script", *lines]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    answers = [answer.split() for answer in done.stdout.split("--\n")]
    assert answers == [["sweep"], ["-o", "nospace", "training.regime="], ["-o", "filenames", "runs"], [], []]


def test_every_script_asks_in_the_name_of_its_shell() -> None:
    assert [shell for shell, script in SCRIPTS.items() if f"{VARIABLE}={shell} " not in script] == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_start_of_a_shell_is_kept_and_gets_one_line(home: Path, shell: str) -> None:
    start = home / f".{shell}rc"
    start.write_text("alias mine=yours")
    assert install(shell) == install(shell) == start
    file = home / ".config" / "stackwise_ray" / f"completion.{shell}"
    assert start.read_text() == f'alias mine=yours\nsource "{file}"\n'
    assert file.read_text() == SCRIPTS[shell]


def test_fish_finds_a_file_for_each_command_in_its_folder(home: Path) -> None:
    install("fish")
    files = sorted((home / ".config" / "fish" / "completions").iterdir())
    assert [file.name for file in files] == ["stackwise-analysis.fish", "stackwise.fish"]
    assert {file.read_text() for file in files} == {SCRIPTS["fish"]}
