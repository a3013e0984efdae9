"""The console script `stackwise`: every command is one of its words."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(*words: str) -> str:
    code = (
        "import sys; from stackwise_ray.__main__ import app\n"
        f"try: app({list(words)!r}, prog_name='stackwise')\n"
        "except SystemExit: print([n for n in ('torch', 'ray', 'transformers', 'mlflow') if n in sys.modules])"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_its_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    shown = run("--help")
    assert all(word in shown for word in ("sweep", "train", "evaluate", "doctor"))
    assert shown.strip().endswith("[]")


@pytest.mark.parametrize("command", ["sweep", "train", "evaluate", "doctor"])
def test_a_commands_help_is_that_of_its_module(command: str) -> None:
    shown = run(command, "--help")
    assert f"stackwise {command}" in shown
    assert f"python -m stackwise_ray.{command}" in shown, "the examples are shown"
    assert shown.strip().endswith("[]")
