"""Where the commands begin: a shell's question is answered before anything is imported, and else the program runs."""

from __future__ import annotations

import sys

import pytest

from stackwise_ray import launch
from stackwise_ray.completion import answering


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that a shell has asked about, in the order of their answers."""
    answered: list[str] = []

    def answer(program: str, collect: object) -> None:
        assert collect is launch._collected
        answered.append(program)

    monkeypatch.setattr(answering, "answer", answer)
    monkeypatch.delenv("_STACKWISE_COMPLETE", raising=False)
    return answered


@pytest.mark.parametrize(
    ("begin", "program", "says"),
    [
        (launch.main, "stackwise", "Turn a claim about a model"),
        (launch.analysis_main, "stackwise-analysis", "compare"),
    ],
)
def test_a_shells_question_is_answered_and_else_the_program_runs(
    begin: object,
    program: str,
    says: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(begin)
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    with pytest.raises(SystemExit) as ended:
        begin()
    assert ended.value.code == 0
    assert says in capsys.readouterr().out
    assert asked == []
    monkeypatch.setenv("_STACKWISE_COMPLETE", "zsh")
    begin()
    assert asked == [program]
    assert capsys.readouterr().out == ""


def test_what_can_be_completed_is_collected_from_the_commands() -> None:
    table, _ = launch._collected()
    assert {"new", "sweep", "train", "evaluate", "doctor"} <= set(str(table).replace("'", " ").split())
