"""The documentation as a site: links out of docs/ become the names of files (a hook of MkDocs)."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files of the repository, which the site does not have, by their paths."""
    return OUTSIDE.sub(_named, markdown)


def _named(link: re.Match[str]) -> str:
    text, path = link[1], link[2].removeprefix("../")
    return text if text.strip("`") in path else f"{text} (`{path}`)"
