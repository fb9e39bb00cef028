"""What fuzz tests share: the count of examples at the end, and a folder to work in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzzing
import pytest

_BEGUN = time.monotonic()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many examples were tried, and how they ended."""
    if fuzzing.EXAMPLES:
        terminalreporter.write_line(fuzzing.told(time.monotonic() - _BEGUN))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder, in which commands run."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("fuzz")
    os.chdir(folder)
    yield folder
    os.chdir(before)
