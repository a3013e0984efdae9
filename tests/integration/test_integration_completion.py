"""TAB in real shells: what a person sees at a prompt, after the install that the command itself offers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray.completion.shell_scripts import SCRIPTS
from tests.terminals import Terminal

pytestmark = pytest.mark.slow

STARTED = {
    "bash": ["bash", "--noprofile", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "-i"],
}
LINES = [
    ("stackwise sw", "stackwise sweep "),
    ("stackwise sweep ab", "stackwise sweep ablation "),
    ("stackwise sweep min", "stackwise sweep mine.yaml "),
    ("stackwise sweep ablation --pla", "stackwise sweep ablation --plan "),
    ("stackwise sweep ablation replicates.b", "stackwise sweep ablation replicates.block="),
    ("stackwise train training.reg", "stackwise train training.regime="),
    ("stackwise train training.regime=hy", "stackwise train training.regime=hybrid "),
    ("stackwise train model=decoder/gpt", "stackwise train model=decoder/gpt2_family/"),
    ("stackwise train model=decoder/gpt2_family/ti", "stackwise train model=decoder/gpt2_family/tiny "),
    ("stackwise train data.path=with\\ bl", "stackwise train data.path=with\\ blank.txt "),
    ("stackwise train --output new", "stackwise train --output newest/"),
    ("stackwise-analysis comp", "stackwise-analysis compare "),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the two commands on its path, as an installation has them."""
    (tmp_path / "bin").mkdir()
    for name, function in (("stackwise", "main"), ("stackwise-analysis", "analysis_main")):
        script = tmp_path / "bin" / name
        script.write_text(f"#!{sys.executable}\nfrom stackwise_ray.launch import {function}\n{function}()\n")
        script.chmod(0o755)
    for name in ("mine.yaml", "with blank.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "newest").mkdir()
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "STACKWISE_CACHE": str(home / "cache")}
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    without = {name: value for name, value in os.environ.items() if name not in ("ZDOTDIR", "XDG_DATA_HOME")}
    return {**without, **own, "PATH": path, "TERM": "xterm", "PS1": "% ", "PROMPT": "% "}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_tab_completes_a_line_of_the_shell(shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    env = environment(home)
    (home / ".zshrc").write_text("PROMPT='% '\n")
    for _ in range(2):  # a second install changes nothing
        subprocess.run(["stackwise", "--install-completion", "--shell", shell], env=env, check=True, cwd=home)
    if shell != "fish":
        assert (home / f".{shell}rc").read_text().count("completion") == 1
    with Terminal(STARTED[shell], cwd=home, env=env, patience=30) as terminal:
        terminal.type("echo 'rea''dy'\r")
        terminal.read_until("ready")
        for begun, completed in LINES:
            terminal.type(begun + "\t")
            terminal.read_until(completed)
            terminal.type("\x15")  # Ctrl-U: an empty line


def test_a_shell_that_has_no_script_is_refused_with_those_that_have(home: Path) -> None:
    command = ["stackwise", "--show-completion", "--shell", "tcsh"]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True)
    assert done.returncode == 2
    assert "--shell = tcsh is a shell without completion here; did you mean 'zsh'?" in done.stderr
