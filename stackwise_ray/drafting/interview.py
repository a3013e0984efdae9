"""Questions at a terminal, each of which an option can answer instead.

Neither `typer.prompt` nor `rich.prompt` fits: an answer here is a word or its number in a list, a refused answer is
asked for again with our own message, and where nobody can be asked the error names the option that answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from rich.console import Console

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.terminal import say

T = TypeVar("T")


class Interview:
    """Asks what no option has answered.

    Args:
        asks: Whether questions are asked; if not, the defaults are the answers.
    """

    def __init__(self, console: Console, *, asks: bool) -> None:
        self._console = console
        self._asks = asks

    def answer(
        self,
        question: str,
        option: str,
        given: str | None,
        check: Callable[[str], T],
        *,
        default: str,
        choices: Mapping[str, str] | None = None,
        hint: str | None = None,
    ) -> T:
        """The answer, converted by `check`: what was given as an option, what was typed, or the default.

        Args:
            option: What answers the question on the command line.
            check: Refuses an answer by a `ConfigError`; at a terminal the question is then asked again.
            choices: Words that can be typed, or chosen by their number, with what they mean.
            hint: What Enter gives, where the default does not say it.

        Raises:
            ConfigError: An answer that was given is refused, or nobody can be asked.
        """
        if given is not None:
            return check(given)
        if not self._asks:
            return check(default)
        self._require_terminal(option)
        say(self._console, question, style="bold")
        words = list(choices or ())
        for number, (word, meaning) in enumerate((choices or {}).items(), 1):
            say(self._console, f"  {number:2}  {word}" + (f"   {meaning}" if meaning else ""))
        while True:
            typed = self._read(f"  [{hint or default}] ", option) or default
            if typed.isdecimal() and 1 <= int(typed) <= len(words):
                typed = words[int(typed) - 1]
            try:
                return check(typed)
            except ConfigError as error:
                say(self._console, f"  {error.problem}", style="red")

    def agrees(self, question: str, option: str) -> bool:
        """Whether the user agrees; without a question True, if nothing is asked."""
        if not self._asks:
            return True
        self._require_terminal(option)
        return self._read(f"{question} [Y/n] ", option).lower() in ("", "y", "yes")

    def _read(self, prompt: str, option: str) -> str:
        try:
            return input(prompt).strip()
        except EOFError:
            raise _unanswered(option, "the input has ended") from None

    def _require_terminal(self, option: str) -> None:
        if not sys.stdin.isatty():
            raise _unanswered(option, "standard input is no terminal")


def _unanswered(option: str, why: str) -> ConfigError:
    return ConfigError(f"is not given, and {why}; give it, or --yes to take the default", path=option)
