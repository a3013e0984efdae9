"""What every command does at the terminal: its console, its lines, its exit codes, its error messages, its JSON.

Called by every command of `stackwise`. What a command prints beyond that is its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from stackwise_ray.core.errors import ConfigError, DeviceLostError, DiskFullError, RayStartError
from stackwise_ray.core.invocation import as_started
from stackwise_ray.core.plugins import ask_again, load_plugin, problems

EXIT_DONE, EXIT_FAILED, EXIT_MISTAKE, EXIT_INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all done; something failed or is left to do; a mistake in what was asked; Ctrl-C."""

FIRST_SECONDS, LINE_SECONDS = 2.0, 10.0
"""When progress is first printed, and how far apart its lines are, where no terminal shows a line that changes."""

PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="NAME|FILE.py",
        help="Load a plugin: a Python file, an installed entry point or a module that registers entries; repeatable.",
    ),
]
"""The option of every command that takes plugins."""


def examples(command: str, *lines: str) -> str:
    """The end of a command's help: examples in the form in which the program was started.

    Args:
        lines: What follows the command, with what it is for after three spaces and a #.
    """
    shown = ["[bold]Examples[/bold]"]
    for line in lines:
        words, mark, purpose = line.replace("[", "\\[").partition("   #")
        shown.append(f"{as_started(command)} {words}".rstrip() + (f"   [dim]#{purpose}[/dim]" if mark else ""))
    return "\n\n".join(shown)


HYDRA_OPTIONS = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")


def refuse_hydra_option(value: str | None) -> str | None:
    """Refuse an option of Hydra; the error says what to write instead.

    Raises:
        ConfigError: One was given.
    """
    if value is not None:
        name = value.removesuffix(".yaml").removeprefix("search_spaces/")
        with exit_codes(resumable=False):
            raise ConfigError(
                f"= {value}: this option of Hydra does not exist here. The first word is a file, or the name of a "
                f"shipped one; write: {as_started('sweep')} {name}",
                path="--config-name",
            )
    return value


HydraOption = Annotated[
    str | None, typer.Option(*HYDRA_OPTIONS, hidden=True, is_eager=True, callback=refuse_hydra_option)
]
"""The option of commands that may be typed as Hydra's are."""


def make_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console as wide as the terminal, or of 120 columns where output goes into a file or a pipe.

    Every console is made here: what a user wrote is shown as it was written, also where it looks like an emoji code or
    like rich's markup in brackets. Colour is asked for with `Text` or a style.

    Args:
        soft_wrap: Whether lines are left for the terminal to wrap.
    """
    console = _Console(stderr=stderr, soft_wrap=soft_wrap)
    return console if console.is_terminal else _Console(stderr=stderr, soft_wrap=soft_wrap, width=120)


class _Console(Console):
    """When the reader of a pipe goes away the work goes on in silence: a sweep is more than what it prints."""

    def __init__(self, *, stderr: bool, soft_wrap: bool, width: int | None = None) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(console: Console, line: str, *, style: str | None = None) -> None:
    """One line as it is: no markup, no colour but `style`, and the terminal alone wraps it."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def exit_codes(*, resumable: bool = True) -> Iterator[None]:
    """The exit codes of every command, with one message and no traceback for what a person can fix.

    What is wrong with installed plugins is printed at the end, before an error.

    Args:
        resumable: Whether the same command would go on where it was interrupted.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's polite end is a Ctrl-C
    try:
        try:
            yield
        except ConfigError as error:
            warn_about_plugins(error)
            raise
        finally:
            warn_about_plugins()
    except ConfigError as error:
        complain(f"error: {error}")
        raise typer.Exit(EXIT_MISTAKE) from None
    except (DeviceLostError, DiskFullError, RayStartError) as error:
        complain(f"error: {error}")
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        complain("interrupted" + ("; the same command continues where this one stopped" if resumable else ""))
        raise typer.Exit(EXIT_INTERRUPTED) from None


def load_plugins(asked: Sequence[str] | None) -> None:
    """Load what `--plugin` names, in this order.

    Raises:
        PluginError: One cannot be loaded.
    """
    for name in asked or ():
        load_plugin(name)


def warn_about_plugins(error: Exception | None = None) -> None:
    """One line on standard error per installed plugin that something is wrong with; the command goes on without it.

    Args:
        error: The error that ends the command and is printed after this. What it says is not repeated as a warning.
    """
    for problem in problems("" if error is None else str(error)):
        complain(f"warning: {problem}")


@contextmanager
def plugins_of_before(folder: Path | None) -> Iterator[None]:
    """If the work in the block is refused because a plugin is missing, the error names the plugin of the trial's
    folder.

    Args:
        folder: Of a trial that may have begun; None: there is none.

    Raises:
        PluginError: The trial was started with a plugin that is not loaded.
    """
    try:
        yield
    except ConfigError:
        path = folder and folder / "metadata" / "environment.json"
        if path and path.is_file():
            ask_again(json.loads(path.read_text(encoding="utf-8")).get("plugins") or (), str(folder))
        raise


def print_json(value: Any) -> None:
    """One JSON document on standard output; a number that JSON cannot express is an error."""
    print(json.dumps(value, indent=2, allow_nan=False))


def complain(message: str) -> None:
    """One message on standard error, as it is."""
    say(make_console(stderr=True), message)


class Waiting:
    """Shows what takes longer than two seconds: one line that changes on a terminal, else few lines.

    Args:
        console: Where; None: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or make_console(stderr=True)
        self._status = self._console.status("") if self._console.is_terminal else None
        self._what = ""
        self._next = 0.0
        self._late: threading.Timer | None = None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove its line from a terminal: until then rich sends standard output to that terminal."""
        if self._status is not None:
            self._status.stop()
        self._what = ""
        self._wait_for(None)

    def _wait_for(self, text: str | None) -> None:
        """Prints this line in two seconds, unless something else is waited for by then."""
        if self._late is not None:
            self._late.cancel()
        self._late = None
        if text is not None:
            self._late = threading.Timer(FIRST_SECONDS, say, (self._console, f"{text} …"))
            self._late.daemon = True
            self._late.start()

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Receives progress, as a `ProgressCallback` of data and tasks."""
        now = time.monotonic()
        text = f"{what} {done / total:.0%}" if total else what
        if self._status is not None:
            self._status.update(Text(text))
            self._status.start()
        elif what != self._what:
            self._what, self._next = what, now + FIRST_SECONDS
            self._wait_for(what)
        elif now >= self._next:
            self._next = now + LINE_SECONDS
            self._wait_for(None)
            say(self._console, text)
