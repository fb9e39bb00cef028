"""The process of one measurement: `python -m benchmarks.child SIDE WORK.json OUT.json`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def measured(side: str, work: str) -> str:
    """Do one side's work, given as JSON; what was measured, as JSON."""
    module = importlib.import_module(f"benchmarks.sides.{side}")
    return module.measure(module.Work.model_validate_json(work)).model_dump_json(indent=1)


def main(side: str, work: str, out: str) -> None:
    """Do one side's work and write what was measured."""
    found = measured(side, Path(work).read_text(encoding="utf-8"))
    Path(out).write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
