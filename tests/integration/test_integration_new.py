"""The first hour of somebody who has a claim: `stackwise new` at a terminal, its plan, its sweep, the verdict."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.own_cache import own_cache
from tests.terminals import Terminal
from tests.warm_processes import WarmProcess

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "stackwise_ray"]
ENTER = "\r"


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A working folder, and an environment in whose cache nothing was measured."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder, {**os.environ, "STACKWISE_CACHE": str(own_cache(tmp_path / "cache")), "TERM": "xterm"}


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
    assert "6 trials" in printed_by(plan, place)
    sweep += ["replicates.seeds=2", "training.budget={steps: 5}"]  # the rest is as any other sweep
    answer = printed_by([*sweep, "--max-concurrent", "1"], place)
    assert "4/4 trials done" in answer
    assert "llama" in answer
    assert (folder / "experiments" / "llama_vs_gpt2" / "report" / "report.html").is_file()
    with capsys.disabled():
        total = time.monotonic() - began
        print(f"\n{terminal.keys} keystrokes and {written:.0f} s to the file, {total:.0f} s to the verdict")


def printed_by(command: list[str], place: tuple[Path, dict[str, str]]) -> str:
    """What a command of the form ``python -m MODULE WORDS`` prints."""
    folder, env = place
    assert command[1] == "-m"
    printed = folder.parent / f"printed-{time.time_ns()}"
    code = WarmProcess(command[2], command[3:], output=printed, cwd=folder, env=env).wait(600)
    assert code == 0, printed.read_text()
    return printed.read_text()


@pytest.mark.parametrize("questions", [["1/4"], ["1/4", "2/4"]], ids=["at the first question", "at the second"])
def test_ctrl_c_ends_it_and_leaves_nothing(place: tuple[Path, dict[str, str]], questions: list[str]) -> None:
    folder, env = place
    with Terminal([*PROGRAM, "new"], cwd=folder, env=env) as terminal:
        for question in questions:
            terminal.read_until(question)
            terminal.read_until("] ")
            if question != questions[-1]:
                terminal.type(ENTER)
        terminal.interrupt("interrupted")
        assert terminal.wait() == 130
    assert list(folder.iterdir()) == []
