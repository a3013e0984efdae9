"""What every command prints: the words of a user as they were written, and its own examples whole."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from typer.testing import CliRunner

from stackwise_ray.checkup import Check
from stackwise_ray.doctor import _show
from stackwise_ray.terminal import Waiting, complain, make_console, say
from tests.golden import Golden

COMMANDS = ("new", "sweep", "train", "evaluate", "doctor")
PACKAGE = Path(__file__).parents[2] / "stackwise_ray"


def help_of(command: str, width: int) -> str:
    """What the command's help shows on a terminal of this width."""
    app = importlib.import_module(f"stackwise_ray.{command}").app
    with pytest.MonkeyPatch.context() as patch:
        # Typer reads TERMINAL_WIDTH once, when it first shows help: in whichever test that was.
        patch.setattr("typer.rich_utils.MAX_WIDTH", width)
        size = {"COLUMNS": str(width), "NO_COLOR": "1"}
        shown = CliRunner().invoke(app, ["--help"], env=size, prog_name="stackwise").output
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)  # bold, where the environment forces a terminal


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_holds_its_examples_whole(command: str) -> None:
    app = importlib.import_module(f"stackwise_ray.{command}").app
    (registered,) = app.registered_commands
    shown = help_of(command, 200)
    lines = [line.strip() for line in shown.splitlines()]
    examples = [line for line in registered.epilog.splitlines() if line.startswith("python -m")]
    assert examples
    for example in examples:
        assert re.sub(r"\[/?(bold|dim)\]", "", example).replace(r"\[", "[") in lines


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_as_on_file(command: str, golden: Golden) -> None:
    golden.check(f"help/{command}.txt", help_of(command, 80))


@pytest.mark.parametrize("width", [80, 100, 119])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_cuts_no_sentence_and_no_example(command: str, width: int) -> None:
    app = importlib.import_module(f"stackwise_ray.{command}").app
    (registered,) = app.registered_commands
    shown = help_of(command, width)
    assert "…" not in shown
    assert "..." not in shown.replace("=value ...", "").replace("[ARGS]...", "").replace("]...", "").replace("...]", "")
    words = re.sub(r"[│╭╮╰╯─\s]+", " ", shown)
    for _, option in option_helps(registered.callback):
        assert all(word in words for word in option.split())
    for example in registered.epilog.split("\n\n")[1:]:
        assert re.sub(r"\[/?(bold|dim)\]", "", example).replace(r"\[", "[") in shown, "on one line"


def option_helps(callback: Any) -> list[tuple[str, str]]:
    hints = typing.get_type_hints(callback, include_extras=True)
    infos = [(name, extra) for name, hint in hints.items() for extra in typing.get_args(hint)[1:]]
    return [(name, info.help) for name, info in infos if getattr(info, "help", None)]


@pytest.mark.parametrize(
    "words", [["--config-name", "ablation"], ["-cn=search_spaces/ablation.yaml"], ["--config-path=ablation"]]
)
@pytest.mark.parametrize("command", ["sweep", "train", "__main__"])
def test_an_option_of_hydra_is_answered_with_the_command_of_today(command: str, words: list[str]) -> None:
    app = importlib.import_module(f"stackwise_ray.{command}").app
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert done.output.endswith("write: python -m stackwise_ray.sweep ablation\n")


def test_what_looks_like_an_emoji_code_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "model.components.early_exit.threshold:-1:: is out of range"
    complain(text)
    make_console().print(text, markup=False, highlight=False, soft_wrap=True)
    out, err = capsys.readouterr()
    assert out.strip() == err.strip() == text


def test_what_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "runs/[red]a[/red] [/b]"
    table = Table(show_header=False, box=None)
    table.add_row(text)
    console = make_console()
    say(console, text)
    console.print(text)
    console.print(table)
    _show(console, Check(name=text, status="fails", detail=text, fix=text))
    out = capsys.readouterr().out
    assert [line.strip() for line in out.splitlines()] == [text, text, text, f"fails  {text}  {text}", f"fix: {text}"]


def test_what_takes_long_is_shown_as_it_is_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what a terminal is to rich
    monkeypatch.setenv("TERM", "xterm")
    with Waiting() as waiting:
        waiting("loading [x]mine.py[/x]", 1, 2)
    assert "loading [x]mine.py[/x] 50%" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "smoke", "data.corpus=nobodys"],
        ["train", "model=decoder/gpt2_family/tiny", "data=markov", "flags=[nobodys]"],
        ["evaluate", "--list"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_prints_what_is_wrong_with_an_installed_plugin(words: list[str], tmp_path: Path) -> None:
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    groups = {"corpora": "markov", "flags": "compile", "tasks": "ptb"}  # names of ours
    text = "".join(f"[stackwise_ray.{group}]\n{name} = theirs\n" for group, name in groups.items())
    (metadata / "entry_points.txt").write_text(text)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", f"stackwise_ray.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == (0 if words[-1] == "--list" else 2)
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: the installed plugin theirs 1.0")]
    assert said
    assert len(said) == len(set(said)), "each is printed once"


def test_a_console_is_made_in_one_place() -> None:
    made = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    ]
    assert made == []


def test_progress_is_said_after_two_seconds_and_on_standard_error_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.9, 2.1, 3.0, 12.2])
    with Waiting() as waiting:
        monkeypatch.setattr("time.monotonic", lambda: next(clock))  # waits of seconds, without waiting
        for done in (0, 1, 2, 3, 4):
            waiting("scoring", done, 4)
        monkeypatch.undo()
    assert capsys.readouterr() == ("", "scoring 50%\nscoring 100%\n")


def test_an_answer_goes_to_standard_output_where_only_standard_error_is_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what a terminal is to rich
    monkeypatch.setenv("TERM", "xterm")
    with Waiting() as waiting:
        waiting("scoring", 1, 2)
        waiting.clear()
        print("the answer")
        waiting("scoring", 2, 2)
    out, err = capsys.readouterr()
    assert out == "the answer\n"
    assert "scoring" in err
