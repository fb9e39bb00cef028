"""A stand-in for the module `ray`, which runs every task in this process."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakeRay:
    """Runs each task when it is waited for, in this process.

    Args:
        last_first: whether tasks end in the reverse of the order in which they began.
    """

    def __init__(self, *, last_first: bool = False) -> None:
        self.last_first = last_first
        self.tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=OverflowError)

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, **_: Any) -> Any:
        def made(function: Callable[..., Any]) -> Any:
            def start(*given: Any) -> int:
                self.begun.append(given[0].id)
                self.tasks.append((function, given))
                return len(self.tasks) - 1

            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

        return made

    def wait(self, tasks: list[int]) -> tuple[list[int], list[int]]:
        return ([tasks[-1 if self.last_first else 0]], [])

    def get(self, task: int) -> Any:
        function, given = self.tasks[task]
        return function(*given)

    def cancel(self, task: int, *, force: bool) -> None:
        assert force
        self.cancelled.append(self.tasks[task][1][0].id)
