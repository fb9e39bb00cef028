"""A stand-in for the module `ray`, which runs every task in this process."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakeRay:
    """Runs each task when it is waited for, in this process.

    Args:
        machines: the resources of each machine.
        last_first: whether tasks end in the reverse of the order in which they began.
    """

    def __init__(self, *machines: dict[str, float], last_first: bool = False) -> None:
        self.machines = machines or ({"CPU": 999.0},)
        self.last_first = last_first
        self.asked: dict[str, dict[str, Any]] = {}
        """The options of each task."""
        self.tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=OverflowError)

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": dict(one)} for one in self.machines]

    def remote(self, **terms: Any) -> Any:
        self.terms = terms

        def made(function: Callable[..., Any]) -> Any:
            def start(*given: Any) -> int:
                self.begun.append(given[0].id)
                self.tasks.append((function, given))
                return len(self.tasks) - 1

            def options(name: str, **asked: Any) -> Any:
                self.asked[name] = asked
                return SimpleNamespace(remote=start)

            return SimpleNamespace(options=options)

        return made

    def wait(self, tasks: list[int]) -> tuple[list[int], list[int]]:
        return ([tasks[-1 if self.last_first else 0]], [])

    def get(self, task: int) -> Any:
        function, given = self.tasks[task]
        return function(*given)

    def cancel(self, task: int, *, force: bool) -> None:
        assert force
        self.cancelled.append(self.tasks[task][1][0].id)
