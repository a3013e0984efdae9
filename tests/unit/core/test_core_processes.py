"""Process groups: nothing of them is left behind."""

from __future__ import annotations

import os
import sys
import time

import pytest

from stackwise_ray.core.processes import ErrorLines, last_line, process_group

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_group_ends_with_its_block_children_and_all() -> None:
    def fail_inside() -> None:
        with process_group([sys.executable, "-c", PARENT]) as process:
            assert process.stdout is not None
            pids.extend([process.pid, int(process.stdout.readline())])
            assert all(runs(pid) for pid in pids)
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    end = time.monotonic() + 5
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_last_words_of_a_process_are_kept_and_a_flood_does_not_stop_it() -> None:
    code = "import sys\nfor i in range(20000): print('x' * 20, file=sys.stderr)\nraise ValueError('the reason')"
    with process_group([sys.executable, "-c", code]) as process:
        errors = ErrorLines(process)
        assert process.wait(timeout=30) == 1
        assert errors.last() == "ValueError: the reason"


def test_variables_are_added_to_those_of_this_process() -> None:
    code = "import os; print(os.environ['ADDED'], os.environ['PATH'])"
    with process_group([sys.executable, "-c", code], {"ADDED": "yes"}) as process:
        out, _ = process.communicate(timeout=30)
    assert out.strip() == f"yes {os.environ['PATH']}"


def test_silence_is_said_in_words() -> None:
    assert last_line("\n \n") == "it ended without output"
