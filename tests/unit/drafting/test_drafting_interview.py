"""Questions at a terminal: typed words, numbers, Enter and refused answers; nobody is asked who cannot be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.drafting.interview import Interview
from stackwise_ray.terminal import make_console
from tests.terminals import Terminal

PROGRAM = """
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.drafting.interview import Interview
from stackwise_ray.terminal import make_console

def fruit(word):
    if word not in ("apple", "pear"):
        raise ConfigError(f"= {word} is no fruit")
    return word

ask = Interview(make_console(), asks=True)
print("got", ask.answer("Which?", "--fruit", None, fruit, default="apple", choices={"apple": "red", "pear": ""}))
print("agrees", ask.agrees("Sure?", "--yes"))
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal at which the first question is asked."""
    with Terminal([sys.executable, "-c", PROGRAM], cwd=tmp_path, env={**os.environ, "TERM": "xterm"}) as opened:
        opened.read_until("Which?")
        opened.read_until("1  apple   red")
        opened.read_until("2  pear")
        opened.read_until("[apple] ")
        yield opened


@pytest.mark.parametrize(
    ("typed", "found"),
    [(["\r"], "apple"), (["2\r"], "pear"), (["1\r"], "apple"), ([" pear \r"], "pear"), (["3\r", "0\r", "2\r"], "pear")],
    ids=["Enter", "the last number", "the first number", "a word", "numbers that are not in the list"],
)
def test_an_answer_is_a_word_its_number_or_enter(terminal: Terminal, typed: list[str], found: str) -> None:
    *refused, taken = typed
    for keys in refused:
        terminal.type(keys)
        terminal.read_until(f"= {keys.strip()} is no fruit")
        terminal.read_until("[apple] ")
    terminal.type(taken)
    terminal.read_until(f"got {found}")


@pytest.mark.parametrize(("typed", "agrees"), [("\r", True), ("Yes\r", True), ("n\r", False), ("what\r", False)])
def test_enter_and_yes_agree_and_nothing_else(terminal: Terminal, typed: str, agrees: bool) -> None:
    terminal.type("\r")
    terminal.read_until("Sure? [Y/n] ")
    terminal.type(typed)
    terminal.read_until(f"agrees {agrees}")


def test_the_end_of_the_input_is_answered_with_the_option(terminal: Terminal) -> None:
    terminal.type("\x04")  # Ctrl-D
    terminal.read_until("--fruit: is not given, and the input has ended; give it, or --yes to take the default")


def test_who_is_not_asked_gives_the_defaults_and_agrees() -> None:
    ask = Interview(make_console(), asks=False)
    assert ask.answer("Which?", "--fruit", None, str.upper, default="apple") == "APPLE"
    assert ask.agrees("Sure?", "--yes")


def test_an_answer_that_was_given_is_checked_and_not_asked_for() -> None:
    def refuse(word: str) -> str:
        raise ConfigError(f"= {word} is no fruit")

    ask = Interview(make_console(), asks=True)
    assert ask.answer("Which?", "--fruit", "pear", str.upper, default="apple") == "PEAR"
    with pytest.raises(ConfigError, match="= stone is no fruit"):
        ask.answer("Which?", "--fruit", "stone", refuse, default="apple")
