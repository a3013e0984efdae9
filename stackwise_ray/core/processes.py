"""Other processes, run so that nothing of them is left behind: a group of its own, ended as a whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence


@contextlib.contextmanager
def process_group(
    words: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes for its output; it and its children are killed when the block ends, however it ends.

    Args:
        environment: Variables over those of this process.
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


class ErrorLines:
    """Keeps a process's standard error flowing (a full pipe would stop it) and remembers the last line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._text = process, ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        if self._process.stderr is not None:
            for line in self._process.stderr:
                self._text = line if line.strip() else self._text

    def last(self) -> str:
        """What it said last; to be asked once it has ended."""
        self._thread.join(timeout=5)
        return last_line(self._text)


def last_line(text: str) -> str:
    """The last line that says something: of a traceback, the error.

    >>> last_line("Traceback ...\\n  File ...\\nValueError: no\\n\\n")
    'ValueError: no'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it ended without output"
