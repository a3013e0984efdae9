"""What every command prints: the words of a user as they were written, and its own examples whole."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stackwise_ray.terminal import complain, make_console

PACKAGE = Path(__file__).parents[2] / "stackwise_ray"


@pytest.mark.parametrize("command", ["sweep", "train", "evaluate", "doctor"])
def test_the_help_of_a_command_holds_its_examples_whole(command: str) -> None:
    app = importlib.import_module(f"stackwise_ray.{command}").app
    (registered,) = app.registered_commands
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}).output
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]
    examples = [line for line in registered.epilog.splitlines() if line.startswith("python -m")]
    assert examples
    for example in examples:
        assert re.sub(r"\[/?(bold|dim)\]", "", example).replace(r"\[", "[") in lines


def test_what_looks_like_an_emoji_code_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "model.components.early_exit.threshold:-1:: is out of range"
    complain(text)
    make_console().print(text, markup=False, highlight=False, soft_wrap=True)
    out, err = capsys.readouterr()
    assert out.strip() == err.strip() == text


def test_a_console_is_made_in_one_place() -> None:
    made = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    ]
    assert made == []
