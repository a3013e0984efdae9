"""The first hour of somebody who has a claim: `stackwise new` at a terminal, its plan, its sweep, the verdict."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.terminals import Terminal

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "stackwise_ray"]
ENTER = "\r"


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A working folder, and an environment whose cache is empty."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder, {**os.environ, "STACKWISE_CACHE": str(tmp_path / "cache"), "TERM": "xterm"}


@pytest.mark.timeout(1200)
def test_from_a_claim_to_a_verdict(place: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, env = place
    began = time.monotonic()
    with Terminal([*PROGRAM, "new", "--even-if-busy"], cwd=folder, env=env, patience=240) as terminal:
        terminal.read_until("1/4  What do you claim?")
        terminal.type("Llama beats GPT-2." + ENTER)
        terminal.read_until("2/4  Which model")
        terminal.read_until("[decoder/gpt2_family/tiny]")
        terminal.type(ENTER)
        terminal.read_until("With what is it compared?")
        terminal.read_until("[decoder/bk_family/tiny]")
        terminal.type("2" + ENTER)
        terminal.read_until("3/4  On which data?")
        terminal.read_until("[python_stdlib]")
        terminal.type("no such data" + ENTER)
        terminal.read_until("is not the name of a preset")
        terminal.read_until("[python_stdlib]")
        terminal.type("markov" + ENTER)
        terminal.read_until("[10min]")
        terminal.type("90s" + ENTER)
        terminal.read_until("Measure it now")
        terminal.type(ENTER)
        shown = terminal.read_until("run it: the answer, and a report")
        assert terminal.wait() == 0
    written = time.monotonic() - began
    assert re.search(r"llama_vs_gpt2.yaml: gpt2, llama; 6 trials in about [\w ]+", shown)
    plan, sweep = (line.partition("#")[0].split() for line in shown.splitlines()[-2:])
    planned = subprocess.run(plan, cwd=folder, env=env, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert "6 trials" in planned.stdout
    sweep += ["replicates.seeds=2", "training.budget={steps: 5}"]  # the rest is as any other sweep
    answered = subprocess.run(sweep, cwd=folder, env=env, capture_output=True, text=True)
    assert answered.returncode == 0, answered.stdout + answered.stderr
    assert "4/4 trials done" in answered.stdout
    assert "llama" in answered.stdout
    assert (folder / "experiments" / "llama_vs_gpt2" / "report" / "report.html").is_file()
    with capsys.disabled():
        total = time.monotonic() - began
        print(f"\n{terminal.keys} keystrokes and {written:.0f} s to the file, {total:.0f} s to the verdict")


@pytest.mark.parametrize("questions", [["1/4"], ["1/4", "2/4"]], ids=["at the first question", "at the second"])
def test_ctrl_c_ends_it_and_leaves_nothing(place: tuple[Path, dict[str, str]], questions: list[str]) -> None:
    folder, env = place
    with Terminal([*PROGRAM, "new"], cwd=folder, env=env) as terminal:
        for question in questions:
            terminal.read_until(question)
            terminal.read_until("] ")
            terminal.type("\x03" if question == questions[-1] else ENTER)
        terminal.read_until("interrupted")
        assert terminal.wait() == 130
    assert list(folder.iterdir()) == []
