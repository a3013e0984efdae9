"""A program at a terminal of its own, typed to and read like a person does it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

_CONTROL = re.compile(r"\x1b\[[0-9;?=>]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")


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
        self._patience = patience
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(command[0], list(command), dict(env))
        ioctl(self._terminal, TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        self.keys += len(keys)
        os.write(self._terminal, keys.encode())

    def read_until(self, wanted: str, *, patience: float | None = None) -> str:
        """What appears until a text does, without what moves the cursor or changes colours."""
        end = time.monotonic() + (patience or self._patience)
        before = len(self.shown)
        while wanted not in self.shown[before:]:
            left = end - time.monotonic()
            assert left > 0, f"{wanted!r} did not appear in: {self.shown[before:]!r}"
            if select.select([self._terminal], [], [], left)[0]:
                try:
                    self.shown += _CONTROL.sub("", os.read(self._terminal, 65536).decode(errors="replace"))
                except OSError:
                    raise AssertionError(f"it ended before {wanted!r}: {self.shown[before:]!r}") from None
        found = self.shown[before : self.shown.index(wanted, before) + len(wanted)]
        self.shown = self.shown[: before + len(found)] + self.shown[before + len(found) :]
        return found

    def wait(self) -> int:
        """The exit code of the program, once it has ended."""
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            if select.select([self._terminal], [], [], 0.2)[0]:
                try:
                    self.shown += _CONTROL.sub("", os.read(self._terminal, 65536).decode(errors="replace"))
                    continue
                except OSError:
                    pass
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it did not end: {self.shown[-2000:]!r}")

    def close(self) -> None:
        """End it where it has not ended."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        os.close(self._terminal)
