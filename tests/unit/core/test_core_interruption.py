"""Signals while something runs: the first is noted, a second one ends it, and afterwards all is as it was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from stackwise_ray.core.interruption import stop_signals


@pytest.fixture(autouse=True)
def earlier() -> Iterator[list[int]]:
    """Signals that come to the handlers from before."""
    came: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: came.append(number)) for each in (signal.SIGINT, signal.SIGTERM)
    }
    yield came
    for each, handler in before.items():
        signal.signal(each, handler)


def test_the_first_signal_is_noted_and_stops_nothing(earlier: list[int]) -> None:
    with stop_signals() as received:
        assert received == []
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
    assert earlier == []


def test_a_second_ctrl_c_goes_where_the_first_would_have_gone(earlier: list[int]) -> None:
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGINT]
    assert earlier == [signal.SIGINT, signal.SIGTERM]


def test_after_a_polite_end_a_second_signal_ends_the_process() -> None:
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == [signal.SIG_DFL] * 2


def test_the_handlers_from_before_are_back_also_after_an_error(earlier: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), stop_signals():
        raise ZeroDivisionError
    for each in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), each)
    assert earlier == [signal.SIGTERM, signal.SIGINT]


def test_in_another_thread_nothing_is_noted_and_no_handler_changes(earlier: list[int]) -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[list[int]] = []

    def work() -> None:
        with stop_signals() as received:
            seen.append(received)
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    os.kill(os.getpid(), signal.SIGINT)
    done.set()
    thread.join()
    assert (seen, earlier) == ([[]], [signal.SIGINT])
