"""One owner for a directory: the lock that keeps a second command off a sweep that is running.

`owner.lock` names the owner by process id, start time of that process, boot and host. It is read and written under
`flock`, so two commands that find a dead owner at the same moment cannot both take over. A process id alone would
lie after a reboot or a wrap-around, hence the start time. An owner on another host cannot be looked up from here and
is never taken for dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from stackwise_ray.core.atomic import disk_full_is_named
from stackwise_ray.core.errors import ConfigError

LOCK_NAME = "owner.lock"
_LENGTH = 1024  # bytes of the file: one write of a fixed length replaces the whole content


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that holds a directory.

    Attributes:
        started: Start of the process: clock ticks since boot on Linux, else the text that `ps` gives.
        boot: Identity of the host's boot, empty where the system does not say.
        since: Unix time in seconds at which it took the directory.
    """

    pid: int
    host: str
    started: str
    boot: str
    since: float

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None for another host, where that cannot be known."""
        if self.host != socket.gethostname():
            return None
        return self.boot == _boot() and self.started == process_start(self.pid)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on host {self.host}, since {since}"


class SweepLock:
    """Ownership of one directory, held from `acquire` to `release` (or the death of the process).

    Args:
        directory: An existing, writable folder.

    Attributes:
        taken_over_from: The dead owner that `acquire` found, if there was one.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / LOCK_NAME
        self.taken_over_from: Owner | None = None
        self._mine: Owner | None = None

    def acquire(self) -> SweepLock:
        """Takes the directory.

        Raises:
            ConfigError: Somebody else has it (the message names process, host and time), or the folder cannot be
                written.
        """
        mine = Owner(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=process_start(os.getpid()) or "",
            boot=_boot(),
            since=time.time(),
        )
        with self._exclusive() as descriptor:
            owner = self._read(descriptor)
            if owner is not None:
                self._refuse_unless_dead(owner)
            self._write(descriptor, mine)
            self.taken_over_from = owner
        self._mine = mine
        return self

    def release(self) -> None:
        """Gives the directory back; does nothing where this lock does not hold it."""
        if self._mine is None:
            return
        with contextlib.suppress(ConfigError), self._exclusive() as descriptor:
            if self._read(descriptor) == self._mine:
                self.path.unlink(missing_ok=True)
        self._mine = None

    def owner(self) -> Owner | None:
        """The process that holds the directory, dead or alive; None: no process holds it."""
        if not self.path.exists():
            return None
        with open(self.path, "rb") as file:
            return self._read(file.fileno())

    def __enter__(self) -> SweepLock:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _refuse_unless_dead(self, owner: Owner) -> None:
        alive = owner.is_alive()
        if alive is None:
            raise ConfigError(
                f"this sweep belongs to {owner}; if that process no longer runs, delete {self.path} and try again",
                source=str(self.path.parent),
            )
        if alive:
            raise ConfigError(
                f"this sweep is running in {owner}; wait for it, stop it, or choose another output",
                source=str(self.path.parent),
            )

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[int]:
        """The lock file, open and locked; waits the microseconds that another taker needs."""
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise ConfigError(
                    f"the folder cannot be locked ({os.strerror(error.errno or 0).lower()}); choose an output that you "
                    "can write",
                    source=str(self.path.parent),
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._is_current(descriptor):  # else its owner released it, file and all, between open and flock
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _read(self, descriptor: int) -> Owner | None:
        text = os.pread(descriptor, _LENGTH, 0).decode(errors="replace").strip()
        if not text:
            return None
        try:
            return Owner(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"the lock file {self.path} is damaged; if no sweep runs here, delete it and try again",
                source=str(self.path.parent),
            ) from error

    @staticmethod
    def _write(descriptor: int, owner: Owner) -> None:
        with disk_full_is_named("the lock file"):
            os.pwrite(descriptor, json.dumps(asdict(owner)).encode().ljust(_LENGTH), 0)
            os.fsync(descriptor)


def process_start(pid: int) -> str | None:
    """The start time of a process in a form that equals itself, or None where there is no such process.

    A process that has ended but was not yet waited for (a zombie) counts as gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold blanks
        return None if fields[0] == "Z" else fields[19]  # proc(5): field 22, in clock ticks since boot
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
