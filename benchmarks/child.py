"""The process of one measurement: `python -m benchmarks.child SIDE WORK.json OUT.json`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.measured import Measured, matrix_units


def main(side: str, work: str, out: str) -> None:
    """Do one side's work and write what was measured."""
    module = importlib.import_module(f"benchmarks.sides.{side}")
    asked = module.Work.model_validate_json(Path(work).read_text(encoding="utf-8"))
    found = module.measure(asked)
    if isinstance(found, Measured):
        found = found.model_copy(update={"matrix_units": matrix_units()})
    Path(out).write_text(found.model_dump_json(indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
