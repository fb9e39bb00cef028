"""The benchmarks by name: the work, both sides, and the settings to try for the peer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import turns
from benchmarks.work import RlWork, SampleWork, SftWork, Work

BUNDLED = "builtin:smollm2-135m"
_NONE = Path()  # filled in once the model exists
_COMMON: dict[str, Any] = {"model": _NONE, "turns": turns.FILE}

Options = Mapping[str, Any]

TRL: dict[str, Options] = {
    "autocast": {},
    "autocast, compiled": {"torch_compile": True},
    "autocast, padding-free": {"padding_free": True},
    "autocast, packed": {"packing": True},
    "autocast, packed short": {"packing": True, "max_length": 256},
    "autocast, grouped by length": {"train_sampling_strategy": "group_by_length"},
}
GRPO: dict[str, Options] = {
    # Dense states first: where the head is frozen, generate takes 12 s and 8.8 GB for 128 rows
    # without them (notebook, 2026-11-26, few rows on AMX).
    "static cache, 32 a pass, dense states": {
        "rows": 32,
        "cache_implementation": "static",
        "dense_states": True,
    },
    "static cache, 32 a pass": {"rows": 32, "cache_implementation": "static"},
    "static cache, 128 a pass": {"rows": 128, "cache_implementation": "static"},
    "dynamic cache, 32 a pass": {"rows": 32},
    "static cache, 32 a pass, all weights fp32": {
        "rows": 32,
        "cache_implementation": "static",
        "frozen": "fp32",
    },
}
# The static cache first: 399 tokens/s against 228 with a dynamic one, against which ours would look
# better than it is (notebook, 2026-11-25, AMX).
GENERATE: dict[str, Options] = {
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "dynamic cache": {},
    "static cache, compiled": {"cache_implementation": "static"},
}
OPENVINO: dict[str, Options] = {
    "defaults": {},
    "long prefill": {"max_num_batched_tokens": 2048},
    "throughput hint": {"PERFORMANCE_HINT": "THROUGHPUT"},
    "bf16 cache": {"KV_CACHE_PRECISION": "bf16"},
    "fp32": {"INFERENCE_PRECISION_HINT": "f32"},
    # Here because the fastest setting computes in 8 bits and does not sample from the softmax: log
    # p + entropy is -1.23 nats, where 0 is exact. Without AMX this one made 255 tokens/s, the
    # fastest 254 (notebook, 2026-11-29).
    "fp32, inputs not quantised": {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    },
}


@dataclass(frozen=True)
class Benchmark:
    """One comparison."""

    name: str
    title: str
    """Title for the page."""
    work: Work
    quick: Mapping[str, Any]
    """Changes to the work for `--quick`."""
    ours: str
    """Module in `sides` that does the work with our code."""
    peer: str
    """Module in `sides` that does it with the peer's code."""
    peer_name: str
    variants: Mapping[str, Options]
    """Settings to try for the peer. `--quick` uses the first, which should be the best."""
    model: str = BUNDLED
    package: str = ""
    """The peer's package on PyPI."""
    exact: bool = True
    """Whether both sides must compute the same. If not, their difference is shown with the result:
    another weight format can give other answers at the same cost."""

    def with_variants(self, variants: Mapping[str, Options]) -> Benchmark:
        """The same benchmark with other settings of the peer."""
        return replace(self, variants=variants)


def _sft(name: str, method: Any, **changes: Any) -> Benchmark:
    made = Benchmark(
        name,
        title=f"SFT ({method}), batch 16",
        work=SftWork(method=method, **_COMMON),
        quick={"steps": 1, "warm": 1, "batch": 4},
        ours="sft_ours",
        peer="sft_trl",
        peer_name="TRL SFTTrainer",
        variants=TRL,
        package="trl",
    )
    return replace(made, **changes)


def _generate(name: str, title: str, work: SampleWork, **changes: Any) -> Benchmark:
    made = Benchmark(
        name,
        title=title,
        work=work,
        quick={"tokens": 8, "prompts": min(work.prompts, 32)},
        ours="sampling_ours",
        peer="sampling_generate",
        peer_name="transformers generate",
        variants=GENERATE,
        package="transformers",
    )
    return replace(made, **changes)


def _openvino(name: str, prompts: int, tokens: int) -> Benchmark:
    return _generate(
        name,
        f"{prompts} prompts x {tokens} tokens, temperature 1",
        SampleWork(prompts=prompts, tokens=tokens, **_COMMON),
        peer="sampling_openvino",
        peer_name="OpenVINO GenAI",
        variants=OPENVINO,
        package="openvino-genai",
        # It computes from the 4-bit file, ours from what that was de-quantised to: its samples have
        # log p + entropy of -1.0 nats under ours (notebook, 2026-11-25, AMX).
        exact=False,
    )


def _rollout(name: str, prompts: int, n: int) -> Benchmark:
    title = f"{prompts} prompts x {n} answers x 32 tokens, with log-probabilities"
    work = SampleWork(prompts=prompts, n=n, tokens=32, logprobs=True, **_COMMON)
    return _generate(name, title, work)


_SAMPLING = SampleWork(prompts=128, tokens=48, **_COMMON)
_TITLE = "128 prompts x 48 tokens, temperature 1"
_GPU: dict[str, Any] = {"device": "cuda", **_COMMON}
_LARGE = "random:qwen2-1.5b"

CPU = {
    one.name: one
    for one in (
        _sft("sft-lora", "lora"),
        _sft("sft-full", "full"),
        _generate("sampling", _TITLE, _SAMPLING),
        _openvino("sampling-openvino", 128, 48),
        _openvino("short-openvino", 64, 32),
        *(_openvino(f"batch-{rows}-openvino", rows, 48) for rows in (1, 4, 16)),
        _rollout("rollout", 8, 8),
        _rollout("rollout-single", 64, 1),
        Benchmark(
            "rl-step",
            title="one GRPO step (lora): 16 prompts x 8 answers x 32 tokens, rewards, an update",
            work=RlWork(prompts=16, **_COMMON),  # with 64 the peer takes a quarter of an hour
            quick={"prompts": 4, "n": 4, "tokens": 8, "warm_prompts": 2},
            ours="rl_ours",
            peer="rl_trl",
            peer_name="TRL GRPOTrainer",
            variants=GRPO,
            package="trl",
        ),
    )
}
GPU = {
    one.name: one
    for one in (
        _sft(
            "gpu-sft-lora",
            "lora",
            title="SFT (lora) on a GPU, 1.5B shape, 32 x 512 tokens",
            work=SftWork(method="lora", batch=32, cut=512, steps=10, warm=3, **_GPU),
            model=_LARGE,
        ),
        _sft(
            "gpu-sft-full",
            "full",
            title="SFT (full) on a GPU, 1.5B shape, 16 x 512 tokens",
            work=SftWork(method="full", batch=16, cut=512, steps=10, warm=3, **_GPU),
            model=_LARGE,
        ),
        _generate(
            "gpu-sampling",
            "128 prompts x 128 tokens on a GPU, 1.5B shape, temperature 1",
            SampleWork(prompts=128, tokens=128, **_GPU),
            model=_LARGE,
        ),
    )
}
BENCHMARKS = CPU | GPU
"""By name. Those in `GPU` are skipped on machines without one."""
