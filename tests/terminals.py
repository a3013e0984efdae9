"""A program at a terminal of its own: typed to and read like a person does it, or only written down."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

_CONTROL = re.compile(r"\x07|\x1b\[[0-9;?=>]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")


class Terminal:
    """A program that runs at a terminal.

    Args:
        command: What runs.
        patience: Most seconds that one thing may take to appear.
    """

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], columns: int = 200, patience: float = 60.0
    ) -> None:
        self.keys = 0
        self.shown = ""
        self._read = 0
        self._patience = patience
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.execvpe(command[0], list(command), dict(env))
        _widen(self._terminal, columns)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def type(self, keys: str) -> None:
        """Press keys."""
        self.keys += len(keys)
        os.write(self._terminal, keys.encode())

    def read_until(self, wanted: str, *, patience: float | None = None) -> str:
        """What appears until a text does, without what moves the cursor or changes colours."""
        end = time.monotonic() + (patience or self._patience)
        while (place := self.shown.find(wanted, self._read)) < 0:
            unread = self.shown[self._read :][-2000:]
            assert time.monotonic() < end, f"{wanted!r} did not appear in: {unread!r}"
            assert self._receive(end), f"it ended before {wanted!r}: {unread!r}"
        begin, self._read = self._read, place + len(wanted)
        return self.shown[begin : self._read]

    def interrupt(self, wanted: str) -> None:
        """Press Ctrl-C until a text appears.

        A signal that reaches Python between the prompt and the wait for a key is noticed with the next key alone.
        """
        for patience in (5.0, 5.0, self._patience):
            self.type("\x03")
            try:
                self.read_until(wanted, patience=patience)
                return
            except AssertionError:
                if patience == self._patience:
                    raise

    def wait(self) -> int:
        """The exit code of the program, once it has ended."""
        end = time.monotonic() + self._patience
        while self._receive(end):
            assert time.monotonic() < end, f"it did not end: {self.shown[-2000:]!r}"
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End it where it has not ended."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        os.close(self._terminal)

    def _receive(self, end: float) -> bool:
        """Takes in what is there within the time; False where the program has closed its terminal."""
        if select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))[0]:
            try:
                received = os.read(self._terminal, 65536)
            except OSError:
                return False
            self.shown += plain(received)
        return True


def plain(received: bytes) -> str:
    """What a terminal has received, without what moves the cursor or changes colours."""
    return _CONTROL.sub("", received.decode(errors="replace"))


def at_a_terminal(command: Sequence[str], log: Path, columns: int, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A program that writes to a terminal of its own and can read nothing; what it shows is appended to a file."""
    ours, its = pty.openpty()
    _widen(ours, columns)
    started = subprocess.Popen(
        command, stdout=its, stderr=its, stdin=subprocess.DEVNULL, env=dict(env), preexec_fn=_listen_to_ctrl_c
    )
    os.close(its)

    def write_down() -> None:
        with (
            contextlib.suppress(OSError),
            open(log, "ab", buffering=0) as written,
            open(ours, "rb", buffering=0) as shown,
        ):
            while received := shown.read(65536):  # an error: nobody has the terminal open any more
                written.write(received)

    threading.Thread(target=write_down, name="terminal", daemon=True).start()
    return started


def _listen_to_ctrl_c() -> None:
    """A test run in the background of a script inherits an ignored SIGINT, and would pass it on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _widen(terminal: int, columns: int) -> None:
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
