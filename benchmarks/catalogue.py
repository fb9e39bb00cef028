"""The benchmarks by name: the work, who does it, and in which settings the peer is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import turns
from benchmarks.work import SampleWork, SftWork, Work

BUNDLED = "builtin:smollm2-135m"
_NONE = Path()  # filled in when the model is there
_COMMON: dict[str, Any] = {"model": _NONE, "turns": turns.FILE}

Options = Mapping[str, Any]

TRL: dict[str, Options] = {
    "autocast": {},
    "autocast, compiled": {"torch_compile": True},
    "autocast, padding-free": {"padding_free": True},
    "autocast, packed": {"packing": True},
    "autocast, grouped by length": {"train_sampling_strategy": "group_by_length"},
}
GENERATE: dict[str, Options] = {
    "dynamic cache": {},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "static cache, compiled": {"cache_implementation": "static"},
}
OPENVINO: dict[str, Options] = {
    "defaults": {},
    "long prefill": {"max_num_batched_tokens": 2048},
    "throughput hint": {"PERFORMANCE_HINT": "THROUGHPUT"},
    "bf16 cache": {"KV_CACHE_PRECISION": "bf16"},
}


@dataclass(frozen=True)
class Benchmark:
    """One comparison."""

    name: str
    title: str
    """What is measured, for the page."""
    work: Work
    quick: Mapping[str, Any]
    """What `--quick` changes in the work."""
    ours: str
    """Module in `sides` that does it with our code."""
    peer: str
    """Module in `sides` that does it with the peer's."""
    peer_name: str
    variants: Mapping[str, Options]
    """Settings in which the peer is tried. `--quick` takes the first, so it should be the best."""
    model: str = BUNDLED
    package: str = ""
    """The peer's package on PyPI."""
    sides: Mapping[str, str] = field(default_factory=dict[str, str])


def _sft(name: str, method: Any) -> Benchmark:
    return Benchmark(
        name,
        title=f"SFT ({method}), batch 16",
        work=SftWork(method=method, **_COMMON),
        quick={"steps": 2, "warm": 1},
        ours="sft_ours",
        peer="sft_trl",
        peer_name="TRL SFTTrainer",
        variants=TRL,
        package="trl",
    )


def _sampling(
    name: str, title: str, work: SampleWork, peer: str, peer_name: str, package: str
) -> Benchmark:
    return Benchmark(
        name,
        title=title,
        work=work,
        quick={"tokens": 16},
        ours="sampling_ours",
        peer=peer,
        peer_name=peer_name,
        variants=OPENVINO if peer == "sampling_openvino" else GENERATE,
        package=package,
    )


_SAMPLING = SampleWork(prompts=128, tokens=48, **_COMMON)
_GENERATE = ("sampling_generate", "transformers generate", "transformers")
_OPENVINO = ("sampling_openvino", "OpenVINO GenAI", "openvino-genai")

BENCHMARKS = {
    one.name: one
    for one in (
        _sft("sft-lora", "lora"),
        _sft("sft-full", "full"),
        _sampling("sampling", "128 prompts x 48 tokens", _SAMPLING, *_GENERATE),
        _sampling("sampling-openvino", "128 prompts x 48 tokens", _SAMPLING, *_OPENVINO),
        _sampling(
            "rollout",
            "8 prompts x 8 answers x 32 tokens, with log-probabilities",
            SampleWork(prompts=8, n=8, tokens=32, logprobs=True, **_COMMON),
            *_GENERATE,
        ),
        _sampling(
            "rollout-single",
            "64 prompts x 1 answer x 32 tokens, with log-probabilities",
            SampleWork(prompts=64, n=1, tokens=32, logprobs=True, **_COMMON),
            *_GENERATE,
        ),
    )
}
