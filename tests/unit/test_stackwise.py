"""The console script `stackwise`: every command is one of its words."""

from __future__ import annotations

import pytest

from tests.heavy_modules import run_and_list

COMMANDS = ("new", "sweep", "train", "evaluate", "doctor")


def shown(*words: str) -> str:
    """What the command prints, having loaded nothing heavy."""
    program = f"from stackwise_ray.__main__ import app; app({list(words)!r}, prog_name='stackwise')"
    output, loaded = run_and_list(program)
    assert loaded == []
    return output


def test_its_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    output = shown("--help")
    assert all(word in output for word in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_is_that_of_its_module(command: str) -> None:
    output = shown(command, "--help")
    assert f"stackwise {command}" in output
    assert f"python -m stackwise_ray.{command}" in output, "the examples are shown"
