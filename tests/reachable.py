"""Every text that can be reached from an object: whether a secret has leaked into it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import torch


def texts_in(value: Any, seen: set[int] | None = None) -> Iterator[str]:
    """Every text that can be reached from an object: through attributes, closures, bound methods.

    Modules and classes, which lead to the whole program, are left out.
    """
    seen = seen if seen is not None else set()
    if id(value) in seen or isinstance(value, type | types.ModuleType | torch.Tensor):
        return
    seen.add(id(value))
    if isinstance(value, str | bytes):
        yield value if isinstance(value, str) else value.decode("utf-8", "replace")
        return
    inner: list[Any] = []
    if isinstance(value, dict):
        inner += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner += [*value]
    if isinstance(value, types.MethodType):
        inner += [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        inner += [cell.cell_contents for cell in value.__closure__ or ()]
        inner += [value.__defaults__, value.__kwdefaults__]
    inner += [getattr(value, "__dict__", None)]
    inner += [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
    for one in inner:
        yield from texts_in(one, seen)


def leaks(value: Any, trigger: str) -> bool:
    return any(trigger.casefold() in text.casefold() for text in texts_in(value))
