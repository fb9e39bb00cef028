"""The documentation builds as a site without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.links import on_page_markdown

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|url\(|@import\s)["']?(?:https?:)?//[^"')\s]+""")
CANONICAL = re.compile(r"""<link[^>]*rel=["']?(?:canonical|prev|next)[^>]*>""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in site.glob("*.html")}
    listed = re.findall(r"([\w-]+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert set(listed) == pages and len(listed) == len(pages)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = CANONICAL.sub("", path.read_text(encoding="utf-8"))
        assert LOADED.findall(text) == [], path.name


def test_links_out_of_the_site_become_names() -> None:
    said = on_page_markdown("see [the example](../examples/plugin/a.py), [here](audit.md)")
    assert said == "see the example (`examples/plugin/a.py`), [here](audit.md)"
    assert on_page_markdown("[`tools/a.py`](../tools/a.py)") == "`tools/a.py`"
