"""One owner for a directory, with real processes that are really killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.ownership import LOCK_NAME, SweepLock, process_start

HOLDER = """
import sys
from stackwise_ray.core.ownership import SweepLock
SweepLock(sys.argv[1]).acquire()
sys.stdout.write("held\\n"); sys.stdout.flush()
sys.stdin.readline()
"""

TAKER = """
import sys
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.ownership import SweepLock
sys.stdout.write("up\\n"); sys.stdout.flush()
sys.stdin.readline()
try:
    SweepLock(sys.argv[1]).acquire()
    sys.stdout.write("won\\n")
except ConfigError:
    sys.stdout.write("lost\\n")
sys.stdout.flush()
sys.stdin.readline()
"""


def start(code: str, directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("held", "up")
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_second_command_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    holder = start(HOLDER, tmp_path)
    try:
        with pytest.raises(ConfigError) as caught:
            SweepLock(tmp_path).acquire()
        assert f"process {holder.pid} on host {socket.gethostname()}, since 20" in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    finally:
        kill(holder)


def test_the_lock_of_a_killed_owner_is_taken_over(tmp_path: Path) -> None:
    holder = start(HOLDER, tmp_path)
    kill(holder)
    with SweepLock(tmp_path) as lock:
        assert lock.taken_over_from is not None
        assert lock.taken_over_from.pid == holder.pid
        owner = lock.owner()
        assert owner is not None
        assert owner.pid == os.getpid()


def test_a_killed_owner_that_nobody_waited_for_is_dead_too(tmp_path: Path) -> None:
    holder = start(HOLDER, tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # ended, but still in the process table
    SweepLock(tmp_path).acquire().release()
    holder.communicate()


def test_another_process_with_the_owners_old_pid_does_not_count_as_the_owner(tmp_path: Path) -> None:
    SweepLock(tmp_path).acquire()
    path = tmp_path / LOCK_NAME
    content = json.loads(path.read_text())
    content["started"] = "1"  # this very pid lives, but the owner started at another time
    path.write_text(json.dumps(content))
    lock = SweepLock(tmp_path).acquire()
    assert lock.taken_over_from is not None


def test_an_owner_before_the_last_boot_is_dead(tmp_path: Path) -> None:
    SweepLock(tmp_path).acquire()
    path = tmp_path / LOCK_NAME
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "boot": "another boot"}))
    assert SweepLock(tmp_path).acquire().taken_over_from is not None


def test_an_owner_on_another_host_is_never_taken_for_dead(tmp_path: Path) -> None:
    SweepLock(tmp_path).acquire()
    path = tmp_path / LOCK_NAME
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "host": "elsewhere", "pid": 4_194_304}))
    with pytest.raises(ConfigError, match=f"on host elsewhere.*delete {path}"):
        SweepLock(tmp_path).acquire()


def test_a_damaged_lock_file_is_refused_with_the_file_to_delete(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("{half")
    with pytest.raises(ConfigError, match=f"{tmp_path / LOCK_NAME} is damaged"):
        SweepLock(tmp_path).acquire()


def test_the_same_process_cannot_own_a_directory_twice(tmp_path: Path) -> None:
    with SweepLock(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        SweepLock(tmp_path).acquire()


def test_a_released_directory_is_clean_and_free(tmp_path: Path) -> None:
    lock = SweepLock(tmp_path).acquire()
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    with SweepLock(tmp_path) as again:
        assert again.taken_over_from is None


def test_a_lock_that_was_taken_over_is_not_released_by_its_old_owner(tmp_path: Path) -> None:
    old = SweepLock(tmp_path).acquire()
    holder_file = tmp_path / LOCK_NAME
    content = json.loads(holder_file.read_text())
    holder_file.write_text(json.dumps({**content, "host": "elsewhere"}))
    old.release()
    assert json.loads(holder_file.read_text())["host"] == "elsewhere"


def test_a_missing_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be locked"):
        SweepLock(tmp_path / "absent").acquire()


def test_a_process_start_is_the_same_twice_and_none_for_no_process() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid())
    assert process_start(os.getpid()) is not None
    assert process_start(4_194_305) is None  # beyond the largest pid


@pytest.mark.slow
def test_of_many_that_find_a_dead_owner_at_once_exactly_one_takes_over(tmp_path: Path) -> None:
    for round_number in range(5):
        directory = tmp_path / str(round_number)
        directory.mkdir()
        kill(start(HOLDER, directory))
        takers = [start(TAKER, directory) for _ in range(6)]
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("go\n")
            taker.stdin.flush()
        answers = [taker.stdout.readline().strip() for taker in takers if taker.stdout is not None]
        for taker in takers:
            kill(taker)
        assert sorted(answers) == ["lost"] * 5 + ["won"]
